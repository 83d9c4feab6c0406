"""`refmaml doctor`: every keyword of check_meta_gradient has an option."""

import inspect
import re

import pytest
from doctor_script import CODE

import refmaml as rm
from refmaml.cli import doctor as command
from refmaml.cli import main

pytestmark = pytest.mark.slow

DECLARED = '''

import numpy as np


def weights(T):
    return 2 * np.arange(1, T + 1) / (T + 1)


def places(k, examples):
    return np.arange(k % examples, examples, 2)


def times_rate(A):
    return A


def unrolled(problem, params, batch, factors=(1, 1, 1), w=None, places=None):
    """MAML by hand: factors on each step, weights of tasks, mini-batches."""
    a, rows = problem.method.inner_lr, []
    for xs, ys, xq, yq in zip(*batch):
        phis, K = [params], problem.method.inner_steps
        at = [slice(None) if places is None else places(k, len(xs)) for k in range(K)]
        for k in range(K):
            g = problem.gradient(phis[-1], xs[at[k]], ys[at[k]])
            phis.append({n: p - factors[k] * a * g[n] for n, p in phis[-1].items()})
        lam = problem.gradient(phis[-1], xq, yq)
        for k in range(K - 1, -1, -1):
            Hv = problem.hvp(phis[k], xs[at[k]], ys[at[k]], lam)
            lam = {n: v - factors[k] * a * Hv[n] for n, v in lam.items()}
        rows.append(lam)
    w = np.ones(len(rows)) if w is None else w(len(rows))
    return {n: sum(c * r[n] for c, r in zip(w, rows)) / len(rows) for n in params}


def weighted(problem, params, batch):
    return unrolled(problem, params, batch, w=weights)


def scheduled(problem, params, batch):
    return unrolled(problem, params, batch, (1, 0.75, 0.25))


def batches(problem, params, batch):
    return unrolled(problem, params, batch, places=places)


def log_rates(problem, params, batch):
    """Meta-SGD, whose step sizes are exp(raw)."""
    names, rows = [n for n in params if not n.startswith("inner_lr.")], []
    A, theta = {n: params["inner_lr." + n] for n in names}, {n: params[n] for n in names}
    for xs, ys, xq, yq in zip(*batch):
        phis = [theta]
        for _ in range(problem.method.inner_steps):
            g = problem.gradient(phis[-1], xs, ys)
            phis.append({n: p - A[n] * g[n] for n, p in phis[-1].items()})
        lam, rate = problem.gradient(phis[-1], xq, yq), {n: 0 for n in names}
        for phi in phis[-2::-1]:
            g, v = problem.gradient(phi, xs, ys), {n: A[n] * lam[n] for n in names}
            rate = {n: rate[n] - g[n] * lam[n] * A[n] for n in names}
            Hv = problem.hvp(phi, xs, ys, v)
            lam = {n: lam[n] - Hv[n] for n in names}
        rows.append({**lam, **{"inner_lr." + n: rate[n] for n in names}})
    return {n: sum(r[n] for r in rows) / len(rows) for n in params}
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE + DECLARED)
    return path


def doctor(file, name, *options, method="maml"):
    what = ["--method", method, "--inner-lr", "0.1", "--inner-steps", "3"]
    quick = ["--probes", "quadratic", "two-layer", "--precision", "float64", "--repeats", "0"]
    return main(["doctor", f"{file}:{name}", *what, *quick, *options])


@pytest.mark.parametrize(
    ("name", "method", "options", "words"),
    [
        ("weighted", "maml", ["--task-weights", "weights"], "tasks weighted"),
        ("weighted", "maml", ["--task-weights", "{}:weights"], "tasks weighted"),
        ("weighted", "maml", ["--task-weights", "2,4,6,8,10"], "tasks weighted"),
        ("scheduled", "maml", ["--step-factors", "1,0.75,0.25"], ""),
        ("batches", "maml", ["--mini-batches", "places"], ""),
        ("log_rates", "meta-sgd", ["--learned-through", "inner_lr=exp"], "times exp'(raw)"),
        ("log_rates", "meta-sgd", ["--learned-through", "inner_lr=times_rate"], "times exp'(raw)"),
    ],
)
def test_a_choice_is_wrong_and_right_where_the_command_line_declares_it(
    file, capsys, name, method, options, words
):
    filled = [option.format(file) for option in options]
    if options[-1].startswith("2,"):  # (w, 2w, ..., 5w) / 3 of five tasks: 2t / (T + 1)
        filled = ["--task-weights", ",".join(str(2 * t / 6) for t in range(1, 6))]
    assert doctor(file, name, *filled, method=method) == 0
    out = capsys.readouterr().out
    assert out.startswith("RIGHT") and " ".join(filled[:1]) in out.splitlines()[-1]
    assert main(again_of(out)) == 0
    capsys.readouterr()
    seconds = "20" if words else "0.1"
    assert doctor(file, name, "--seconds", seconds, method=method) == 1
    assert words in capsys.readouterr().out


def again_of(out):
    import shlex

    return shlex.split(out.splitlines()[-1].partition("again: refmaml ")[2])


NET = """
net = rm.Sequential([rm.Linear(3, 4), rm.Tanh(), rm.Linear(4, 2)], rm.MSE(), (3,))


def tasks():
    draw = np.random.default_rng(0).standard_normal
    return rm.Batch(*(draw((2, n, d)) for n, d in ((5, 3), (5, 2), (7, 3), (7, 2))))


def own(params, batch, fixed=()):
    theta = np.concatenate([params[n].ravel() for n in net.shapes]).astype(float)
    found = net.named(rm.MAML(0.1, 3).meta_gradient(net, theta, rm.Batch(*batch)).grad)
    return {n: None if n in fixed else a.astype(params[n].dtype) for n, a in found.items()}


def head(params, batch):
    return own(params, batch, ("0.weight", "0.bias"))
"""


def test_a_net_and_a_batch_of_ones_own_come_from_the_file(file, capsys):
    file.write_text(f"import numpy as np\nimport refmaml as rm\n{NET}")
    what = ["--method", "maml", "--inner-lr", "0.1", "--inner-steps", "3", "--own-net", "net"]
    assert main(["doctor", f"{file}:own", *what, "--batch", "tasks"]) == 0
    assert "--own-net net --batch tasks" in capsys.readouterr().out
    frozen = [*what, "--precision", "float64"]
    assert main(["doctor", f"{file}:head", *frozen]) == 1
    assert "not_meta_learned=('0.weight', '0.bias')" in capsys.readouterr().out
    assert main(["doctor", f"{file}:head", *frozen, "--not-meta-learned", "0.*"]) == 0
    assert main(["doctor", f"{file}:own", *what, "--net", "mlp"]) == 2
    assert "--own-net: expected no --net beside it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task-weights", "1,x"], "--task-weights: expected numbers with commas"),
        (["--task-weights", "1,2"], "--task-weights: expected 5 finite numbers"),
        (["--task-weights", "number"], "--task-weights: expected a function in"),
        (["--task-weights", "absent"], "--task-weights: expected a name in"),
        (["--learned-through", "softplus"], "--learned-through: expected NAME=FUNCTION"),
        (["--learned-through", "inner_lr=exp"], "--learned-through: expected a method that learns"),
        (["--step-factors", "1,0.5"], "--step-factors: expected 3 numbers > 0"),
        (["--step-factors", "1,,2"], "--step-factors: expected numbers with commas"),
        (["--step-factors", "1,inf,2"], "--step-factors: expected numbers with commas"),
        (["--mini-batches", "places", "--inner-batch", "2"], "--mini-batches: expected no --inner"),
        (["--mini-batches", "number"], "--mini-batches: expected a function in"),
        (["--repeats", "-1"], "--repeats: expected an integer >= 0"),
        (["--own-net", "number"], "--own-net: expected a net of refmaml"),
        (["--batch", "places"], "--batch: expected --loss, --net or --own-net beside it"),
        (["--not-meta-learned", "7.*"], "--not-meta-learned: expected names or patterns"),
    ],
)
def test_a_declaration_that_means_nothing_is_one_line(file, capsys, options, words):
    assert doctor(file, "gradient", *options) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1, error


def test_a_method_without_an_inner_loop_takes_no_mini_batches(file, capsys):
    main(["doctor", f"{file}:gradient", "--method", "erm", "--mini-batches", "places"])
    assert "--mini-batches: expected a method with an inner loop" in capsys.readouterr().err


def test_every_keyword_of_the_check_has_an_option_with_a_help_text(capsys):
    keywords = set(inspect.signature(rm.check_meta_gradient).parameters) - {"fn", "method"}
    assert keywords <= command.REPEATED
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    help_text = capsys.readouterr().out
    for name in command.REPEATED:
        assert re.search(rf"^  --{name.replace('_', '-')}[ ,]", help_text, re.M), name
    for title in command.GROUPS:
        assert f"{title}:" in help_text


def test_the_file_is_imported_once(file, capsys):
    """So that a function and its data share one module."""
    file.write_text(f"import numpy as np\nimport refmaml as rm\nprint('loading')\n{NET}")
    what = ["--method", "maml", "--inner-lr", "0.1", "--inner-steps", "3"]
    assert main(["doctor", f"{file}:own", *what, "--own-net", "net", "--batch", "tasks"]) == 0
    assert capsys.readouterr().out.count("loading") == 1
