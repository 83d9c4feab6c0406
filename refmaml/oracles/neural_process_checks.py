"""Rungs 4 and 5 for the conditional neural process on the net of its paper."""

import numpy as np

from refmaml.execution import Sequential
from refmaml.layers import BoundedGaussianNLL, Context, CrossEntropy, Linear, Tanh
from refmaml.methods import cnp
from refmaml.methods.table import CNP
from refmaml.oracles import cases
from refmaml.oracles.method_checks import meta_gradient_check, method_terms
from refmaml.oracles.solved_head_checks import hvp_check
from refmaml.oracles.tolerance import Check, relative_error, tolerance

METHOD, BY_CLASS = CNP((6, 5)), CNP((6, 5), by_class=True)


def decoder(size=4):
    """A decoder of two inputs and three targets: [x, r] -> means and spreads."""
    layers = [Context(size), Linear(2 + size, 7), Tanh(), Linear(7, 6)]
    return Sequential(layers, BoundedGaussianNLL(full=True), (2,))


def classifier():
    """A decoder of two inputs and three classes, with two numbers of each class."""
    layers = [Context(6), Linear(2 + 6, 7), Tanh(), Linear(7, 3)]
    return Sequential(layers, CrossEntropy(), (2,))


def start(net, method=METHOD, seed=0, **sizes):
    """(meta, batch): no meta-parameter is 0 or 1 by construction."""
    rng = np.random.default_rng(seed)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, **sizes)
    meta = method.init(net, theta)
    meta[net.num_params :] += 0.1 * rng.standard_normal(len(meta) - net.num_params)
    return meta, batch


def encoder_passes(method, net, meta, batch, v, dr):
    """(J v (T, S), J'dr (T, E)), J = dr/deta of each task, by the method's passes."""
    examples, s, _ = method.encode(net, meta, batch.x_support, batch.y_support)
    deta, at = examples.pullback(cnp.to_each(net.kernels, s, dr))
    rh, _ = examples.body.r_forward(at, v[None])
    return cnp.means(net.kernels, s, rh), deta


def adjoint_check(method, net, meta, batch, subject="CNP"):
    """<dr, J v> = <J'dr, v> in every task: both passes of the encoder and its mean."""
    rng = np.random.default_rng(2)
    v = rng.standard_normal(len(meta) - net.num_params)
    dr = rng.standard_normal((len(batch), int(net.mask(("context",)).sum())))
    rr, deta = encoder_passes(method, net, meta, batch, v, dr)
    # A sum can cancel to nearly 0: relative to the largest value that it can have.
    scale = np.linalg.norm(dr, axis=1) * np.linalg.norm(rr, axis=1)
    error = (abs((dr * rr).sum(axis=1) - deta @ v) / scale).max()
    limit = tolerance(float, method_terms(method, net, batch))
    return Check("5 algebra", subject, "<dr, J v> = <J'dr, v>", "adjoint", error, limit)


def symmetry_check(method, net, meta, batch):
    """u'Hv = v'Hu of the Hessian of M."""
    u, v = np.random.default_rng(3).standard_normal((2, len(meta)))
    Hu, Hv = (method.hvp(net, meta, batch, direction) for direction in (u, v))
    error = abs(u @ Hv - v @ Hu) / (np.linalg.norm(u) * np.linalg.norm(Hv))
    limit = tolerance(float, method_terms(method, net, batch))
    return Check("5 algebra", "CNP", "u'Hv = v'Hu", "symmetry", error, limit)


def mean_check(method, net, meta, batch):
    """r of a whole support set from those of its two parts, in another order."""
    x, y = batch.x_support[:, ::-1], batch.y_support[:, ::-1]
    N, first = x.shape[1], 2

    def r(part):
        return cnp.of_context(net, method.adapt(net, meta, x[:, part], y[:, part]))

    whole = cnp.of_context(net, method.adapt(net, meta, batch.x_support, batch.y_support))
    parts = (first * r(slice(first)) + (N - first) * r(slice(first, None))) / N
    limit = tolerance(float, method_terms(method, net, batch))
    return Check("5 closed form", "CNP", "r", "two parts", relative_error(parts, whole), limit)


def neural_process_checks(kernels):
    """Meta-gradient, second derivative, three identities; by class three of these."""
    net = decoder().with_kernels(kernels)
    meta, batch = start(net)
    yield meta_gradient_check(METHOD, net, meta, batch)
    yield hvp_check(METHOD, net, meta, batch, "CNP")
    yield hvp_check(METHOD, cases.smooth_net(True), *start(cases.smooth_net(True)), "CNP, FiLM")
    yield adjoint_check(METHOD, net, meta, batch)
    yield symmetry_check(METHOD, net, meta, batch)
    yield mean_check(METHOD, net, meta, batch)
    net, name = classifier().with_kernels(kernels), "CNP, by class"
    meta, batch = start(net, BY_CLASS)
    yield meta_gradient_check(BY_CLASS, net, meta, batch)
    yield hvp_check(BY_CLASS, net, meta, batch, name)
    yield adjoint_check(BY_CLASS, net, meta, batch, name)
