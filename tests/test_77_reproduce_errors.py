"""`refmaml reproduce omniglot`: bad files, signals, changed settings, divergence."""

import json
import os
import shlex
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from clock import Clock
from tiny_table import interrupted_after, reproduce, tiny_table

from refmaml import cli, training
from refmaml.cli import main, problem
from refmaml.cli.omniglot import cells, protocols
from refmaml.errors import NonFiniteError
from refmaml.training import checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent

tiny = pytest.fixture(tiny_table)


@pytest.mark.parametrize("content", ["", "{", "[" * 100000], ids=["empty", "cut off", "deep"])
def test_a_damaged_result_is_one_line(tiny, capsys, content):
    reproduce("--rows", "maml", "--protocols", "equal")
    (tiny / "runs/omniglot/equal/5w1s/maml/result.json").write_text(content)
    capsys.readouterr()
    assert reproduce("--rows", "maml", "--protocols", "equal") == 2
    err = capsys.readouterr().err
    assert (
        err == "refmaml: runs/omniglot/equal/5w1s/maml/result.json: expected a cell's result, "
        "got no JSON\n"
    )


def test_a_result_of_another_command_in_a_cells_folder_is_one_line(tiny, capsys):
    reproduce("--rows", "maml", "--protocols", "equal")
    folder = tiny / "runs/omniglot/equal/5w1s/maml"
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(
        json.dumps({name: result[name] for name in ("steps", "seconds", "configuration")})
    )
    capsys.readouterr()
    for more in ([], ["--list"]):
        assert reproduce("--rows", "maml", "--protocols", "equal", *more) == 2
        err = capsys.readouterr().err
        assert (
            err.count("\n") == 1
            and "result.json: expected a cell's result, got another (remove it to" in err
        )
    (folder / "result.json").unlink()
    assert reproduce("--rows", "maml", "--protocols", "equal") == 0
    again = json.loads((folder / "result.json").read_text())
    assert {n: v for n, v in again.items() if n != "judged_in"} == {
        n: v for n, v in result.items() if n != "judged_in"
    }


def test_a_checkpoint_that_another_net_left_is_not_gone_on_with(tiny, capsys):
    reproduce("--rows", "maml", "--protocols", "equal")
    path = tiny / "runs/omniglot/equal/5w1s/maml/checkpoint.npz"
    now, config = checkpoint.load(path)
    checkpoint.save(path, replace(now, state={}, step=2), config)
    before = path.read_bytes()
    capsys.readouterr()
    assert reproduce("--rows", "maml", "--protocols", "equal") == 2
    assert (
        "and the optimiser state m, v, got" in capsys.readouterr().err
        and path.read_bytes() == before
    )


@pytest.mark.parametrize("signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_evaluation_prints_how_to_continue(
    tiny, capsys, monkeypatch, signum, status
):
    make, chosen = problem.make_evaluators, ("--rows", "maml", "--protocols", "equal")
    with monkeypatch.context() as patch:
        patch.setattr(
            problem,
            "make_evaluators",
            lambda *a, **k: os.kill(os.getpid(), signum) or make(*a, **k),
        )
        assert reproduce(*chosen, "--out", "my runs") == status
    err = capsys.readouterr().err
    assert err == (
        "refmaml: interrupted; to go on: refmaml reproduce omniglot --protocols equal "
        "--columns 5w1s --rows maml "
        "--out 'my runs' --data-root . --quiet\n"
    )
    assert (
        main(shlex.split(err.split("to go on: refmaml ")[1])) == 0
        and "**" in capsys.readouterr().out
    )


def test_a_run_under_other_settings_is_not_gone_on_with(tiny, capsys, monkeypatch):
    reproduce("--rows", "maml", "--protocols", "equal")
    before = protocols.configuration
    monkeypatch.setattr(
        protocols, "configuration", lambda *cell: before(*cell) | {"inner_lr": 0.25}
    )
    capsys.readouterr()
    assert reproduce("--rows", "maml", "--protocols", "equal") == 2
    assert "the protocol's --inner-lr 0.25, got 0.5" in capsys.readouterr().err


def test_what_is_judged_already_is_not_judged_again(tiny, monkeypatch):
    reproduce("--rows", "maml", "--protocols", "equal")
    monkeypatch.setattr(problem, "make_evaluators", lambda *a, **k: pytest.fail("judged again"))
    assert reproduce("--rows", "maml", "--protocols", "equal") == 0


def test_a_cell_whose_settings_of_judging_changed_is_judged_again(tiny, monkeypatch):
    reproduce("--rows", "maml", "--protocols", "equal")
    before = protocols.configuration
    monkeypatch.setattr(protocols, "configuration", lambda *cell: before(*cell) | {"eval_steps": 3})
    assert reproduce("--rows", "maml", "--protocols", "equal") == 0
    result = json.loads((tiny / "runs/omniglot/equal/5w1s/maml/result.json").read_text())
    assert result["configuration"]["eval_steps"] == 3 and result["steps"] == 4


def test_a_cell_that_diverges_is_evaluated_at_its_last_step_and_does_not_stop_the_others(
    tiny, capsys, monkeypatch
):
    before, judged = protocols.configuration, cells.evaluate_cell
    trained = ("--rows", "maml", "fomaml", "--protocols", "equal")
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", interrupted_after(2))
        reproduce("--rows", "maml", "--protocols", "equal")  # a checkpoint of step 2
    capsys.readouterr()

    def overflown(recipe, now, train=training.train, **options):
        if now.step == 2:
            raise NonFiniteError("meta-step 3: planted")
        return train(recipe, now, **options)

    monkeypatch.setattr(training, "train", overflown)
    assert reproduce(*trained) == 2
    out, err = capsys.readouterr()
    assert err.startswith("refmaml: meta-step 3: planted; ") and err.count("\n") == 1
    assert "unfinished: step 2 of 4" in out and out.count("**") == 2  # and the other is finished
    monkeypatch.setattr(
        cells,
        "evaluate_cell",
        lambda *a: pytest.fail("not this one") if a[0].row == "maml" else judged(*a),
    )
    path = tiny / "runs/omniglot/equal/5w1s/maml/checkpoint.npz"
    path.write_bytes(path.read_bytes()[:1000])
    monkeypatch.setattr(protocols, "configuration", lambda *cell: before(*cell) | {"eval_steps": 1})
    assert reproduce(*trained) == 2 and "checkpoint.npz: expected" in capsys.readouterr().err
    assert (
        cells.Cell("equal", "fomaml", "5w1s", Path("runs/omniglot")).result()["configuration"][
            "eval_steps"
        ]
        == 1
    )


def test_evaluation_takes_nothing_from_the_time_for_training(tiny, monkeypatch):
    clock, go_on, judge, given = Clock(), cells.resume, cells.evaluate_cell, []

    def trained(cell, minutes, *more):
        given.append(minutes)
        clock.sleep(60)
        return go_on(cell, minutes, *more)

    def judged(*more):
        clock.sleep(1e6)
        return judge(*more)

    monkeypatch.setattr(cells, "resume", trained)
    monkeypatch.setattr(cells, "evaluate_cell", judged)
    monkeypatch.setattr(cli.reproduce, "time", SimpleNamespace(monotonic=clock))
    assert (
        reproduce("--rows", "maml", "fomaml", "reptile", "--protocols", "equal", "--budget", "2m")
        == 0
    )
    assert given == [2.0, 1.0]
