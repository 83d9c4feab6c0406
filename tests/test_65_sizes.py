"""Sizes in a checkpoint's configuration are checked before memory is allocated."""

import tracemalloc

import pytest
from small_runs import run

from refmaml.cli import main, options, problem, sizes
from refmaml.cli.build_net import net_structure
from refmaml.errors import ArgumentError
from refmaml.kernels import reference
from refmaml.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]
HUGE = 2**31 - 1
GLYPHS = {"data": "glyphs", "k_shot": 1, "k_query": 1}
ROOM = 64 << 20  # bytes


def refused(capsys, change, *argv):
    """The error about a small checkpoint with a changed configuration.

    It must be one line, with a peak of memory below ROOM.
    """
    now, config = checkpoint.load("run/checkpoint.npz")
    checkpoint.save("run/checkpoint.npz", now, config | change)
    capsys.readouterr()
    tracemalloc.start()
    try:
        status = main(list(argv))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and err.count("\n") == 1 and peak < ROOM
    return err.removeprefix("refmaml: ")


@pytest.mark.parametrize(
    "argv",
    [
        ["evaluate", "run/checkpoint.npz", "--tasks", "5"],
        ["train", "--resume", "--out", "run", "--quiet", "--steps", "9"],
    ],
    ids=["evaluate", "resume"],
)
@pytest.mark.parametrize(
    "change",
    [
        {"hidden": [2 * 10**8]},
        {"hidden": [HUGE, HUGE]},
        {"method": "maml++", "inner_steps": 10**6},
        {"method": "cavia", "context": HUGE},
        {"data": "linear", "net": "two_layer_linear", "dim": HUGE},
        {"data": "linear", "net": "two_layer_linear", "dim": 1, "rank": HUGE},
        {"net": "conv4", "channels": HUGE, **GLYPHS},
        {"n_way": HUGE, **GLYPHS},
    ],
    ids=str,
)
def test_more_parameters_than_the_file_has_are_refused_without_their_memory(capsys, change, argv):
    run("--steps", "1")
    line = refused(capsys, change, *argv)
    assert "checkpoint.npz: expected " in line
    assert line.endswith(" as its configuration has, got 13 meta-parameters of float32\n")


@pytest.mark.parametrize("name", ["inner_steps", "eval_steps"])
def test_more_inner_steps_than_any_run_takes_are_refused(capsys, name):
    run("--steps", "1")
    line = refused(capsys, {name: HUGE}, "evaluate", "run/checkpoint.npz", "--tasks", "5")
    assert line == f"{options.flag(name)}: expected a smaller number, got {HUGE}\n"


@pytest.mark.parametrize("name", ["k_shot", "k_query", "train_shots"])
def test_more_examples_than_the_memory_holds_are_refused(capsys, monkeypatch, name):
    monkeypatch.setattr(sizes, "physical_memory", lambda: 16e9)
    run("--steps", "1")
    line = refused(capsys, {name: HUGE}, "evaluate", "run/checkpoint.npz", "--tasks", "5")
    assert line.startswith("configuration: expected tasks that fit into 16 GB of memory, got 5 ")


def test_the_examples_of_all_tasks_of_a_step_count(monkeypatch):
    config = options.settle({"data": "sinusoid", "tasks": 100})
    examples = config["k_shot"] + config["k_query"]
    monkeypatch.setattr(sizes, "physical_memory", lambda: 8 * 100 * examples)
    problem.check_sizes(config, 100)
    with pytest.raises(ArgumentError, match="got 101 tasks of 1 x 10 support"):
        problem.check_sizes(config, 101)


@pytest.mark.parametrize("method", problem.METHODS)
def test_the_size_of_every_methods_own_checkpoint_is_accepted(method):
    config = options.settle(
        {"data": "sinusoid", "method": method, "inner_steps": 7, "kernels": "reference"}
    )
    net, made = net_structure(config, reference()), problem.make_method(config)
    now = problem.make_recipe(config, net, made, problem.make_tasks(config, "train")).start(
        net.init(0)
    )
    sizes.check_vector_sizes(made, net, now, "c.npz")
