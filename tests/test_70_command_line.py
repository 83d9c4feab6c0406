"""The command line: the files of a run, how it is resumed, and errors in one line."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from command_line import SMALL, configuration, error_of, left_in, train

import refmaml as rm
from refmaml.cli import main, presets, problem, report
from refmaml.training import Progress, Row, Rows, advance, checkpoint, trainer

pytestmark = pytest.mark.usefixtures("folder")


# ---- what a run leaves ---------------------------------------------------------------


def test_train_leaves_checkpoint_curve_picture_configuration_and_result(capsys):
    assert train("--steps", "3", "--out", "run") == 0
    assert sorted(os.listdir("run")) == sorted(
        ["checkpoint.npz", "config.json", "curve.csv", "curve.png", "result.json"]
    )
    with open("run/curve.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    with open("run/result.json") as file:
        result = json.load(file)
    assert (
        result["tasks"] == 5 and result["steps"] == 3 and result["configuration"]["hidden"] == [4]
    )
    assert {"refmaml", "python", "numpy"} == result["versions"].keys() and result["machine"][
        "cores"
    ] >= 1
    out, err = capsys.readouterr()
    assert (
        f"loss {result['loss']:.4g} +- {result['interval']:.2g} over 5 held-out tasks, after 3 "
        in out
    )
    assert err == "" and out.count("\n") == 1


def test_evaluate_repeats_the_result_of_train(capsys):
    train("--steps", "3", "--out", "run")
    assert main(["evaluate", "run/checkpoint.npz", "--tasks", "5", "--json", "again.json"]) == 0
    with open("run/result.json") as first, open("again.json") as second:
        first, second = json.load(first), json.load(second)
    assert (first["loss"], first["interval"]) == (second["loss"], second["interval"])


def test_evaluate_adapts_with_another_method_and_other_steps(capsys):
    train("--steps", "3", "--out", "run", "--method", "meta-sgd")

    def loss(*more):
        capsys.readouterr()
        assert main(["evaluate", "run/checkpoint.npz", "--tasks", "5", *more]) == 0
        return capsys.readouterr().out

    outputs = [
        loss(),
        loss("--eval-steps", "5"),
        loss("--method", "erm"),
        loss("--method", "maml", "--eval-steps", "5"),
    ]
    assert outputs[2].startswith("erm on sinusoid: loss") and len(set(outputs)) == 4


def test_without_out_every_run_gets_a_folder_of_its_own():
    assert train("--steps", "1") == train("--steps", "1") == 0
    assert sorted(os.listdir("runs")) == ["sinusoid-maml", "sinusoid-maml-2"]


def test_a_resumed_run_estimates_its_time_from_its_own_steps(monkeypatch, capsys):
    monkeypatch.setattr(report.mpi, "shown_on_terminal", lambda: True)
    with report.progress(60_000, False, done=50_000) as show:
        show.bar._time = lambda: show.bar.start_t + 10  # a hundred steps in ten seconds
        show(Progress(np.zeros(1), {}, Rows.of(np.ones((50_100, len(Row._fields)))), 50_100))
        assert re.search(r"50100/60000 \[00:10<16:30, +10\.00step/s", str(show.bar))
    capsys.readouterr()


def test_away_from_a_terminal_progress_is_lines(capsys):
    main(["train", *SMALL[:-1], "--steps", "2", "--out", "run"])
    assert capsys.readouterr().err.startswith("step 1/2, 0 s: loss ")


def test_the_checkpoint_has_no_path_of_the_data(monkeypatch):
    assert "data_root" not in configuration("--data", "omniglot", "--data-root", "somewhere")


# ---- going on ------------------------------------------------------------------------


def test_ten_steps_resumed_to_twenty_are_twenty_bit_for_bit():
    train("--steps", "20", "--out", "whole")
    train("--steps", "10", "--out", "halves")
    assert main(["train", "--resume", "--out", "halves", "--steps", "20", "--quiet"]) == 0
    assert left_in("halves") == left_in("whole")


def test_a_run_stopped_by_ctrl_c_prints_the_command_that_resumes_it(capsys, monkeypatch):
    train("--steps", "6", "--out", "whole", "--schedule", "cosine")

    def stop(recipe, now):
        if now.step == 4:
            raise KeyboardInterrupt
        return advance(recipe, now)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "advance", stop)
        assert train("--steps", "6", "--out", "halves", "--schedule", "cosine") == 130
    err = capsys.readouterr().err
    assert err == "refmaml: interrupted; saved; to go on: refmaml train --resume --out halves\n"
    assert checkpoint.load("halves/checkpoint.npz")[0].step == 4
    assert main(err.split("to go on: refmaml ")[1].split()) == 0
    assert left_in("halves") == left_in("whole")


def test_the_same_command_with_resume_continues_the_run():
    train("--steps", "2", "--out", "run")
    assert train("--steps", "3", "--out", "run", "--resume") == 0
    assert checkpoint.load("run/checkpoint.npz")[0].step == 3


@pytest.mark.parametrize(
    "more, message",
    [
        (["--lr", "0.5"], "--lr: expected 0.001 as in run/checkpoint.npz, got 0.5"),
        (["--method", "erm"], "--method: expected maml as in run/checkpoint.npz, got erm"),
        (["--steps", "9"], "--steps: expected 2 as in run/checkpoint.npz, got 9"),
    ],
)
def test_resume_refuses_what_would_not_be_the_same_run(capsys, more, message):
    train("--steps", "2", "--out", "run", "--schedule", "linear")
    capsys.readouterr()
    assert error_of(capsys, "train", "--resume", "--out", "run", *more) == message


def test_a_finished_run_is_not_overwritten(capsys):
    train("--steps", "1", "--out", "run")
    before = left_in("run")
    capsys.readouterr()
    message = error_of(capsys, "train", *SMALL, "--out", "run")
    assert (
        message == "--out: expected a folder without a checkpoint, or --resume beside it, got run"
    )
    assert left_in("run") == before


def test_a_kernel_that_the_set_lacks_is_one_line_and_status_2(capsys, monkeypatch):
    functions = rm.kernels.reference().functions
    linear = tuple(name for name in functions if name.startswith("linear_"))
    others = {name: f for name, f in functions.items() if name not in linear}
    partial = rm.kernels.KernelSet("partial", others, missing={"linear": linear})
    monkeypatch.setattr(rm.kernels, "reference", lambda: partial)
    assert error_of(capsys, "train", *SMALL, "--steps", "1", "--out", "run") == (
        "--kernels: expected a set with the kernel linear_forward, got 'partial', "
        "which lacks the operation linear; take refmaml.kernels.cpu()"
    )


def test_a_checkpoint_whose_parameters_are_another_nets_is_refused(capsys):
    train("--steps", "1", "--out", "run")
    now, config = checkpoint.load("run/checkpoint.npz")
    checkpoint.save("run/checkpoint.npz", now, config | {"hidden": [7]})
    capsys.readouterr()
    for argv in (["evaluate", "run/checkpoint.npz"], ["train", "--resume", "--out", "run"]):
        assert "expected 22 or more meta-parameters, as its" in error_of(capsys, *argv)
    checkpoint.save("run/checkpoint.npz", now, config | {"optimizer": "sgd"})
    assert "the optimiser state none, got 13 meta" in error_of(
        capsys, "evaluate", "run/checkpoint.npz"
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lr": -1}, "--lr: expected a finite number > 0, got -1"),
        (
            {"net": "resnet"},
            "--net: expected one of conv4, mlp, two_layer_linear, resnet12, got 'resnet'",
        ),
        ({"steps": "many"}, "--steps: expected an integer >= 1, got 'many'"),
        (
            {"surprise": 1},
            f"configuration: expected some of the {len(presets.DEFAULTS)} options of this "
            "version, got others: surprise",
        ),
    ],
)
def test_a_checkpoint_whose_configuration_is_not_ours_is_refused(capsys, change, message):
    train("--steps", "1", "--out", "run")
    now, config = checkpoint.load("run/checkpoint.npz")
    checkpoint.save("run/checkpoint.npz", now, config | change)
    capsys.readouterr()
    assert error_of(capsys, "evaluate", "run/checkpoint.npz") == message


def test_a_checkpoint_of_a_version_with_fewer_options_is_read_as_what_it_was():
    train("--steps", "1", "--out", "run")
    now, config = checkpoint.load("run/checkpoint.npz")
    checkpoint.save(
        "run/checkpoint.npz",
        now,
        {name: value for name, value in config.items() if name != "transductive"},
    )
    assert main(["train", "--resume", "--out", "run", "--steps", "2", "--quiet"]) == 0
    assert checkpoint.load("run/checkpoint.npz")[1] == config | {"steps": 2}


def test_recomputed_activations_change_no_bit_of_a_run_and_may_be_chosen_again(capsys):
    more = ("--inner-steps", "3")
    train("--steps", "4", "--out", "stored", *more)
    train("--steps", "2", "--out", "again", *more, "--recompute")
    assert (
        main(["train", "--resume", "--out", "again", "--steps", "4", "--recompute", "--quiet"]) == 0
    )
    assert left_in("again") == left_in("stored")
    assert problem.make_method(configuration(*more), {"recompute": True}) == rm.MAML(
        0.4, 3, frozen=("BatchNorm2d",), recompute=True
    )
    capsys.readouterr()
    assert (
        error_of(capsys, "train", "--out", "x", "--method", "reptile", "--recompute")
        == "--recompute: expected --method maml or anil or meta-sgd or "
        "meta-curvature or maml++ or cavia or llama "
        "beside it, got --method reptile"
    )


# ---- as a program --------------------------------------------------------------------


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"\n    {name} " in shown for name in ("verify", "train", "evaluate", "demo"))


def test_a_closed_pipe_behind_stdout_ends_the_program_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-m", "refmaml", "train", *SMALL, "--steps", "1", "--out", "run"]
    done = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_demo_leaves_its_table_pictures_curves_and_figures(capsys):
    assert main(["demo", "--out", "demo", "--steps", "1", "--eval-tasks", "4", "--quiet"]) == 0
    names = ("untrained", "erm", "reptile", "fomaml", "maml")
    assert set(os.listdir("demo")) == {
        "demo.json",
        "demo.png",
        "task.png",
        *(f"{n}.csv" for n in names),
    }
    with open("demo/demo.json") as file:
        results = json.load(file)["results"]
    assert [results[name]["steps"] for name in names] == [0, 1, 1, 1, 1]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split()[0] == "MAML" and f"{100 * results['maml']['accuracy']:.1f} +- " in last
