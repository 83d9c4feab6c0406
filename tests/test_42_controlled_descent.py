"""iMAML's inner solver with step control: it converges where a fixed step diverges."""

import numpy as np
import pytest
from rank_threads import on_ranks
from ranks_of_sinusoids import bits, gradient_of

import refmaml as rm
from refmaml.methods import controlled_descent as solver
from refmaml.oracles import cases, complex_step, meta_objectives, method_checks
from refmaml.training.distributed import SINGLE_PROCESS

TOO_LONG = 5.0  # a step with which gradient descent on this net does not converge
SETTINGS = {"inner_lr": TOO_LONG, "cg_steps": 100, "cg_tol": 1e-15}


def problem(tasks=3):
    net, rng = cases.smooth_net(), np.random.default_rng(0)
    return net, cases.start(net, rng), cases.tasks_for(net, rng, tasks=tasks)


def controlled(steps=80, **settings):
    return rm.IMAML(2.0, steps, solver="controlled_descent", **(SETTINGS | settings))


def objective(net, theta, phi, batch, strength=2.0):
    """F (T,)."""
    moved = phi - theta
    return net.loss(phi, batch.x_support, batch.y_support) + strength / 2 * (moved**2).sum(axis=1)


# ---- it converges, and says where it did not -----------------------------------------


def test_it_solves_the_inner_problem_to_rounding_where_a_fixed_step_diverges():
    net, theta, batch = problem()
    report = controlled().meta_gradient(net, theta, batch).report
    assert (report["inner_residual"] < 1e-13).all()
    assert (report["inner_status"] == "converged").all() and (report["status"] == "converged").all()
    fixed = rm.IMAML(2.0, 80, **SETTINGS).meta_gradient(net, theta, batch).report
    assert (fixed["inner_residual"] > 0.5).all() and (fixed["cg_status"] == "converged").all()
    assert (fixed["inner_status"] == "maxiter").all()
    assert (fixed["status"] == "inner_not_converged").all()


@pytest.mark.parametrize("inner_lr", [1e-4, 0.2, TOO_LONG, 1e6])
def test_the_implicit_gradient_is_that_of_a_dense_solve_from_every_first_step(inner_lr):
    net, theta, batch = problem()
    check = method_checks.imaml_dense_check(controlled(inner_lr=inner_lr), net, theta, batch)
    assert check.passed and check.error < 1e-10, check


def test_the_complex_step_through_the_solver_gives_the_implicit_gradient():
    """Trials stand or fall by real parts, so the imaginary part is a derivative."""
    net, theta, batch = problem(tasks=1)
    method, v = controlled(150), np.random.default_rng(1).standard_normal(len(theta))

    def M(W):
        return meta_objectives.by_adaptation(net, method, batch, W)

    exact = complex_step.directional(M, theta[None], v[None])[0]
    found = method.meta_gradient(net, theta, batch).grad @ v
    assert abs(found - exact) < 1e-10 * np.linalg.norm(v)


def test_too_few_trials_have_a_status_of_their_own():
    net, theta, batch = problem()
    report = controlled(1, inner_lr=1e6).meta_gradient(net, theta, batch).report
    assert (report["inner_residual"] == np.inf).all()  # no trial stood: phi is theta
    assert (report["inner_status"] == "maxiter").all()
    assert (report["status"] == "inner_not_converged").all()


def test_a_trial_that_overflows_does_not_stand():
    net, theta, batch = problem()
    method = controlled(250, inner_lr=1e30, cg_tol=1e-6)  # |phi - theta|^2 overflows
    report = method.meta_gradient(net, theta.astype(np.float32), batch).report
    assert (report["inner_status"] == "converged").all()


def test_a_tolerance_ends_each_task_by_itself():
    net, theta, batch = problem(4)
    method = controlled(60, inner_tol=1e-2)
    together, apart = (method.meta_gradient(net, theta, batch, chunk=n) for n in (4, 1))
    assert np.array_equal(together.grad, apart.grad)
    assert (together.report["inner_residual"] <= 1e-2).all()
    assert (together.report["inner_residual"] > 1e-6).all()
    assert (together.report["status"] == "converged").all()


def test_frozen_parameters_stay():
    net, theta, batch = problem()
    method = controlled(frozen=("BatchNorm2d",))
    phi = method.adapt(net, theta, batch.x_support, batch.y_support)
    still = net.mask(("BatchNorm2d",))
    assert np.array_equal(phi[:, still], np.repeat(theta[None, still], len(phi), 0))
    assert (phi[:, ~still] != theta[~still]).any()
    assert method_checks.imaml_dense_check(method, net, theta, batch).passed


# ---- the same bits -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_do_not_depend_on_threads_and_chunks(dtype):
    net = rm.conv4(3, 8, head="flatten", head_init="zero", kernels=rm.kernels.cpu(1))
    theta = net.init(0, dtype)
    batch = rm.Glyphs("train").sample(4, n_way=3, k_shot=1, k_query=2, seed=0)
    method = rm.IMAML(20.0, 6, 0.5, solver="controlled_descent")
    first = None
    for threads in (1, 2, 4):
        on = net.with_kernels(rm.kernels.cpu(threads))
        for chunk in (None, 1, 3):
            found = bits(method.meta_gradient(on, theta, batch, chunk=chunk))
            first = first or found
            assert found == first, (threads, chunk)


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_bits_do_not_depend_on_ranks(ranks):
    method = rm.IMAML(2.0, 5, 10.0, solver="controlled_descent")
    alone = gradient_of(SINGLE_PROCESS, method)
    for found in on_ranks(ranks, lambda mine: gradient_of(mine, method)):
        assert bits(found) == bits(alone)


def test_float32_inputs_give_float32_results():
    net, theta, batch = problem()
    out = controlled(cg_tol=1e-6).meta_gradient(net, theta.astype(np.float32), batch)
    assert out.grad.dtype == np.float32
    assert (out.report["inner_residual"] < 1e-4).all()  # rounding of gradients in float32


# ---- planted errors ------------------------------------------------------------------


def solves(**settings):
    """Whether 80 trials solve the problem to rounding."""
    net, theta, batch = problem()
    report = controlled(**settings).meta_gradient(net, theta, batch).report
    return bool((report["inner_residual"] < 1e-13).all())


def descends():
    """Whether F never rises, by more than its rounding."""
    net, theta, batch = problem()
    sets = batch.x_support, batch.y_support
    phis = [np.repeat(theta[None], len(batch), 0)]
    phis += [controlled(k).adapt(net, theta, *sets) for k in range(1, 40, 3)]
    values = np.array([objective(net, theta, phi, batch) for phi in phis])
    rounding = solver.ROUNDING * np.finfo(float).eps
    return bool(
        (values[1:] <= values[:-1] * (1 + rounding)).all() and (values[-1] < values[0]).all()
    )


def loss_alone(net, primal, phi, theta, strength, mask, right=solver.point):
    """A Point whose value lacks the proximal term."""
    return right(net, primal, phi, theta, strength, mask)._replace(value=primal.loss)


def by_values_alone(kernels, now, trial):
    """The acceptance test without gradients."""
    return trial.value <= now.value


PLANTED = {
    "the step is not taken back": ("chosen", lambda xp, where, a, b: a, descends),
    "the step does not shrink": ("SHRINK", 1.0, solves),
    "the step does not grow": ("GROW", 1.0, lambda: solves(inner_lr=1e-4)),
    "no proximal term in the acceptance test": ("point", loss_alone, solves),
    "rounding decides near the solution": ("does_not_rise", by_values_alone, solves),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_found(name, monkeypatch):
    attribute, wrong, check = PLANTED[name]
    assert check()
    monkeypatch.setattr(solver, attribute, wrong)
    assert not check()


def test_the_objective_never_rises():
    assert descends()
