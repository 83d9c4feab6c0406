"""Tasks: the same whoever samples them and when, in how many pieces, and with which NumPy; and sampled ahead of their step."""

import hashlib
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refmaml import MAML, Batch, LinearRegression, Quadratics, Sinusoids, TwoLayerLinear
from refmaml.models import mlp
from refmaml.tasks.few_shot import FewShot
from refmaml.training import Adam, Recipe, Row, Rows, Schedule, train, trainer
from refmaml.training import checkpoint as file_format
from refmaml.training.prefetch import BURST, BYTES, ahead

PICTURES = np.arange(30 * 20 * 4 * 4).reshape(30, 20, 4, 4).astype(np.uint8)
TABLE = FewShot(PICTURES, [str(i) for i in range(30)])
DISTRIBUTIONS = {
    "few-shot": TABLE,
    "as classes": FewShot(PICTURES, [str(i) for i in range(30)], rotations="as_classes"),
    "sinusoids": Sinusoids(),
    "linear": LinearRegression(4),
    "two-layer": TwoLayerLinear(5, 2),
    "quadratics": Quadratics(4),
}


def arrays(batch):
    return [np.ascontiguousarray(a).tobytes() for _, a in batch.named]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_task_i_of_a_step_is_the_same_in_whatever_pieces_it_is_asked_for(name):
    sample = DISTRIBUTIONS[name].sample
    whole = sample(12, seed=3, step=5)
    for size in (1, 3, 5):  # chunks, or the shares of ranks
        for start in range(0, 12, size):
            assert arrays(sample(range(start, min(12, start + size)), seed=3, step=5)) == arrays(
                whole[start : start + size]
            )
    for rank in range(4):  # every fourth
        assert arrays(sample(range(rank, 12, 4), seed=3, step=5)) == arrays(whole[rank::4])
    assert arrays(sample(12, seed=3, step=6)) != arrays(whole)


def test_the_first_thousand_episodes_are_those_of_every_machine_and_version():
    """NumPy promises its streams for one version only: where one changes, checkpoints made before cannot go on to the same bits."""
    seen = hashlib.sha256()
    for step in range(250):
        for a in arrays(TABLE.sample(4, n_way=3, k_query=2, step=step)):
            seen.update(a)
    assert seen.hexdigest() == "54c89b92dcd57dc0cd3a757b28f2b93440884a25162632d03d528f9bbb91c755"
    x = Sinusoids(phase=(0, 0), amplitude=(1, 1)).sample(1000, dtype=np.float64)
    assert (
        hashlib.sha256(x.x_support.tobytes()).hexdigest()
        == "f3118d5b26090127b690993c5ebae3e06bed67f1d5c6157617b3f5407491b549"
    )


# ---- ahead of the step ---------------------------------------------------------------------------------------------------


def recipe(sample, chunk=2):
    return Recipe(mlp((1, 5, 1), "tanh"), MAML(0.01), Adam(), Schedule(1e-2), sample, chunk)


def start(r):
    return r.start(r.net.init(0))


def waves(step):
    return Sinusoids().sample(3, seed=1, step=step)


def bits(now):
    return now.meta.tobytes(), [
        now.rows.column(name).tobytes() for name in Row._fields if name != "seconds"
    ]


def test_sampling_ahead_changes_no_bit(monkeypatch):
    from contextlib import nullcontext

    early = [
        bits(train(recipe(waves, chunk), start(recipe(waves)), steps=40)) for chunk in (1, 2, 8)
    ]
    monkeypatch.setattr(trainer, "ahead", lambda sample, steps: nullcontext(sample))
    assert early == [bits(train(recipe(waves), start(recipe(waves)), steps=40))] * 3


def test_steps_to_come_are_sampled_in_a_thread_once_each_and_none_beyond_the_end():
    where = []

    def sample(step):
        where.append((step, threading.current_thread() is threading.main_thread()))
        return waves(step)

    before = threading.active_count()
    train(recipe(sample), start(recipe(sample)), steps=37)
    assert (
        sorted(where) == [(0, True)] + [(step, False) for step in range(1, 37)]
        and threading.active_count() == before
    )


def test_a_batch_is_there_when_its_step_comes():
    """While a step is under way, the next one's tasks come into being: it can wait for them and will not wait in vain."""
    begun = [threading.Event() for _ in range(60)]

    def sample(step):
        begun[step].set()
        return waves(step)

    with ahead(sample, 60) as prepared:
        for step in range(59):
            prepared(step)
            assert begun[step + 1].wait(timeout=30)


def test_few_large_batches_are_held_at_once():
    alive, most = set(), []

    class Large:
        nbytes = BYTES // 2

    def sample(step):
        alive.add(step)
        most.append(len(alive))
        return Large()

    with ahead(sample) as prepared:
        for step in range(30):
            prepared(step)
            time.sleep(0.001)
            alive.discard(step)
    assert 2 <= max(most) <= 4 < BURST


def test_what_sampling_raises_in_the_thread_is_raised_at_its_step():
    def sample(step):
        if step == 7:
            raise ZeroDivisionError("step 7")
        return waves(step)

    steps, saved = [], []
    with pytest.raises(ZeroDivisionError, match="step 7"):
        train(
            recipe(sample),
            start(recipe(sample)),
            steps=20,
            show=lambda now: steps.append(now.step),
            save=saved.append,
        )
    assert steps == list(range(1, 8)) and saved == []


def test_steps_out_of_order_are_sampled_all_the_same():
    with ahead(lambda step: Batch(*[np.full((1, 2), step)] * 4)) as sample:
        assert [int(sample(step).x_query[0, 0]) for step in (4, 5, 9, 0, 1, 2, 30, 31)] == [
            4,
            5,
            9,
            0,
            1,
            2,
            30,
            31,
        ]


# ---- the curve, and the file that says where random numbers come from --------------------------------------------------------


def test_rows_are_a_sequence_of_rows():
    rows, expected = Rows(), []
    for t in range(1, 200):
        expected.append(Row(t, 1 / t, 0.5, 2.0 * t, 0.1 * t, 0.3))
        rows.put(expected[-1])
    assert (
        list(rows) == expected
        and rows == expected
        and rows[5] == expected[5]
        and rows[-1] == expected[-1]
    )
    assert (
        rows[3:9] == expected[3:9]
        and len(rows) == 199
        and rows.column("loss").tolist() == [row.loss for row in expected]
    )
    rows.put(Row(100, 0.0, 0.0, 0.0, 0.0))  # a step taken again is the last one
    assert (
        len(rows) == 100
        and rows[98] == expected[98]
        and rows[99].loss == 0
        and type(rows[99].step) is int
    )


def rewritten(path, change):
    """A checkpoint whose manifest `change` has changed, under a sha256 that holds."""
    import json

    from refmaml.storage.npz import digest

    with np.load(path) as file:
        members = dict(file)
    manifest = json.loads(members.pop("manifest").tobytes())
    del manifest["sha256"]
    change(manifest, members)
    manifest["sha256"] = digest(manifest, members)
    np.savez(path, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8), **members)
    return file_format.load(path)


@pytest.fixture
def kept(tmp_path):
    now = train(recipe(waves), start(recipe(waves)), steps=5)
    file_format.save(tmp_path / "c.npz", now, {"a": 1})
    return tmp_path / "c.npz", now


def test_a_checkpoint_of_the_first_schema_goes_on_to_the_same_bits(kept):
    path, now = kept

    def first(manifest, members):
        manifest["schema"] = "refmaml-checkpoint-1"
        del manifest["columns"], manifest["random"]
        members["curve"] = np.ascontiguousarray(members["curve"][:, :5])

    old, config = rewritten(path, first)
    assert config == {"a": 1} and bits(old) == bits(now)
    assert bits(train(recipe(waves), old, steps=9)) == bits(
        train(recipe(waves), start(recipe(waves)), steps=9)
    )


def test_columns_are_told_by_name(kept):
    path, now = kept

    def shuffled(manifest, members):
        manifest["columns"] = manifest["columns"][::-1]
        members["curve"] = np.ascontiguousarray(members["curve"][:, ::-1])

    assert bits(rewritten(path, shuffled)[0]) == bits(now)


@pytest.mark.parametrize(
    "entry, value",
    [
        ("columns", ["step", "loss"]),
        ("columns", ["step"] * 5),
        ("columns", None),
        ("random", "dice"),
        ("step", 4),
        ("step", True),
        ("schema", "refmaml-checkpoint-1"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(kept, entry, value):
    with pytest.raises(file_format.DataError, match="c.npz: expected a checkpoint"):
        rewritten(kept[0], lambda manifest, members: manifest.update({entry: value}))


def test_arrays_from_elsewhere_are_saved_by_the_function_that_brings_them(tmp_path):
    class Elsewhere:
        def __init__(self, a):
            self.a = a

    now = train(recipe(waves), start(recipe(waves)), steps=2)
    away = trainer.Progress(
        Elsewhere(now.meta), {k: Elsewhere(a) for k, a in now.state.items()}, now.curve, 2
    )
    file_format.save(tmp_path / "c.npz", away, {}, as_numpy=lambda a: a.a)
    assert bits(file_format.load(tmp_path / "c.npz")[0]) == bits(now)


def test_the_time_outside_the_engine_is_measured_where_the_engine_is(monkeypatch, tmp_path):
    """A sampler that takes half of the engine's time shows when it works in line, and less when it works ahead of the step."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks" / "reliability")
    import outside

    from refmaml.cli import options

    make = outside.problem.make_recipe

    def slow(*arguments):
        recipe = make(*arguments)
        return replace(
            recipe,
            method=Sleepy(recipe.method),
            sample=lambda step: time.sleep(0.01) or recipe.sample(step),
        )

    monkeypatch.setattr(outside.problem, "make_recipe", slow)
    config = options.settle({"data": "sinusoid", "kernels": "reference"})
    ahead_of, in_line = (
        outside.measure(config, {}, 1.5, 60, tmp_path, line)["outside"] for line in (False, True)
    )
    assert 0 < ahead_of < 0.8 * in_line < 0.5  # 10 ms beside 20 ms and some arithmetic


class Sleepy:
    """A method whose gradients take a while in which another thread may work."""

    def __init__(self, method):
        self.method = method

    def __getattr__(self, name):
        return getattr(self.method, name)

    def task_gradients(self, *arguments):
        time.sleep(0.02)
        return self.method.task_gradients(*arguments)
