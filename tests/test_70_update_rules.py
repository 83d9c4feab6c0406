"""Update rules on the command line: --rule and --optimizer, --anchor, --inner-batch,
--order-seed, and one --inner-lr for each step.
"""

import json

import pytest
from command_line import SMALL, configuration, error_of, left_in, train

import refmaml as rm
from refmaml.cli import main, problem
from refmaml.training import checkpoint
from refmaml.update_rules.from_text import LONGEST, NAMES, RULES, rule_from_text

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]
MOMENTUM = "SGD(momentum=0.9)"
RULE = ["--rule", "Clip(SGD(momentum=0.5), norm=10.0)", "--anchor", "0.1", "--inner-batch", "4"]
LOOP = [*RULE, "--order-seed", "3", "--inner-steps", "3", "--inner-lr", "0.03,0.02,0.01"]


# ---- texts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, rule",
    [
        ("adam", rm.Adam()),
        (" Adam(eps_root=1e-8) ", rm.Adam(eps_root=1e-8)),
        ("ADAMW(betas=(0.8, 0.9))", rm.AdamW(betas=(0.8, 0.9))),
        ("SGD(0.9, nesterov=True)", rm.SGD(momentum=0.9, nesterov=True)),
        ("Clip(SGD(momentum=0.9), norm=1.0)", rm.Clip(rm.SGD(momentum=0.9), norm=1.0)),
        ("clip(clip(rmsprop, value=2), norm=1)", rm.Clip(rm.Clip(rm.RMSprop(), value=2), norm=1)),
        ("UpdateRule", rm.UpdateRule()),
    ],
)
def test_a_text_is_the_rule_that_it_calls(text, rule):
    assert rule_from_text(text) == rule and type(rule_from_text(text)) is type(rule)


def test_every_public_rule_has_a_text():
    for cls in RULES.values():
        text = "Clip(SGD(), norm=0.5)" if cls is rm.Clip else f"{cls.__name__}()"
        assert type(rule_from_text(text)) is cls
        assert rule_from_text(repr(rule_from_text(text))) == rule_from_text(text)


LIKE = "an update rule, such as adam or SGD(momentum=0.9)"
SGDS = "arguments of SGD (momentum, dampening, nesterov, weight_decay), each once"
VALUES = "numbers, True, False, None, tuples or rules as arguments"


@pytest.mark.parametrize(
    "text, expected, got",
    [
        ("", LIKE, "''"),
        ("SGD(", LIKE, "'SGD('"),
        ("SGD(\0)", LIKE, r"'SGD(\x00)'"),
        ("0.9", LIKE, "'0.9'"),
        ("rm.SGD()", LIKE, "'rm.SGD()'"),
        ("lambda: 0", LIKE, "'lambda: 0'"),
        ("(" * LONGEST, LIKE, f"'{'(' * LONGEST}'"),
        ("adamm", f"a rule, one of {NAMES}", "'adamm'"),
        ("SGD(momentum=open('x'))", f"a rule, one of {NAMES}", "'open'"),
        ("SGD(beta=0.9)", SGDS, "'beta=0.9'"),
        ("SGD(0.9, momentum=0.9)", SGDS, "'momentum=0.9'"),
        ("SGD(**{})", SGDS, "'**{}'"),
        ("SGD(1, 2, 3, 4, 5)", "at most 4 arguments in SGD", "5"),
        ("SGD(momentum='a')", VALUES, '''"'a'"'''),
        ("SGD(momentum=2 ** 9)", VALUES, "'2 ** 9'"),
        ("SGD(momentum=-True)", VALUES, "'-True'"),
        ("SGD(momentum=1e999)", "numbers up to 1e+300", "1e309"),
        (f"SGD(0x{'f' * 252})", "numbers up to 1e+300", str(16**252 - 1)),
    ],
)
def test_a_wrong_text_is_refused_in_one_line(capsys, text, expected, got):
    line = error_of(capsys, "train", *SMALL, "--rule", text)
    assert line == f"--rule: expected {expected}, got {got}"


@pytest.mark.parametrize(
    "more, line",
    [
        (["--rule", "SGD(momentum=-1)"],
         "--rule: SGD's momentum: expected a finite number >= 0, got -1"),
        (["--optimizer", "Adam(betas=(0.9, 1))"],
         "--optimizer: Adam's betas[1]: expected a number in [0, 1), got 1"),
        (["--optimizer", "adamm"], f"--optimizer: expected a rule, one of {NAMES}, got 'adamm'"),
        (["--rule", f"SGD({'9' * LONGEST})"], f"--rule: expected {LIKE}, got 'SGD({'9' * 75}"),
        (["--anchor", "-1"], "--anchor: expected a finite number >= 0, got '-1'"),
        (["--order-seed", "-1"], "--order-seed: expected an integer >= 0, got '-1'"),
        (["--inner-lr", "0.1,"], "--inner-lr: expected a finite number > 0, or one for each inner "
         "step with commas between them, got '0.1,'"),
        (["--inner-lr", "0.1,0.2"],
         "--inner-lr: expected a number, or 1 of them, one for each inner step, got (0.1, 0.2)"),
        (["--inner-lr", "0.1,0.2", "--inner-steps", "2", "--method", "meta-sgd"],
         "--inner-lr: expected one number, the start of A in all steps, got (0.1, 0.2)"),
        (["--inner-lr", "0.1,0.2", "--inner-steps", "2", "--method", "imaml"],
         "--inner-lr: expected a finite number > 0, got (0.1, 0.2)"),
        (["--inner-lr", "0.1,0.2", "--inner-steps", "2", "--eval-steps", "3"],
         "--eval-steps: expected 2, as --inner-lr has one number for each inner step, got 3"),
        (["--inner-batch", "11"],
         "--inner-batch: expected at most the 10 examples of a support set, got 11"),
        (["--method", "reptile", "--rule", MOMENTUM, "--inner-optimizer", "adam"],
         "--rule: expected no rule and no anchor beside optimizer='adam', got SGD(momentum=0.9, "
         "dampening=0.0, nesterov=False, weight_decay=0.0)"),
        (["--optimizer", "Adam(eps=1e-3)", "--adam-eps", "1e-4"],
         "--adam-eps: expected no eps in --optimizer beside it, got eps=0.001"),
        (["--method", "reptile", "--inner-moment", "carried", "--optimizer", MOMENTUM],
         f"--optimizer: expected sgd beside --inner-moment carried, got {MOMENTUM}"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused_in_one_line(capsys, more, line):
    assert error_of(capsys, "train", *SMALL, "--steps", "1", *more) == line


@pytest.mark.parametrize("option", [["--rule", "adam"], ["--anchor", "0.1"], ["--order-seed", "1"]])
def test_a_method_without_an_inner_loop_takes_none_of_them(capsys, option):
    line = error_of(capsys, "train", *SMALL, "--method", "erm", *option)
    assert line.startswith(f"{option[0]}: expected --method maml or ")
    assert line.endswith("beside it, got --method erm")


# ---- methods and optimisers ----------------------------------------------------------


def test_options_become_fields_of_the_method():
    config = configuration("--data", "sinusoid", *LOOP)
    assert config["rule"] == LOOP[1] and config["inner_lr"] == [0.03, 0.02, 0.01]
    rule = rm.Clip(rm.SGD(momentum=0.5), norm=10.0)
    lengths = (0.03, 0.02, 0.01)
    wanted = rm.MAML(lengths, 3, rule=rule, anchor=0.1, inner_batch=4, order_seed=3)
    assert problem.make_method(config) == wanted


WITHOUT_A_RULE = ("erm", "imaml-released", "r2d2", "lrd2", "metaoptnet", "alpaca", "cnp")


@pytest.mark.parametrize("method", [m for m in problem.METHODS if m not in WITHOUT_A_RULE])
def test_every_method_with_an_inner_loop_takes_a_rule(method):
    config = configuration("--data", "sinusoid", "--method", method, "--rule", "rmsprop")
    assert problem.make_method(config).rule == rm.RMSprop()


@pytest.mark.parametrize(
    "options, optimizer",
    [
        ([], rm.Adam()),
        (["--adam-eps", "1e-3"], rm.Adam(eps=1e-3)),
        (["--optimizer", "sgd", "--adam-eps", "1e-3"], rm.SGD()),
        (["--optimizer", "AdamW(weight_decay=0.1)", "--adam-eps", "1e-3"],
         rm.AdamW(weight_decay=0.1, eps=1e-3)),
        (["--optimizer", "Clip(adam, norm=1.0)", "--adam-eps", "1e-3"],
         rm.Clip(rm.Adam(eps=1e-3), norm=1.0)),
        (["--optimizer", "Adam(eps=1e-3)"], rm.Adam(eps=1e-3)),
    ],
)  # fmt: skip
def test_the_outer_optimiser_is_a_rule(options, optimizer):
    assert problem.make_optimizer(configuration(*options)) == optimizer


# ---- runs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        LOOP,
        ["--method", "maml++", *LOOP],
        ["--method", "reptile", "--rule", "adamw", "--schedule", "constant", "--optimizer",
         MOMENTUM],
        ["--method", "imaml", "--rule", MOMENTUM, "--optimizer", "Clip(AdamW(), norm=0.1)"],
        ["--optimizer", "Clip(SGD(momentum=0.9), norm=1.0, per_tensor=True)"],
    ],
    ids=["loop", "maml++", "reptile", "imaml", "outer"],
)  # fmt: skip
def test_a_run_stopped_and_resumed_has_the_bits_of_a_whole_one(options):
    assert train("--steps", "6", "--out", "whole", *options) == 0
    assert train("--steps", "3", "--out", "part", *options) == 0
    assert main(["train", "--resume", "--out", "part", "--steps", "6", "--quiet"]) == 0
    whole, part = left_in("whole"), left_in("part")
    assert whole[:2] == part[:2] and whole[3] == part[3]
    assert main(["evaluate", "part/checkpoint.npz", "--tasks", "3"]) == 0
    assert "m" in whole[1]


NEW = ("rule", "anchor", "order_seed")


def test_checkpoints_and_configurations_without_the_new_options_are_read():
    train("--steps", "4", "--out", "whole")
    train("--steps", "2", "--out", "old")
    now, config = checkpoint.load("old/checkpoint.npz")
    checkpoint.save("old/checkpoint.npz", now, {n: config[n] for n in config if n not in NEW})
    assert main(["evaluate", "old/checkpoint.npz", "--tasks", "2"]) == 0
    assert main(["train", "--resume", "--out", "old", "--steps", "4", "--quiet"]) == 0
    assert left_in("old")[:2] == left_in("whole")[:2]


def test_evaluation_may_adapt_by_another_rule(capsys):
    train("--steps", "2", "--out", "run", *RULE)
    capsys.readouterr()
    evaluate = ["evaluate", "run/checkpoint.npz", "--tasks", "3", "--json", "result.json"]
    values = []
    for more in ([], ["--rule", MOMENTUM], ["--rule", "UpdateRule", "--anchor", "0"]):
        assert main([*evaluate, "--inner-lr", "0.02,0.01", "--inner-steps", "2", *more]) == 0
        with open("result.json") as file:
            result = json.load(file)
        assert result["configuration"]["inner_lr"] == [0.02, 0.01]
        values.append(result["loss"])
    assert len(set(values)) == 3
