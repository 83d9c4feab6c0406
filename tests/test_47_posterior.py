"""Posteriors over a task's parameters and over theta, and the command for them."""

import json

import numpy as np
import pytest
from command_line import error_of, train

import refmaml as rm
from refmaml.cli import main
from refmaml.cli.posterior import TASK, THETA
from refmaml.methods import posterior
from refmaml.oracles import cases, posterior_checks
from refmaml.oracles.tolerance import relative_error

NET, METHOD = posterior_checks.nets()["regression"]
PROMISE = 1e-12


def start():
    rng = np.random.default_rng(0)
    return cases.start(NET, rng), cases.tasks_for(NET, rng)


def failed(rows):
    return {check.quantity for check in rows if not check.passed}


@pytest.mark.slow
def test_every_row_passes_within_the_promise():
    rows = list(posterior_checks.posterior_checks())
    assert len(rows) == 26 and all(check.passed for check in rows), rows
    assert max(check.error for check in rows) < PROMISE


# ---- planted errors ------------------------------------------------------------------


def one_step_too_many(method, values):
    return method.inner_lr * sum(
        (1 - method.inner_lr * values) ** k for k in range(method.inner_steps + 1)
    )


def squared_powers(method, values):
    """The covariance of noise that every step adds."""
    return method.inner_lr * sum(
        (1 - method.inner_lr * values) ** (2 * k) for k in range(method.inner_steps)
    )


def without_steps(method, values):
    return method.inner_lr * method.inner_steps + 0 * values


@pytest.mark.parametrize("wrong", [one_step_too_many, squared_powers, without_steps])
def test_a_planted_error_of_the_steps_posterior_is_refused(monkeypatch, wrong):
    monkeypatch.setattr(posterior, "variances_of_steps", wrong)
    assert failed(posterior_checks.regression_check()) == {"covariance"}


def first_order(right, *args, **kwargs):
    """Rows that are not carried back through the inner loop."""
    found = right(*args, **kwargs)
    return found._replace(lam=[args[4]])


def half_a_loss(right, net, method, theta, batch):
    J, H_L = right(net, method, theta, batch)
    return J, H_L / 2


def of_the_support_set(right, net, method, theta, batch):
    return right(net, method, theta, rm.Batch(*batch.sets[0], *batch.sets[0]))


@pytest.mark.parametrize(
    "name, wrong, quantity",
    [
        ("adjoint", first_order, "d outputs/dtheta"),
        ("query_jacobian", half_a_loss, "H_L"),
        ("query_jacobian", of_the_support_set, "of theta"),
    ],
)
def test_a_planted_error_of_theta_s_posterior_is_refused(monkeypatch, name, wrong, quantity):
    right = getattr(posterior, name)
    monkeypatch.setattr(posterior, name, lambda *a, **k: wrong(right, *a, **k))
    assert {quantity, "of theta"} <= failed(posterior_checks.net_checks("planted", NET, METHOD))


def transposed_root(right, *args):
    return right(*args)._replace(root=right(*args).root.T)


def standard_deviations(right, *args):
    """The covariance in place of its root."""
    found = right(*args)
    return found._replace(root=found.covariance)


@pytest.mark.parametrize("wrong", [transposed_root, standard_deviations])
def test_a_planted_error_of_the_root_is_refused(monkeypatch, wrong):
    right = posterior.task_posterior
    monkeypatch.setattr(posterior, "task_posterior", lambda *args: wrong(right, *args))
    assert "of a task" in failed(posterior_checks.net_checks("planted", NET, METHOD))


# ---- draws ---------------------------------------------------------------------------


def test_draws_have_the_mean_and_the_covariance():
    """Of 20,000 draws: within six deviations of what chance allows."""
    theta, batch = start()
    found = posterior.task_posterior(
        NET, METHOD, theta, batch.x_support[:1], batch.y_support[:1], 3.0, 0.5
    )
    draws, chance = found.draw(20000, seed=0), 6 / np.sqrt(20000)
    deviations = np.sqrt(np.diag(found.covariance))
    assert (abs(draws.mean(axis=0) - found.mean) < chance * deviations).all()
    assert relative_error(np.cov(draws.T), found.covariance) < 2 * chance
    assert np.array_equal(found.draw(3, seed=1), found.draw(3, seed=1))
    assert not np.array_equal(found.draw(3, seed=1), found.draw(3, seed=2))


def test_what_does_not_adapt_has_no_spread_in_a_task():
    net, anil = posterior_checks.nets()["ANIL"]
    rng = np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    found = posterior.task_posterior(net, anil, theta, batch.x_support[:1], batch.y_support[:1], 1)
    still = ~net.mask(("head",))
    assert (found.root[still] == 0).all() and (found.draw(4)[:, still] == theta[still]).all()


def test_more_points_leave_less_spread():
    theta, batch = start()
    x, y = batch.x_support[:1], batch.y_support[:1]
    wide, narrow = (
        posterior.task_posterior(NET, METHOD, theta, x[:, :n], y[:, :n], n, 1.0) for n in (1, 6)
    )
    assert np.trace(narrow.covariance) < np.trace(wide.covariance)


# ---- errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": rm.ERM()}, "method: expected a method that differentiates its inner loop"),
        ({"method": rm.MetaSGD(0.1, 2)}, "method: expected a method that differentiates its"),
        ({"theta": np.zeros(2)}, r"theta: expected shape \(13,\)"),
        ({"scale": 0.0}, "scale: expected a finite number > 0"),
        ({"precision": -1.0}, "precision: expected a finite number > 0"),
        ({"method": rm.MAML(0.1, 2, rule=rm.SGD(momentum=0.5))}, "precision: expected a number"),
    ],
)
def test_a_bad_argument_is_refused(changes, message):
    theta, batch = start()
    x, y = batch.x_support[:1], batch.y_support[:1]
    given = {"method": METHOD, "theta": theta, "scale": 1.0, "precision": None} | changes
    method, theta, scale, precision = given.values()
    with pytest.raises(rm.ArgumentError, match=f"^{message}"):
        posterior.task_posterior(NET, method, theta, x, y, scale, precision)


def test_steps_that_diverge_have_no_posterior():
    net, ones = rm.Sequential([rm.Linear(1, 1, bias=False)], rm.MSE(), (1,)), np.ones((1, 1, 1))
    with pytest.raises(rm.ArgumentError, match="^inner_lr: expected alpha h < 2"):
        posterior.task_posterior(net, rm.MAML(1.5, 2), np.ones(1), ones, ones, 1.0)


def test_several_tasks_at_once_are_refused():
    theta, batch = start()
    with pytest.raises(rm.ArgumentError, match=r"^x: expected one task, \(1, examples, ...\)"):
        posterior.task_posterior(NET, METHOD, theta, batch.x_support, batch.y_support, 1.0)


# ---- the command ---------------------------------------------------------------------

SMALL = ["--draws", "4", "--tasks", "2", "--waves", "2", "--points", "1", "3"]


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_command_writes_a_table_and_a_picture(tmp_path):
    assert train("--method", "maml", "--steps", "2", "--out", "run") == 0
    out = tmp_path / "out"
    assert main(["posterior", "run/checkpoint.npz", *SMALL, "--out", str(out)]) == 0
    rows = json.loads((out / "posterior.json").read_text())["rows"]
    assert [(row["points"], row["posterior"]) for row in rows] == [
        (n, name) for n in (1, 3) for name in (TASK, THETA)
    ]
    assert all(0 <= row["covered"] <= 1 and row["far"] > 0 for row in rows)
    assert (out / "posterior.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_command_refuses_other_runs_and_numbers(capsys):
    assert train("--method", "meta-sgd", "--steps", "1", "--out", "run") == 0
    capsys.readouterr()
    run = ["posterior", "run/checkpoint.npz"]
    assert "expected a method that differentiates its inner loop" in error_of(capsys, *run)
    assert error_of(capsys, *run, "--draws", "0").startswith("--draws: expected an integer >= 1")
    assert error_of(capsys, *run, "--noise", "0").startswith("--noise: expected a number > 0")
    assert error_of(capsys, *run, "--points", "no").startswith("--points: expected integers >= 1")
