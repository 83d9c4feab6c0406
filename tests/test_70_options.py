"""Options of the command line: the configuration they make, and their errors."""

import json

import numpy as np
import pytest
from command_line import REFERENCE, SMALL, configuration, error_of, left_in, train

from refmaml.cli import main, options, presets, problem
from refmaml.training import advance

pytestmark = pytest.mark.usefixtures("folder")


def test_every_option_of_a_configuration_has_a_kind_a_default_and_a_help_text():
    saved = {name: entry for group in options.SAVED.values() for name, entry in group.items()}
    assert saved.keys() == presets.DEFAULTS.keys() and all(text for _, text in saved.values())
    tables = [presets.BY_DATA, presets.BY_NET, presets.BY_NORM, presets.BY_METHOD, presets.PRESETS]
    for values in [presets.DEFAULTS] + [values for table in tables for values in table.values()]:
        for name, value in values.items():
            assert value is None or options.read(name, value) == value


def test_a_preset_has_the_values_of_its_table_and_options_override_them():
    preset = presets.PRESETS["maml-omniglot-5w1s"]
    assert preset.items() <= configuration("--preset", "maml-omniglot-5w1s").items()
    overridden = configuration("--lr", "0.5", "--preset", "maml-omniglot-5w1s")
    assert overridden["lr"] == 0.5 and overridden["inner_lr"] == 0.4


def test_a_configuration_file_repeats_a_run_and_options_override_it(capsys):
    train("--steps", "2", "--out", "first", "--lr", "0.002")
    assert main(["train", "--config", "first/config.json", "--out", "second", "--quiet"]) == 0
    assert left_in("first") == left_in("second")
    assert configuration("--config", "first/config.json", "--lr", "0.5")["lr"] == 0.5


def test_a_configuration_file_is_compared_with_the_checkpoint_on_resume(capsys):
    train("--steps", "2", "--out", "run")
    train("--steps", "2", "--out", "other", "--lr", "0.002")
    capsys.readouterr()
    again = ["train", "--resume", "--out", "run", "--config"]
    assert (
        error_of(capsys, *again, "other/config.json")
        == "--lr: expected 0.001 as in run/checkpoint.npz, got 0.002"
    )
    assert main([*again, "run/config.json", "--steps", "3", "--quiet"]) == 0


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "c.json: expected the config.json of a run, got No such file or directory"),
        ("{", "c.json: expected the config.json of a run, got no JSON"),
        ("[1]", "configuration: expected some of the"),
        ('{"lr": -1}', "--lr: expected a finite number > 0, got -1"),
    ],
)
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
PIXELS = ["completion", "--k-shot", "9", "--fewest-shots", "5", "--k-query", "6"]
MLP = ["glyphs", "--net", "mlp", "--hidden", "3", "--train-shots", "2"]

# Methods of labels, and one of real targets.
UNFIT = {("lrd2", "sinusoid"), ("metaoptnet", "sinusoid"), ("alpaca", "glyphs")}


@pytest.mark.parametrize(
    "method, data",
    [
        *(
            (method, data)
            for method in problem.METHODS
            for data in (WAVES, GLYPHS)
            if (method, data[0]) not in UNFIT
        ),
        ("maml", ["linear"]),
        ("anil", ["linear"]),
        *((method, data) for method in ("maml", "cavia", "cnp") for data in (HIDDEN, MLP)),
        *((method, PIXELS) for method in ("maml", "cnp")),
    ],
)
def test_every_method_trains_whatever_the_data(method, data):
    config = configuration(
        "--method",
        method,
        "--data",
        *data,
        "--tasks",
        "2",
        "--eval-tasks",
        "2",
        "--steps",
        "1",
        "--dtype",
        "float64",
        *REFERENCE,
    )
    net, method = problem.make_net(config), problem.make_method(config)
    recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train"))
    start = recipe.start(net.init(0, config["dtype"]))
    now = advance(recipe, start)
    assert now.meta.dtype == np.float64 and (now.meta != start.meta).any()
    assert np.isfinite(problem.make_evaluator(config, net, method, len(now.meta))(now.meta).mean)


def test_per_step_norm_is_an_option_of_maml_plus_plus_alone(capsys):
    def method(*argv):
        return problem.make_method(configuration("--method", *argv, "--data", *GLYPHS))

    assert method("maml++", "--per-step-norm").per_step_norm
    assert not method("maml++").per_step_norm
    argv = ["train", "--method", "maml", "--per-step-norm"]
    assert error_of(capsys, *argv).startswith("--per-step-norm: expected --method maml++")


def test_support_sets_are_shuffled_for_reptile_by_default_and_for_no_other():
    def labels(*argv):
        config = configuration("--method", *argv, "--data", *GLYPHS)
        return problem.sampler(problem.make_tasks(config, "train"), config, 4)(
            range(3), 0
        ).y_support.tolist()

    by_class, shuffled = labels("maml"), labels("reptile")
    assert by_class == [sorted(task) for task in by_class] and by_class != shuffled
    assert labels("reptile", "--support-order", "by_class") == by_class
    assert labels("maml", "--support-order", "shuffled") == shuffled


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--lr", "-1"], "--lr: expected a finite number > 0, got '-1'"),
        (["--lr", "nan"], "--lr: expected a finite number > 0, got 'nan'"),
        (["--k-shot", "0"], "--k-shot: expected an integer >= 1, got '0'"),
        (["--tasks", "2.5"], "--tasks: expected an integer >= 1, got '2.5'"),
        (["--seed", "x"], "--seed: expected an integer >= 0, got 'x'"),
        (
            ["--data", "imagenet"],
            "--data: expected one of glyphs, omniglot, folder, sinusoid, linear, "
            "completion, navigation, got 'imagenet'",
        ),
        (["--preset", "x"], f"--preset: expected one of {', '.join(presets.PRESETS)}, got 'x'"),
        (["--hidden", "4", "0"], "--hidden: expected integers >= 1, got ['4', '0']"),
        (["--channels", "4"], "--channels: expected --net conv4 beside it, got --net mlp"),
        (["--norm", "group"], "--norm: expected --net conv4 beside it, got --net mlp"),
        (["--bn-gamma"], "--bn-gamma: expected --net conv4 beside it, got --net mlp"),
        (
            ["--n-way", "4"],
            "--n-way: expected --data glyphs or omniglot or folder beside it, got --data sinusoid",
        ),
        (
            ["--cg-steps", "4"],
            "--cg-steps: expected --method imaml or imaml-released beside it, got --method maml",
        ),
        (
            ["--method", "erm", "--eval-steps", "4"],
            "--eval-steps: expected a method that adapts, got --method erm",
        ),
        (
            ["--net", "conv4"],
            "--net: expected mlp or two_layer_linear, got conv4 with --data sinusoid",
        ),
        (
            ["--resume"],
            "--out: expected the folder of the run to go on with, beside --resume, got nothing",
        ),
        (
            ["--minutes", "1", "--schedule", "linear"],
            "--steps: expected a number of steps for the linear schedule to count down, got None",
        ),
        (
            ["--out", "file/run"],
            "file/run: expected a folder that can be written, got Not a directory",
        ),
        (["--lr", "1e30", "--optimizer", "sgd", "--steps", "3"], "meta-step 2: "),
        (
            ["--frozen", "nothing.*"],
            "--frozen: expected a name, wildcard or layer class among 0.weight, ",
        ),
        (
            ["--adapts", "head", "foot"],
            "--adapts: expected a name, wildcard or layer class among 0.weight, ",
        ),
        (["--surprise"], "unrecognized arguments: --surprise (refmaml --help lists what there is)"),
        (
            ["--lr"],
            "argument --lr: expected one argument (refmaml train --help lists what there is)",
        ),
    ],
)
def test_wrong_options_of_train_are_one_line(capsys, folder, argv, message):
    (folder / "file").touch()
    assert error_of(capsys, "train", "--data", "sinusoid", "--quiet", *REFERENCE, *argv).startswith(
        message
    )
    assert not (folder / "runs" / "sinusoid-maml" / "result.json").exists()


@pytest.mark.parametrize(
    "argv, message",
    [
        (
            ["train", "--data", "omniglot"],
            "--data-root: expected the folder that holds Omniglot, got nothing",
        ),
        (["train", "--data", "omniglot", "--data-root", "nowhere"], "nowhere: expected Omniglot's"),
        (
            ["train", "--data", "glyphs", "--data-root", "x"],
            "--data-root: expected --data omniglot or folder beside it",
        ),
        (
            ["train", "--data", "linear", "--method", "cavia"],
            "--net: expected conv4 or mlp with --method cavia",
        ),
        (["evaluate", "nothing.npz"], "nothing.npz: expected a checkpoint, got no such file"),
        (["evaluate", "nothing.npz", "--tasks", "0"], "--tasks: expected an integer >= 1, got '0'"),
        (["train", "--n-way", "500"], "--n-way: expected at most the 483 classes"),
        (["train", "--k-shot", "9" * 20], f"--k-shot: expected a smaller number, got '{'9' * 20}'"),
        (
            ["train", "--net", "mlp", "--data", "sinusoid", "--hidden", "2147483647", "2147483647"],
            "expected enough memory, got ",
        ),
        (["teach"], "argument COMMAND: invalid choice: 'teach'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_arguments_of_other_commands_are_one_line(capsys, argv, message):
    assert message in error_of(
        capsys, *argv, *(["--quiet", *REFERENCE] if argv[:1] == ["train"] else [])
    )


def test_maml_plus_plus_cannot_take_other_steps_than_it_learned_rates_for(capsys):
    assert error_of(capsys, "train", *SMALL, "--method", "maml++", "--eval-steps", "3") == (
        "--eval-steps: expected 5, as maml++ learned a rate for each step, got 3"
    )


def test_an_output_that_cannot_be_written_is_an_error_before_training(capsys, folder):
    (folder / "run").mkdir()
    (folder / "run" / "config.json").mkdir()
    message = error_of(capsys, "train", *SMALL, "--steps", "1000000", "--out", "run")
    assert message.startswith("run/config.json: expected a file that can be written, got ")


@pytest.mark.parametrize(
    "name, value",
    [("lr", 10**400), ("k_shot", 10**30), ("hidden", [10**30]), ("inner_steps", 2**31)],
)
def test_a_number_in_a_file_that_is_too_large_is_one_line(capsys, folder, name, value):
    (folder / "theirs.json").write_text(json.dumps({"data": "sinusoid", name: value}))
    number = value[0] if isinstance(value, list) else value
    message = error_of(capsys, "train", "--config", "theirs.json", "--out", "run")
    assert (
        message == f"{options.flag(name)}: expected a smaller number, got {value}"
        and str(number) in message
    )
    assert not (folder / "run").exists()


def test_the_largest_seed_is_one():
    assert configuration("--seed", str(2**64 - 1))["seed"] == 2**64 - 1
