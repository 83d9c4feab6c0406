"""The command line: what a run leaves, how it goes on, and the one line that answers what is wrong."""
import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import refmaml as rm
from refmaml.cli import main, options, presets, problem
from refmaml.training import advance, checkpoint, trainer

# Other kernels would have to be compiled first.
REFERENCE = ["--kernels", "reference"]
SMALL = ["--data", "sinusoid", "--hidden", "4", "--tasks", "3", "--eval-tasks", "5", *REFERENCE, "--quiet"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*more):
    return main(["train", *SMALL, *more])


def error_of(capsys, *argv):
    """The line on stderr of a command that fails, without the program's name."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("refmaml: ")
    return err.removeprefix("refmaml: ").rstrip("\n")


def configuration(*argv):
    """What a command line settles on."""
    import argparse
    parser = argparse.ArgumentParser()
    options.add(parser, [name for name in options.KINDS if name != "json"])
    return options.settle(options.typed(parser.parse_args(argv)))


# ---- what a run leaves -------------------------------------------------------------------------------------

def test_train_leaves_checkpoint_curve_picture_configuration_and_result(capsys):
    assert train("--steps", "3", "--out", "run") == 0
    assert sorted(os.listdir("run")) == sorted(["checkpoint.npz", "config.json", "curve.csv", "curve.png",
                                                "result.json"])
    with open("run/curve.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    with open("run/result.json") as file:
        result = json.load(file)
    assert result["tasks"] == 5 and result["steps"] == 3 and result["configuration"]["hidden"] == [4]
    assert {"refmaml", "python", "numpy"} == result["versions"].keys() and result["machine"]["cores"] >= 1
    out, err = capsys.readouterr()
    assert f"loss {result['loss']:.4g} +- {result['interval']:.2g} over 5 held-out tasks, after 3 " in out
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
    outputs = [loss(), loss("--eval-steps", "5"), loss("--method", "erm"),
               loss("--method", "maml", "--eval-steps", "5")]
    assert outputs[2].startswith("erm on sinusoid: loss") and len(set(outputs)) == 4


def test_without_out_every_run_gets_a_folder_of_its_own():
    assert train("--steps", "1") == train("--steps", "1") == 0
    assert sorted(os.listdir("runs")) == ["sinusoid-maml", "sinusoid-maml-2"]


def test_away_from_a_terminal_progress_is_lines(capsys):
    main(["train", *SMALL[:-1], "--steps", "2", "--out", "run"])
    assert capsys.readouterr().err.startswith("step 1/2, 0 s: loss ")


def test_the_checkpoint_does_not_tell_where_the_data_lay(monkeypatch):
    assert "data_root" not in configuration("--data", "omniglot", "--data-root", "somewhere")


# ---- going on ----------------------------------------------------------------------------------------------

def left_in(folder):
    """A run's final state and curve, but for the seconds."""
    now, config = checkpoint.load(f"{folder}/checkpoint.npz")
    with open(f"{folder}/curve.csv", newline="") as file:
        table = [row[:-1] for row in csv.reader(file)]
    return now.meta.tobytes(), {k: a.tobytes() for k, a in now.state.items()}, table, config


def test_ten_steps_resumed_to_twenty_are_twenty_bit_for_bit():
    train("--steps", "20", "--out", "whole")
    train("--steps", "10", "--out", "halves")
    assert main(["train", "--resume", "--out", "halves", "--steps", "20", "--quiet"]) == 0
    assert left_in("halves") == left_in("whole")


def test_a_run_stopped_by_ctrl_c_says_how_to_go_on_and_does(capsys, monkeypatch):
    train("--steps", "6", "--out", "whole", "--schedule", "cosine")

    def stop(recipe, now):
        if now.step == 4:
            raise KeyboardInterrupt
        return advance(recipe, now)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "advance", stop)
        assert train("--steps", "6", "--out", "halves", "--schedule", "cosine") == 130
    said = capsys.readouterr().err
    assert said == "refmaml: interrupted; saved; to go on: refmaml train --resume --out halves\n"
    assert checkpoint.load("halves/checkpoint.npz")[0].step == 4
    assert main(said.split("to go on: refmaml ")[1].split()) == 0
    assert left_in("halves") == left_in("whole")


def test_the_same_command_with_resume_added_goes_on():
    train("--steps", "2", "--out", "run")
    assert train("--steps", "3", "--out", "run", "--resume") == 0
    assert checkpoint.load("run/checkpoint.npz")[0].step == 3


@pytest.mark.parametrize("more, message", [
    (["--lr", "0.5"], "--lr: expected 0.001 as in run/checkpoint.npz, got 0.5"),
    (["--method", "erm"], "--method: expected maml as in run/checkpoint.npz, got erm"),
    (["--steps", "9"], "--steps: expected 2 as in run/checkpoint.npz, got 9")])
def test_resume_refuses_what_would_not_be_the_same_run(capsys, more, message):
    train("--steps", "2", "--out", "run", "--schedule", "linear")
    capsys.readouterr()
    assert error_of(capsys, "train", "--resume", "--out", "run", *more) == message


def test_a_finished_run_is_not_overwritten(capsys):
    train("--steps", "1", "--out", "run")
    before = left_in("run")
    capsys.readouterr()
    message = error_of(capsys, "train", *SMALL, "--out", "run")
    assert message == "--out: expected a folder without a checkpoint, or --resume beside it, got run"
    assert left_in("run") == before


def test_a_checkpoint_whose_parameters_are_another_nets_is_refused(capsys):
    train("--steps", "1", "--out", "run")
    now, config = checkpoint.load("run/checkpoint.npz")
    checkpoint.save("run/checkpoint.npz", now, config | {"hidden": [7]})
    capsys.readouterr()
    for argv in (["evaluate", "run/checkpoint.npz"], ["train", "--resume", "--out", "run"]):
        assert "expected 22 meta-parameters of float32" in error_of(capsys, *argv)
    checkpoint.save("run/checkpoint.npz", now, config | {"optimizer": "sgd"})
    assert "the optimiser state none, got 13 meta" in error_of(capsys, "evaluate", "run/checkpoint.npz")


@pytest.mark.parametrize("change, message", [
    ({"lr": -1}, "--lr: expected a finite number > 0, got -1"),
    ({"net": "resnet"}, "--net: expected one of conv4, mlp, two_layer_linear, got 'resnet'"),
    ({"steps": "many"}, "--steps: expected an integer >= 1, got 'many'"),
    ({"surprise": 1}, f"configuration: expected some of the {len(presets.DEFAULTS)} options of this "
                      "version, got others: surprise")])
def test_a_checkpoint_whose_configuration_is_not_ours_is_refused(capsys, change, message):
    train("--steps", "1", "--out", "run")
    now, config = checkpoint.load("run/checkpoint.npz")
    checkpoint.save("run/checkpoint.npz", now, config | change)
    capsys.readouterr()
    assert error_of(capsys, "evaluate", "run/checkpoint.npz") == message


def test_a_checkpoint_of_a_version_with_fewer_options_is_read_as_what_it_was():
    train("--steps", "1", "--out", "run")
    now, config = checkpoint.load("run/checkpoint.npz")
    checkpoint.save("run/checkpoint.npz", now, {name: value for name, value in config.items() if name != "transductive"})
    assert main(["train", "--resume", "--out", "run", "--steps", "2", "--quiet"]) == 0
    assert checkpoint.load("run/checkpoint.npz")[1] == config | {"steps": 2}


def test_recomputed_activations_change_no_bit_of_a_run_and_may_be_asked_for_anew(capsys):
    more = ("--inner-steps", "3")
    train("--steps", "4", "--out", "stored", *more)
    train("--steps", "2", "--out", "again", *more, "--recompute")
    assert main(["train", "--resume", "--out", "again", "--steps", "4", "--recompute", "--quiet"]) == 0
    assert left_in("again") == left_in("stored")
    assert problem.make_method(configuration(*more), {"recompute": True}) == rm.MAML(0.4, 3, frozen=("BatchNorm2d",), recompute=True)
    capsys.readouterr()
    assert error_of(capsys, "train", "--out", "x", "--method", "reptile", "--recompute") == \
        "--recompute: expected --method maml or anil or meta-sgd or maml++ or cavia beside it, got --method reptile"


# ---- options -----------------------------------------------------------------------------------------------

def test_every_option_of_a_configuration_has_a_kind_a_default_and_a_help_text():
    saved = {name: entry for group in options.SAVED.values() for name, entry in group.items()}
    assert saved.keys() == presets.DEFAULTS.keys() and all(text for _, text in saved.values())
    tables = [presets.BY_DATA, presets.BY_NET, presets.BY_METHOD, presets.PRESETS]
    for values in [presets.DEFAULTS] + [values for table in tables for values in table.values()]:
        for name, value in values.items():
            assert value is None or options.read(name, value) == value


def test_a_preset_is_what_its_table_says_and_options_override_it():
    preset = presets.PRESETS["maml-omniglot-5w1s"]
    assert preset.items() <= configuration("--preset", "maml-omniglot-5w1s").items()
    overridden = configuration("--lr", "0.5", "--preset", "maml-omniglot-5w1s")
    assert overridden["lr"] == 0.5 and overridden["inner_lr"] == 0.4


def test_a_configuration_file_gives_the_same_run_again_and_options_override_it(capsys):
    train("--steps", "2", "--out", "first", "--lr", "0.002")
    assert main(["train", "--config", "first/config.json", "--out", "second", "--quiet"]) == 0
    assert left_in("first") == left_in("second")
    assert configuration("--config", "first/config.json", "--lr", "0.5")["lr"] == 0.5


@pytest.mark.parametrize("content, message", [
    (None, "c.json: expected the config.json of a run, got No such file or directory"),
    ("{", "c.json: expected the config.json of a run, got no JSON"),
    ("[1]", "configuration: expected some of the"),
    ('{"lr": -1}', "--lr: expected a finite number > 0, got -1")])
def test_a_configuration_file_that_is_none_is_refused(capsys, folder, content, message):
    if content is not None:
        (folder / "c.json").write_text(content)
    assert error_of(capsys, "train", "--config", "c.json").startswith(message)


def test_minutes_alone_set_no_limit_of_steps():
    assert configuration("--minutes", "2")["steps"] is None
    assert configuration()["steps"] == presets.STEPS


WAVES = ["sinusoid", "--hidden", "3"]
GLYPHS = ["glyphs", "--channels", "2", "--k-query", "1", "--train-shots", "2"]
HIDDEN = ["linear", "--net", "mlp", "--hidden", "3"]
MLP = ["glyphs", "--net", "mlp", "--hidden", "3", "--train-shots", "2"]


@pytest.mark.parametrize("method, data", [
    *((method, data) for method in problem.METHODS for data in (WAVES, GLYPHS)),
    ("maml", ["linear"]), ("anil", ["linear"]),
    *((method, data) for method in ("maml", "cavia") for data in (HIDDEN, MLP))])
def test_every_method_trains_whatever_the_data(method, data):
    config = configuration("--method", method, "--data", *data, "--tasks", "2", "--eval-tasks", "2",
                           "--steps", "1", "--dtype", "float64", *REFERENCE)
    net, method = problem.make_net(config), problem.make_method(config)
    recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train"))
    start = recipe.start(net.init(0, config["dtype"]))
    now = advance(recipe, start)
    assert now.meta.dtype == np.float64 and (now.meta != start.meta).any()
    assert np.isfinite(problem.make_judge(config, net, method, len(now.meta))(now.meta).mean)


@pytest.mark.parametrize("argv, message", [
    (["--lr", "-1"], "--lr: expected a finite number > 0, got '-1'"),
    (["--lr", "nan"], "--lr: expected a finite number > 0, got 'nan'"),
    (["--k-shot", "0"], "--k-shot: expected an integer >= 1, got '0'"),
    (["--tasks", "2.5"], "--tasks: expected an integer >= 1, got '2.5'"),
    (["--seed", "x"], "--seed: expected an integer >= 0, got 'x'"),
    (["--data", "imagenet"], "--data: expected one of glyphs, omniglot, sinusoid, linear, got 'imagenet'"),
    (["--preset", "x"], "--preset: expected one of maml-omniglot-5w1s, got 'x'"),
    (["--hidden", "4", "0"], "--hidden: expected integers >= 1, got ['4', '0']"),
    (["--channels", "4"], "--channels: expected --net conv4 beside it, got --net mlp"),
    (["--n-way", "4"], "--n-way: expected --data glyphs or omniglot beside it, got --data sinusoid"),
    (["--cg-steps", "4"], "--cg-steps: expected --method imaml beside it, got --method maml"),
    (["--method", "erm", "--eval-steps", "4"],
     "--eval-steps: expected a method that adapts, got --method erm"),
    (["--net", "conv4"], "--net: expected mlp or two_layer_linear, got conv4 with --data sinusoid"),
    (["--resume"], "--out: expected the folder of the run to go on with, beside --resume, got nothing"),
    (["--minutes", "1", "--schedule", "linear"],
     "--steps: expected a number of steps for the linear schedule to count down, got None"),
    (["--out", "file/run"], "file/run: expected a folder that can be written, got Not a directory"),
    (["--lr", "1e30", "--optimizer", "sgd", "--steps", "3"], "meta-step 2: "),
    (["--frozen", "nothing.*"], "--frozen: expected a name, wildcard or layer class among 0.weight, "),
    (["--adapts", "head", "foot"], "--adapts: expected a name, wildcard or layer class among 0.weight, "),
    (["--surprise"], "unrecognized arguments: --surprise (refmaml --help lists what there is)"),
    (["--lr"], "argument --lr: expected one argument (refmaml train --help lists what there is)")])
def test_what_cannot_be_is_answered_with_one_line(capsys, folder, argv, message):
    (folder / "file").touch()
    assert error_of(capsys, "train", "--data", "sinusoid", "--quiet", *REFERENCE, *argv).startswith(message)
    assert not (folder / "runs" / "sinusoid-maml" / "result.json").exists()


@pytest.mark.parametrize("argv, message", [
    (["train", "--data", "omniglot"], "--data-root: expected the folder that holds Omniglot, got nothing"),
    (["train", "--data", "omniglot", "--data-root", "nowhere"], "nowhere: expected Omniglot's"),
    (["train", "--data", "glyphs", "--data-root", "x"], "--data-root: expected --data omniglot beside it"),
    (["train", "--data", "linear", "--method", "cavia"], "--net: expected conv4 or mlp with --method cavia"),
    (["evaluate", "nothing.npz"], "nothing.npz: expected a checkpoint, got no such file"),
    (["evaluate", "nothing.npz", "--tasks", "0"], "--tasks: expected an integer >= 1, got '0'"),
    (["train", "--n-way", "500"], "--n-way: expected at most the 483 classes"),
    (["learn"], "argument COMMAND: invalid choice: 'learn'"),
    ([], "the following arguments are required: COMMAND")])
def test_other_commands_answer_with_one_line_too(capsys, argv, message):
    assert message in error_of(capsys, *argv, *(["--quiet", *REFERENCE] if argv[:1] == ["train"] else []))


def test_maml_plus_plus_cannot_take_other_steps_than_it_learned_rates_for(capsys):
    assert error_of(capsys, "train", *SMALL, "--method", "maml++", "--eval-steps", "3") == (
        "--eval-steps: expected 5, as maml++ learned a rate for each step, got 3")


def test_an_output_that_cannot_be_written_is_said_before_training(capsys, folder):
    (folder / "run").mkdir()
    (folder / "run" / "config.json").mkdir()
    message = error_of(capsys, "train", *SMALL, "--steps", "1000000", "--out", "run")
    assert message.startswith("run/config.json: expected a file that can be written, got ")


# ---- as a program ------------------------------------------------------------------------------------------

def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"\n    {name} " in shown for name in ("verify", "train", "evaluate", "demo"))


def test_a_reader_who_leaves_ends_the_program_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-m", "refmaml", "train", *SMALL, "--steps", "1", "--out", "run"]
    done = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_demo_leaves_its_table_pictures_curves_and_figures(capsys):
    assert main(["demo", "--out", "demo", "--steps", "1", "--eval-tasks", "4", "--quiet"]) == 0
    names = ("untrained", "erm", "reptile", "fomaml", "maml")
    assert set(os.listdir("demo")) == {"demo.json", "demo.png", "task.png", *(f"{n}.csv" for n in names)}
    with open("demo/demo.json") as file:
        results = json.load(file)["results"]
    assert [results[name]["steps"] for name in names] == [0, 1, 1, 1, 1]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split()[0] == "MAML" and f"{100 * results['maml']['accuracy']:.1f} +- " in last
