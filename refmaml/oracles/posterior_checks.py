"""Rungs 4 and 5 for posteriors: covariances, outputs to first order, adapted draws."""

import numpy as np

from refmaml.execution import Sequential
from refmaml.layers import MSE, CrossEntropy, Linear, Tanh
from refmaml.methods import ANIL, MAML, posterior
from refmaml.oracles import cases, complex_step, dense, meta_objectives
from refmaml.oracles.early_stopping import early_stopping
from refmaml.oracles.method_checks import method_terms
from refmaml.oracles.tolerance import Check, relative_error, tolerance

SCALE, PRECISION = 3.5, 0.6


def nets():
    """{name: (net, method)}: a regression, a classification, a head that adapts."""
    regression = Sequential([Linear(2, 3), Tanh(), Linear(3, 1)], MSE(), (2,))
    classes = Sequential([Linear(2, 3), Tanh(), Linear(3, 3)], CrossEntropy(), (2,))
    maml = MAML(0.3, 3)
    return {
        "regression": (regression, maml),
        "classification": (classes, maml),
        "ANIL": (classes, ANIL(0.3, 3)),
    }


def regression_check(N=6, P=4, alpha=0.05, K=4):
    """Linear regression: the posterior of K steps is that of the closed form."""
    rng = np.random.default_rng(0)
    X, y, theta = rng.standard_normal((N, P)), rng.standard_normal(N), rng.standard_normal(P)
    net = Sequential([Linear(P, 1, bias=False)], MSE(), (P,))
    # A mean of squares is 2/N times half their sum: N/2 alpha is a step on it of the
    # same length, and s = N/2 is unit noise.
    method, scale = MAML(alpha * N / 2, K), N / 2
    found = posterior.task_posterior(net, method, theta, X[None], y[None, :, None], scale)
    exact = early_stopping(X, y, theta, alpha, K)
    limit = tolerance(float, K * N * P * P)
    for quantity, value, truth in (
        ("mean", found.mean, exact.phi),
        ("covariance", found.covariance, exact.covariance),
    ):
        error = relative_error(value, truth)
        yield Check("5 closed form", "posterior of K steps", quantity, "closed form", error, limit)


def outputs(net, method, task, W):
    """The query outputs after adaptation from rows W (B, P), as (B, M D)."""
    rates = meta_objectives.fixed_rates(net, method)
    sets = meta_objectives.support_set(task, len(W))
    phi = meta_objectives.inner_loop(net, W, rates, *sets, method)[-1]
    x = np.broadcast_to(task.x_query, (len(W), *task.x_query.shape[1:]))
    return net.forward(net.parameters.views(phi), x)[0].reshape(len(W), -1)


def output_hessian(net, task, z):
    """H_L (M D, M D) at outputs z (M D,): the complex step on the loss's gradient."""

    def gradient(Z):
        y = np.broadcast_to(task.y_query, (len(Z), *task.y_query.shape[1:]))
        shaped = Z.reshape(len(Z), task.x_query.shape[1], -1)
        _, saved = net.loss_function.forward(net.kernels, shaped, y)
        return net.loss_function.backward(net.kernels, saved).reshape(len(Z), -1)

    return complex_step.jacobian(gradient, z)


def net_checks(name, net, method):
    """One net: the posterior of a task and that of theta."""
    rng = np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    P, terms = net.num_params, method_terms(method, net, batch)
    x, y = batch.x_support[:1], batch.y_support[:1]
    of_task = posterior.task_posterior(net, method, theta, x, y, SCALE, PRECISION)
    phi = method.adapt(net, theta, x, y)[0]
    places = np.flatnonzero(meta_objectives.adapt_mask(net, method))
    G = dense.gauss_newton(net, phi, x, y)[np.ix_(places, places)]
    block = SCALE * G + PRECISION * np.eye(len(places))
    covariance = np.zeros((P, P))
    covariance[np.ix_(places, places)] = np.linalg.inv(block)

    def row(rung, quantity, oracle, value, truth, condition=1.0):
        error = relative_error(value, truth)
        return Check(rung, name, quantity, oracle, error, tolerance(float, terms * P) * condition)

    limit = float(np.linalg.cond(block))
    yield row("4 posterior", "of a task", "dense algebra", of_task.covariance, covariance, limit)

    draws = of_task.draw(3, seed=1)
    found = posterior.linearized_outputs(net, draws, phi, x)
    at = np.repeat(x, 3, axis=0)
    z = net.forward(net.parameters.views(phi[None]), at)[0]
    shifted = net.parameters.views(complex_step.shifted(phi[None], draws - phi))
    truth = z + complex_step.derivative(net.forward(shifted, at)[0])
    yield row("4 posterior", "outputs to first order", "complex step", found, truth)

    matrix = PRECISION * np.eye(P)
    for t in range(len(batch)):
        task = batch[t : t + 1]
        J = complex_step.jacobian(lambda W, task=task: outputs(net, method, task, W), theta)
        H_L = output_hessian(net, task, outputs(net, method, task, theta[None])[0])
        rows, of_loss = posterior.query_jacobian(net, method, theta, task)
        yield row("4 posterior", "d outputs/dtheta", "complex step", rows, J)
        yield row("4 posterior", "H_L", "complex step", of_loss, H_L)
        matrix += SCALE * J.T @ H_L @ J
    of_theta = posterior.theta_posterior(net, method, theta, batch, SCALE, PRECISION)
    truth, limit = np.linalg.inv(matrix), float(np.linalg.cond(matrix))
    yield row("4 posterior", "of theta", "dense algebra", of_theta.covariance, truth, limit)

    thetas = of_theta.draw(3, seed=2)
    found = posterior.adapted_draws(net, method, thetas, x, y)
    truth = np.concatenate([method.adapt(net, theta, x, y) for theta in thetas])
    yield row("4 posterior", "adapted draws", "one by one", found, truth)


def posterior_checks():
    """Every check of this module."""
    yield from regression_check()
    for name, (net, method) in nets().items():
        yield from net_checks(name, net, method)
