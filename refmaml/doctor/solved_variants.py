"""Methods that solve or encode in place of an inner loop, with every choice a field of
`Solved`, so that a mistake is a field changed.

    heads    phi = (body, alpha W + beta), W the head's solution on the support features
    ALPaCA   see alpaca_variants.py
    CNP      phi = (theta, context r), r the mean of the encoder's outputs
"""

from dataclasses import dataclass, replace

import numpy as np

from refmaml.batch import Batch
from refmaml.doctor.alpaca_variants import alpaca_rows
from refmaml.doctor.stopped_dual import stopped
from refmaml.doctor.unrolled_forward import data
from refmaml.errors import ArgumentError
from refmaml.methods import CNP, ALPaCA
from refmaml.methods.cnp import (
    means,
    of_context,
    target_size,
    to_each,
    with_context,
    without_context,
)
from refmaml.methods.features import Features, body_of
from refmaml.methods.inner_loop_adjoint import query_pass
from refmaml.methods.solved_head import joined as with_head
from refmaml.methods.solved_head import of_head, targets, without_head
from refmaml.methods.svm_head import gram
from refmaml.methods.svm_solver import kkt
from refmaml.methods.symmetric_solves import times


@dataclass(frozen=True)
class Solved:
    """The choices of a method without an inner loop.

    support, query   which set is solved (or encoded) and which measures the loss
    settings         ((field of the method, its wrong value), ...)
    through          "all"; "query": the solution (or encoding) is a constant;
                     "support": the query features are constants
    adapted          False: theta itself is measured, and nothing is solved
    tasks            which tasks count, as in unrolled_variants.py

    Heads:
    factor           on W; scaled: whether alpha is used
    strength         lambda: "e^ell"; "ell"; or (c, whether ell has a gradient): c e^ell
                     for a number c, "N" for the number of examples, "1" for lambda = 1
    inverse          whether (X'X + lambda I)^-1 depends on theta
    free             whether the SVM's derivative lets entries at their bounds move
    maxiter          of OptNet's interior-point method; None: the SVM is solved

    CNP:
    pooled           "mean" or "sum" over examples; "last" example
    share            what each example gets of dr: "1/N" or "1"
    with_targets     whether the encoder sees the targets

    ALPaCA's likelihood: see alpaca_variants.py
    """

    support: str = "support"
    query: str = "query"
    settings: tuple = ()
    through: str = "all"
    adapted: bool = True
    factor: float = 1.0
    scaled: bool = True
    strength: object = "e^ell"
    inverse: bool = True
    free: bool = False
    maxiter: int | None = None
    pooled: str = "mean"
    share: str = "1/N"
    with_targets: bool = True
    likelihood: str = "method"
    tasks: str | tuple = "all"


def solved_rows(case, variant):
    """The meta-gradient of each task as `variant` has it, (T, M)."""
    sets = Batch(*data(case, variant.support), *data(case, variant.query))
    method = replace(case.method, **dict(variant.settings)) if variant.settings else case.method
    if not variant.adapted:
        return unadapted_rows(case, sets)
    kind = {CNP: encoded_rows, ALPaCA: alpaca_rows}
    rows = next((kind[cls] for cls in kind if isinstance(method, cls)), head_rows)
    return rows(case, method, variant, sets)


def unadapted_rows(case, sets):
    """grad g(theta): what a task computes is not used."""
    query = query_pass(case.net, case.theta[None], sets)
    more = len(case.meta) - case.net.num_params
    return np.concatenate([query.grad, np.zeros((len(sets), more))], axis=1)


# ---- heads ---------------------------------------------------------------------------


def head_rows(case, method, variant, sets):
    """[dM_t/dtheta, dM_t/deta] of a SolvedHead, (T, P + 3)."""
    net, body, k = case.net, body_of(case.net), case.net.kernels
    theta, eta = case.theta[None, : body.num_params], case.meta[case.net.num_params :]
    support = Features.of(body, theta, sets.x_support)
    Y = targets(net, support.X, sets.y_support)
    used, slopes = numbers(variant, eta, Y.shape[1])
    weight, bias, solved = method.head.forward(k, support.X, Y, used)
    if variant.maxiter:
        solved = stopped(k, solved, Y, method.head.cost, variant.maxiter)
        weight, bias = method.head.layer(k, used[1] * solved.W, used[2])
    query = query_pass(net, with_head(net, theta, weight, bias), sets)
    solved = all_free(k, solved) if variant.free else solved
    dw, db = of_head(net, query.grad)
    dX, deta, adjoints = method.head.backward(k, solved, dw, db)
    if not variant.inverse:
        dX, slopes = method.head.without(k, times(k, Y, adjoints.U)), slopes * (0, 1, 1)
    if variant.through == "query":
        dX, slopes = 0 * dX, slopes * (0, 1, 1)
    dbody, _ = support.pullback(np.ascontiguousarray(dX))
    direct = query.grad[:, : body.num_params]
    if variant.through == "support":
        direct = 0 * direct
    return np.concatenate([without_head(net, direct + dbody), deta * slopes], axis=1)


def numbers(variant, eta, N):
    """(ell, alpha, beta) as the variant has them, and (3,) their derivatives in eta."""
    ell, alpha, beta = eta
    if variant.strength == "ell":
        if ell <= 0:
            raise ArgumentError("lambda: expected a number > 0, got a smaller one")
        used, slope = np.log(ell), 1 / ell
    elif variant.strength == "e^ell":
        used, slope = ell, 1.0
    else:
        factor, learned = variant.strength
        used = 0.0 if factor == "1" else ell + np.log(N if factor == "N" else factor)
        slope = float(learned)
    c = variant.factor
    scale, of_scale = (c * alpha, c) if variant.scaled else (c, 0.0)
    return np.array([used, scale, beta]), np.array([slope, of_scale, 1.0])


def all_free(k, solved):
    """An SVM's solution whose derivative knows no bounds."""
    K = gram(k, solved.X, solved.strength)
    return solved._replace(system=kkt(k, K, np.zeros_like(solved.Z)))


# ---- CNP -----------------------------------------------------------------------------


def encoded_rows(case, method, variant, sets):
    """[dM_t/dtheta, dM_t/deta] of a CNP, (T, P + E)."""
    net, P = case.net, case.net.num_params
    encoder, theta, eta = method.encoder_net(net), case.theta[None], case.meta[None, P:]
    k, s = net.kernels, method.shares(net, sets.y_support, case.meta)
    inputs = method.inputs(net, sets.x_support, sets.y_support, case.meta)
    if not variant.with_targets:
        inputs = inputs.copy()
        inputs[..., -target_size(net) :] = 0
    examples, ones = Features.of(encoder, eta, inputs), (s > 0).astype(s.dtype)
    used = {"mean": s, "sum": ones, "last": last_of_each(ones)}[variant.pooled]
    query = query_pass(net, with_context(net, theta, means(k, used, examples.X)), sets)
    back = ones if variant.share == "1" else used
    deta, _ = examples.pullback(to_each(k, back, of_context(net, query.grad)))
    if variant.through == "query":
        deta = 0 * deta
    return np.concatenate([without_context(net, query.grad), deta], axis=1)


def last_of_each(ones):
    """The last 1 of each column of (T, N, C) alone."""
    later = ones[:, ::-1].cumsum(axis=1)[:, ::-1]
    return ones * (later == 1)
