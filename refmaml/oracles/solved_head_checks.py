"""Rungs 1 to 4 for heads that are solved in closed form."""

from typing import Any, NamedTuple

import numpy as np

from refmaml.execution import Sequential
from refmaml.layers import MSE, Linear, Tanh
from refmaml.methods import bayesian_regression
from refmaml.methods.logistic_head import LogisticHead
from refmaml.methods.logistic_iterations import LogisticIterations
from refmaml.methods.ridge_head import RidgeHead
from refmaml.methods.svm_head import SVMHead
from refmaml.methods.table import LRD2, R2D2, ALPaCA, MetaOptNet
from refmaml.methods.table_entry import PREDICTIVE
from refmaml.oracles import cases, complex_step, solved_heads
from refmaml.oracles.method_checks import meta_gradient_check, method_terms
from refmaml.oracles.tolerance import Check, relative_error, tolerance

ETA = np.array([-0.4, 1.7, 0.2])  # log lambda, alpha, beta
# (N, F): fewer examples than features, as many, and more
SIZES = ((5, 8), (6, 6), (9, 4))


class HeadCase(NamedTuple):
    """A head on random features, with tangents and adjoints of everything.

    X, rX (T, N, F); Y (T, N, C); reta (3,); dw, rdw (T, C, F); db, rdb (T, C)
    """

    head: Any
    X: np.ndarray
    Y: np.ndarray
    rX: np.ndarray
    reta: np.ndarray
    dw: np.ndarray
    db: np.ndarray
    rdw: np.ndarray
    rdb: np.ndarray


def heads():
    """[(head, the oracle of its weights)]"""
    ridge, logistic = solved_heads.ridge_weights, solved_heads.logistic_weights
    return [
        (RidgeHead(), ridge),
        (RidgeHead(intercept=True), ridge),
        (LogisticHead(), logistic),
        (LogisticHead(intercept=True), logistic),
        (SVMHead(), solved_heads.svm_weights(0.1)),
        (SVMHead(intercept=True, cost=0.5), solved_heads.svm_weights(0.5)),
        (LogisticIterations(newton_steps=3), solved_heads.iterated_weights(3)),
        (LogisticIterations(intercept=True, newton_steps=1), solved_heads.iterated_weights(1)),
    ]


def head_case(head, N, F, T=2, C=3):
    """Targets are unit vectors, as of N labels of C classes."""
    rng = np.random.default_rng(N)
    X, rX = rng.standard_normal((2, T, N, F))
    dw, rdw = rng.standard_normal((2, T, C, F))
    db, rdb = rng.standard_normal((2, T, C))
    Y = np.eye(C)[rng.permuted(np.arange(T * N).reshape(T, N) % C, axis=1)]
    return HeadCase(head, X, Y, rX, rng.standard_normal(3), dw, db, rdw, rdb)


def values(case, k, X, eta):
    """w and b as one array (T, .)."""
    w, b, _ = case.head.forward(k, X, case.Y, eta)
    return np.concatenate([w.reshape(len(w), -1), b], axis=1)


def adjoints(case, k, X, eta, dw, db):
    """dX and deta as one array (T, .)."""
    _, _, saved = case.head.forward(k, X, case.Y, eta)
    dX, deta, _ = case.head.backward(k, saved, dw, db)
    return np.concatenate([dX.reshape(len(dX), -1), deta], axis=1)


def gradient_by_steps(case, k):
    """dX and deta as one array (T, .): the complex step on <w, dw> + <b, db>.

    All tasks are shifted at once in the same entry: no task reads another's.
    """
    T, size = len(case.X), case.X[0].size
    given = np.concatenate([case.dw.reshape(T, -1), case.db], axis=1)
    columns = []
    for step in np.eye(size + 3):
        X = complex_step.shifted(case.X, step[:size].reshape(1, *case.X.shape[1:]))
        eta = complex_step.shifted(ETA, step[size:])
        columns.append(complex_step.derivative((values(case, k, X, eta) * given).sum(axis=1)))
    return np.stack(columns, axis=1)


def r_passes(case, k):
    """(rw and rb, rdX and rdeta), each as one array (T, .)."""
    _, _, saved = case.head.forward(k, case.X, case.Y, ETA)
    _, _, kept = case.head.backward(k, saved, case.dw, case.db)
    rw, rb, tangents = case.head.r_forward(k, saved, case.rX, case.reta)
    rdX, rdeta = case.head.r_backward(k, saved, kept, tangents, case.rdw, case.rdb)
    T = len(rw)
    return (
        np.concatenate([rw.reshape(T, -1), rb], axis=1),
        np.concatenate([rdX.reshape(T, -1), rdeta], axis=1),
    )


def extended(case):
    """X with a column of ones where the head has an intercept."""
    ones = np.ones((*case.X.shape[:2], 1))
    return np.concatenate([case.X, ones], axis=2) if case.head.intercept else case.X


def layer_by_algebra(case, weights):
    """w and b as one array (T, .), from the oracle of W."""
    F, (ell, alpha, beta) = case.X.shape[2], ETA
    V = alpha * np.array(
        [weights(X, Y, np.exp(ell)) for X, Y in zip(extended(case), case.Y, strict=True)]
    )
    w, b = V[:, :F].swapaxes(1, 2), beta + V[:, F:].sum(axis=1)
    return np.concatenate([w.reshape(len(w), -1), b], axis=1)


def describe(head):
    """ "LogisticHead, intercept": the class, and what tells it from other cases."""
    steps = [f"{head.newton_steps} steps"] if isinstance(head, LogisticIterations) else []
    parts = [type(head).__name__, *(["intercept"] if head.intercept else []), *steps]
    return ", ".join(parts)


def condition(X):
    """The largest condition number of X'X + lambda I; X (T, N, F)."""
    grams = X.swapaxes(1, 2) @ X + np.exp(ETA[0]) * np.eye(X.shape[2])
    return float(np.linalg.cond(grams).max())


def head_checks(head, weights, k):
    """A head's passes: LAPACK for the first, the complex step for the others."""
    for N, F in SIZES:
        case = head_case(head, N, F)
        # A solve multiplies relative errors by up to the condition number.
        limit = tolerance(float, 2 * N * F) * condition(extended(case))

        def row(rung, quantity, oracle, value, truth, case=case, limit=limit):
            error = relative_error(value, truth)
            _, examples, features = case.X.shape
            subject = f"{describe(case.head)}, {examples} examples, {features} features"
            return Check(rung, subject, quantity, oracle, error, limit)

        truth = layer_by_algebra(case, weights)
        yield row("1 forward", "w, b", "dense algebra", values(case, k, case.X, ETA), truth)

        gradient = adjoints(case, k, case.X, ETA, case.dw, case.db)
        yield row("2 backward", "dX, deta", "complex step", gradient, gradient_by_steps(case, k))

        if isinstance(head, LogisticIterations):  # which has no second derivative
            continue
        moved = complex_step.shifted(case.X, case.rX), complex_step.shifted(ETA, case.reta)
        r_values, r_adjoints = r_passes(case, k)
        truth = complex_step.derivative(values(case, k, *moved))
        yield row("3 r_forward", "rw, rb", "complex step", r_values, truth)

        both = zip((case.dw, case.db), (case.rdw, case.rdb), strict=True)
        shifted = (complex_step.shifted(a, ra) for a, ra in both)
        truth = complex_step.derivative(adjoints(case, k, *moved, *shifted))
        yield row("3 r_backward", "rdX, rdeta", "complex step", r_adjoints, truth)


def hvp_check(method, net, meta, batch, name):
    """d^2 M / dmeta^2 times v against the complex step on the meta-gradient."""
    v = np.random.default_rng(1).standard_normal(len(meta))
    shifted = method.meta_gradient(net, complex_step.shifted(meta, v), batch).grad
    return Check(
        "4 hessian",
        name,
        "d^2 M / dmeta^2 v",
        "complex step",
        relative_error(method.hvp(net, meta, batch, v), complex_step.derivative(shifted)),
        tolerance(float, 2 * method_terms(method, net, batch)),
    )


def regression_net(bias=True):
    """A net with three real outputs, for methods that take no labels."""
    return Sequential([Linear(5, 4), Tanh(), Linear(4, 3, bias=bias)], MSE(), (5,))


def evidence_check(k, N=7, F=4, C=2):
    """Predictive likelihoods one example after another: their product is p(Y)."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((1, N, F)), rng.standard_normal((1, N, C))
    W0, L = rng.standard_normal((1, C, F)), np.eye(F) + 0.4 * rng.standard_normal((1, F, F))
    prior = bayesian_regression.Prior(W0, L, -0.7)
    total = 0.0
    for n in range(N):
        sets = X[:, :n], Y[:, :n], X[:, n : n + 1], Y[:, n : n + 1]
        total -= bayesian_regression.forward(k, *sets, prior)[0][0]
    truth = solved_heads.log_likelihood(X[0], Y[0], W0[0], L[0] @ L[0].T, np.exp(-0.7))
    limit = tolerance(float, N * F * F) * np.linalg.cond(L[0] @ L[0].T)
    error = relative_error(total, truth)
    return Check("5 closed form", "ALPaCA", "sum of log p", "log evidence", error, limit)


def second_derivatives():
    """[(name, method, net)] whose second derivative is checked."""
    return [
        ("R2D2", R2D2(0.75, 1.75, 0.25), cases.smooth_net()),
        ("LRD2", LRD2(0.75, 1.75, 0.25, intercept=True), cases.smooth_net()),
        ("MetaOptNet", MetaOptNet(0.75, 1.75, 0.25), cases.smooth_net()),
        ("ALPaCA", ALPaCA(0.75, 0.25), regression_net()),
        ("ALPaCA without bias", ALPaCA(0.75, 0.25), regression_net(bias=False)),
    ]


def start(method, net):
    """(meta, batch): no meta-parameter is 0 or 1 by construction."""
    rng = np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    meta = method.init(net, theta)
    meta[net.num_params :] += 0.1 * rng.standard_normal(len(meta) - net.num_params)
    return meta, batch


def solved_head_checks(kernels):
    """The four passes of each head, then second derivatives of meta-objectives."""
    for head, weights in heads():
        yield from head_checks(head, weights, kernels)
    for method in cases.methods_with(PREDICTIVE):
        net = regression_net().with_kernels(kernels)
        yield meta_gradient_check(method, net, *start(method, net))
    for name, method, net in second_derivatives():
        net = net.with_kernels(kernels)
        yield hvp_check(method, net, *start(method, net), name)
    yield evidence_check(kernels)
