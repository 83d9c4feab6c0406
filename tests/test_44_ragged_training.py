"""Training and evaluation on tasks of different sizes, and the guide to them."""

import re
from pathlib import Path

import pytest
from rank_threads import on_ranks
from weighted_and_ragged import SIZES, WEIGHTS, alone, context_net, lists

import refmaml as rm
from refmaml.training import SGD, Recipe, Schedule, evaluate, train
from refmaml.training.distributed import SINGLE_PROCESS

TASKS = range(len(SIZES))


def trained(ranks=SINGLE_PROCESS):
    mine = ranks.my_tasks(5)
    part = slice(mine.start, mine.stop)

    def sample(step):
        return rm.Batch(*lists(seed=step), WEIGHTS)[part] if mine else None

    recipe = Recipe(context_net(), rm.MAML(0.1), SGD(), Schedule(1e-2), sample, None, ranks)
    return train(recipe, recipe.start(recipe.net.init(0, float)), steps=3)


def test_training_takes_tasks_of_different_sizes_on_any_number_of_ranks():
    now, net, meta = trained(), context_net(), context_net().init(0, float)
    for step in range(3):
        out = rm.MAML(0.1).meta_gradient(net, meta, rm.Batch(*lists(seed=step), WEIGHTS))
        assert now.rows[step].loss == out.loss
        meta = meta - 1e-2 * out.grad
    assert abs(now.meta - meta).max() <= 1e-15
    expected = now.meta.tobytes()
    assert on_ranks(2, lambda ranks: trained(ranks).meta.tobytes()) == [expected] * 2


@pytest.mark.parametrize("transductive", [True, False])
def test_an_evaluation_of_lists_has_the_values_of_each_task_alone(transductive):
    net, arrays = context_net(), lists()
    theta, method = net.init(0, float), rm.MAML(0.1)

    def sample(tasks):
        return rm.Batch(*arrays)[tasks.start : tasks.stop]

    values = evaluate(net, method, theta, sample, 5, 3, transductive).values
    singles = [
        evaluate(net, method, theta, lambda tasks, t=t: alone(arrays, t), 2, 1, transductive)
        for t in TASKS
    ]
    assert list(values) == [one.values[0] for one in singles]


def test_the_guide_to_ones_own_tasks_runs_as_written(tmp_path, monkeypatch):
    from PIL import Image

    for name in ("ant", "bee", "cat", "dog", "elk"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 30), (20 * i, 0, 0)).save(
                tmp_path / "pictures" / name / f"{i}.png"
            )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    guide = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    exec("\n".join(blocks), {})
