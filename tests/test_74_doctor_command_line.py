"""`refmaml doctor`: exit statuses, one-line errors, files, --list."""

import json
import xml.etree.ElementTree as ET

import pytest
from doctor_script import CODE

from refmaml.cli import main


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def doctor(file, name, *options):
    what = ["--method", "maml", "--inner-lr", "0.1", "--inner-steps", "2"]
    return main(["doctor", f"{file}:{name}", *what, "--probes", "quadratic", *options])


@pytest.mark.parametrize(
    ("name", "status", "word"),
    [
        ("gradient", 0, "RIGHT"),
        ("first_order", 1, "WRONG: first-order"),
        ("coarse", 3, "INCONCLUSIVE"),
    ],
)
def test_the_exit_status_is_the_verdict(file, capsys, name, status, word):
    assert doctor(file, name) == status
    assert capsys.readouterr().out.startswith(word)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "function: expected a gradient on the quadratic case, got RuntimeError: no"),
        ("number", "'number', which is not one"),
        ("absent", "'absent', which it does not have"),
    ],
)
def test_a_function_without_a_gradient_is_one_line_and_exit_status_2(file, capsys, name, words):
    assert doctor(file, name) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("refmaml: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["doctor", "mine.py"], "function: expected FILE.py:FUNCTION"),
        (["doctor", "absent.py:f"], "absent.py, which does not exist"),
        (["doctor", "{}:gradient", "--probes", "cubic"], "probes: expected some of"),
        (
            ["doctor", "{}:gradient", "--inner-steps", "0"],
            "--inner-steps: expected an integer >= 1",
        ),
        (["doctor", "{}:gradient", "--tol", "-1"], "--tol: expected a finite number > 0"),
        (["doctor", "{}:gradient", "--seed", "x"], "--seed: expected an integer >= 0"),
        (
            ["doctor", "{}:gradient", "--channels", "8"],
            "--net: expected a net that the options describe",
        ),
        (["doctor", "{}:gradient", "--layout", "NHWC"], "--layout: expected NAME=AXES"),
        (
            ["doctor", "{}:gradient", "--method", "erm", "--inner-lr", "0.1"],
            "--inner-lr: expected --method",
        ),
    ],
)
def test_wrong_usage_is_one_line(file, capsys, arguments, words):
    assert main([word.format(file) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_file_that_does_not_import_is_one_line(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    assert main(["doctor", f"{tmp_path}/broken.py:f"]) == 2
    assert "to import, got ModuleNotFoundError" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, words",
    [
        (
            "import sys\ndef gradient(problem, params, batch): pass\nsys.exit(0)\n",
            "to import, got SystemExit: 0",
        ),
        (
            "def gradient(problem, params, batch): raise SystemExit(0)\n",
            "a gradient on the quadratic case, got SystemExit: 0",
        ),
    ],
)
def test_a_script_that_exits_is_not_right(tmp_path, capsys, text, words):
    (tmp_path / "mine.py").write_text(text)
    assert main(["doctor", f"{tmp_path / 'mine.py'}:gradient", "--method", "maml"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1


@pytest.mark.slow
def test_reports_are_written_to_files_and_the_last_line_repeats_the_check(file, capsys, tmp_path):
    paths = {name: tmp_path / f"report.{name}" for name in ("json", "markdown", "junit")}
    options = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    assert doctor(file, "first_order", *options, "--precision", "float64", "--seed", "3") == 1
    again = capsys.readouterr().out.splitlines()[-1]
    assert (
        again.startswith("  again: refmaml doctor ")
        and "--seed 3" in again
        and "--inner-steps 2" in again
    )
    assert json.loads(paths["json"].read_text())["about"]["again"] in again
    assert main(again.removeprefix("  again: refmaml ").split()) == 1
    assert (
        paths["markdown"].read_text().startswith("###")
        and ET.fromstring(paths["junit"].read_text()).get("failures") == "1"
    )
    assert doctor(file, "gradient", "--json", str(tmp_path / "absent" / "x.json")) == 2
    assert "--json: expected a file that can be written" in capsys.readouterr().err


def test_list_prints_the_dictionary_with_a_fix_for_the_framework(capsys):
    assert main(["doctor", "--list", "--framework", "torch"]) == 0
    out = capsys.readouterr().out
    assert (
        "first-order: the second-order term is missing" in out
        and "create_graph=True" in out
        and out.count("\n") > 100
    )
    assert (
        main(["doctor"]) == 2 and "function: expected FILE.py:FUNCTION" in capsys.readouterr().err
    )


MOMENTUM = '''

def with_momentum(problem, params, batch):
    """SGD(momentum=0.9) by hand, two steps on mini-batches."""
    method, rows = problem.method, []
    mu, alpha = method.rule.momentum, method.inner_lr
    for x_support, y_support, x_query, y_query in zip(*batch):
        phi, m, points = params, {n: 0 * p for n, p in params.items()}, []
        places = method.mini_batches(len(x_support))
        for place in places:
            points.append(phi)
            g = problem.gradient(phi, x_support[place], y_support[place])
            m = {n: mu * m[n] + g[n] for n in g}
            phi = {n: p - alpha * m[n] for n, p in phi.items()}
        lam = problem.gradient(phi, x_query, y_query)
        sig = {n: 0 * p for n, p in params.items()}
        for phi, place in zip(points[::-1], places[::-1]):
            dm = {n: sig[n] - alpha * lam[n] for n in lam}
            Hv = problem.hvp(phi, x_support[place], y_support[place], dm)
            lam = {n: lam[n] + Hv[n] for n in lam}
            sig = {n: mu * dm[n] for n in dm}
        rows.append(lam)
    return {n: sum(row[n] for row in rows) / len(rows) for n in params}
'''


@pytest.mark.slow
def test_the_options_of_the_inner_loop_describe_what_the_function_computes(file, capsys):
    file.write_text(CODE + MOMENTUM)
    rule = ["--rule", "SGD(momentum=0.9)"]
    batches = ["--inner-batch", "2", "--order-seed", "5", "--precision", "float64"]
    assert doctor(file, "with_momentum", *rule, *batches) == 0
    out = capsys.readouterr().out
    assert out.startswith("RIGHT") and "--rule 'SGD(momentum=0.9)' --inner-batch 2" in out
    assert doctor(file, "gradient", *rule, "--precision", "float64") == 1
    out = capsys.readouterr().out
    assert out.startswith("WRONG: the inner loop is plain gradient descent, without the method's")
    assert doctor(file, "gradient", "--rule", "momentum") == 2
    assert capsys.readouterr().err.startswith("refmaml: --rule: expected a rule, one of")
    listed = ["doctor", "--list", "--method", "maml", *rule]
    assert main(listed) == 0 and "the state of SGD is detached" in capsys.readouterr().out


OWN = """
import numpy as np
import refmaml as rm

net = rm.Sequential([rm.Linear(3, 4), rm.Tanh(), rm.Linear(4, 2)], rm.MSE(), (3,))
method = rm.MAML(0.1, 2)
params = {n: a.copy() for n, a in net.named(net.init(0, np.float64)).items()}


def vector(p):
    return np.concatenate([p[n].ravel() for n in net.shapes])[None]


def loss(p, x, y):
    return net.loss(vector(p), x[None], y[None])[0]


def slope(p, x, y):
    return net.named(net.gradient(vector(p), x[None], y[None])[0])


def batch():
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((2, n, d)) for n, d in ((5, 3), (5, 2), (7, 3), (7, 2)))


def gradient(p, b, of=method):
    theta = vector(p)[0].astype(float)
    found = of.meta_gradient(net, theta, rm.Batch(*b)).grad
    return {n: a.astype(p[n].dtype) for n, a in net.named(found).items()}


def first_order(p, b):
    return gradient(p, b, rm.FirstOrderMAML(0.1, 2))


broken = 3


def fails():
    raise RuntimeError("no data")
"""


@pytest.mark.slow
def test_a_loss_of_ones_own_comes_from_a_file(tmp_path, capsys):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    own = [f"--loss={file}:loss", "--params", "params", "--batch", "batch"]
    what = ["--method", "maml", "--inner-lr", "0.1", "--inner-steps", "2", *own]
    assert main(["doctor", f"{file}:gradient", *what]) == 0
    out = capsys.readouterr().out
    assert out.startswith("RIGHT") and f"--loss {file}:loss --params params --batch" in out
    given = [f"--gradient={file}:slope", "--precision", "float64"]
    assert main(["doctor", f"{file}:first_order", *what, *given]) == 1
    assert capsys.readouterr().out.startswith("WRONG: first-order")


DATA = ("--params", "params", "--batch", "batch")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--loss", "{}:loss"], "--params: expected NAME beside --loss, got nothing"),
        (["--params", "params"], "--params: expected --loss beside it, got none"),
        (["--loss", "{}:absent", *DATA], "--loss: expected a name in"),
        (["--loss", "the loss", *DATA], "--loss: expected NAME, or FILE.py:NAME, got 'the loss'"),
        (["--loss", "{}:loss", "--params", "{}:params", "--batch", "{}:fails"],
         "--batch: expected data, or a function without arguments that returns it, got Runtime"),
        (["--loss", "{}:broken", "--params", "{}:params", "--batch", "{}:batch"],
         "loss: expected a function loss(params, x, y)"),
    ],
)  # fmt: skip
def test_a_loss_that_is_none_is_one_line(tmp_path, capsys, options, words):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    filled = [option.format(file) for option in options]
    assert main(["doctor", f"{file}:gradient", "--method", "maml", *filled]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
