"""Rung 7 for kernel sets that run a whole net as one kernel.

Together the nets, with those of whole_net_cases.py, have every operation that such a
kernel knows.
"""

import numpy as np

from refmaml.batch import Batch
from refmaml.execution import Sequential
from refmaml.execution.device_transfer import to_device
from refmaml.layers import (
    ELU,
    GELU,
    MSE,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Flatten,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from refmaml.methods.inner_loop import InnerLoop
from refmaml.methods.inner_loop_adjoint import adjoint, descend, query_pass
from refmaml.models import conv4, mlp, two_layer_linear
from refmaml.oracles import cases
from refmaml.oracles.guarded import guarded, subject_on
from refmaml.oracles.kinks import net_margin
from refmaml.oracles.net_checks import net_terms
from refmaml.oracles.tolerance import Check, relative_error, tolerance
from refmaml.oracles.whole_net_cases import nets_of_parts

TASKS, EXAMPLES, STEPS, RATE = 3, 7, 2, 0.02
LOOP = InnerLoop(RATE, STEPS)  # plain gradient descent on the whole support set
CLEAR = 100  # roundings; a choice that is further away than this does not flip


def nets():
    """{name: net}: the nets that a whole-net kernel is checked on.

    They have channels that fill less or more than one SIMD vector, pixels outside every
    window, layers of one unit, windows that overlap, a bias before batch-norm and one
    elsewhere, and images that are flattened at the start and at the end.
    """
    return {
        "strided conv4": conv4(5, channels=6, image=(1, 14, 14), bn_gamma=True),
        "max-pool conv4": conv4(
            3, channels=5, image=(1, 16, 19), downsample="max_pool", head="flatten"
        ),
        "wide, leaky, odd windows": odd_windows(),
        "smooth, overlapping windows": overlapping_windows(),
        "every other activation": smooth_activations(),
        "flattened first": flattened_first(),
        "mlp": mlp((3, 40, 7, 2)),
        "two-layer linear": two_layer_linear(6, 2),
        "one unit in a layer": mlp((2, 1, 3, 1, 2), "tanh"),
    }


def odd_windows():
    """More channels than a SIMD vector; oblong kernels, strides and windows."""
    layers = [
        Conv2d(3, 18, 3, padding=1),
        BatchNorm2d(18),
        LeakyReLU(0.2),
        MaxPool2d((2, 3)),
        Conv2d(18, 10, (2, 3), stride=(1, 2), padding=((0, 1), (2, 0))),
        BatchNorm2d(10, gamma=False, beta=False),
        AvgPool2d(2, stride=1),
        Flatten(),
        Linear(20, 4),
    ]
    return Sequential(layers, CrossEntropy("sum/K"), (3, 7, 14))


def overlapping_windows():
    """Smooth activations, and windows of maxima that share pixels."""
    layers = [
        Conv2d(2, 9, 3),
        Softplus(),
        MaxPool2d(3, stride=2),
        Conv2d(9, 4, 2),
        Tanh(),
        Flatten(),
        Linear(16, 3, bias=False),
    ]
    return Sequential(layers, MSE("sum"), (2, 9, 9))


def smooth_activations():
    """Every activation of smooth_activation.py behind a product."""
    layers = [
        *(Conv2d(2, 5, 3), GELU(), Conv2d(5, 4, 2), SiLU(), Flatten()),
        *(Linear(16, 7), ELU(0.7), Linear(7, 6), GELU("tanh")),
        *(Linear(6, 5), Sigmoid(), Linear(5, 3)),
    ]
    return Sequential(layers, CrossEntropy(), (2, 5, 5))


def flattened_first():
    """Images that are vectors from the start, and batch-norm of vectors."""
    layers = [
        Flatten(),
        Linear(12, 8),
        BatchNorm2d(8),
        ReLU(),
        Linear(8, 33),
        LeakyReLU(0.1),
        Linear(33, 3),
    ]
    return Sequential(layers, CrossEntropy("sum"), (3, 2, 2))


def draw(net, dtype, shared, rng):
    """(w, x, y, v, margin), arrays of `dtype`, drawn once.

    margin: the distance from the nearest kink, at w and along the inner loop.
    """
    outputs, T = net.output_shape(net.input_shape)[0], 1 if shared else TASKS
    w = np.stack([cases.start(net, rng) for _ in range(T)]).astype(dtype)
    x = rng.standard_normal((TASKS, EXAMPLES, *net.input_shape)).astype(dtype)
    y = cases.random_targets(net.loss_function, rng, (TASKS, EXAMPLES, outputs))
    y = y.astype(dtype) if y.dtype.kind == "f" else y
    batch = tasks_of(x.astype(float), y)
    path = descend(net, LOOP, w.astype(float), rates_for(net, float), *batch.sets[0], keep="phis")
    margin = min(net_margin(net, phi, x.astype(float)) for phi in path.phis)
    return w, x, y, rng.standard_normal((TASKS, net.num_params)).astype(dtype), margin


def probe(net, dtype, shared, seed=0):
    """The result of `draw`, repeated until no rounding in `dtype` can flip a choice."""
    rng = np.random.default_rng(seed)
    while True:
        *drawn, margin = draw(net, dtype, shared, rng)
        if margin > CLEAR * np.finfo(dtype).eps:
            return *drawn, margin


def in_float64(*arrays):
    """The same numbers in float64; labels stay integers."""
    return [a.astype(float) if a.dtype.kind == "f" else a for a in arrays]


def tasks_of(x, y):
    """A Batch: all examples but two are the support set, all are the query set."""
    return Batch(x[:, 2:], y[:, 2:], x, y)


def rates_for(net, dtype):
    """A_0 .. A_{K-1}, different for every step and every parameter."""
    return [
        np.linspace(RATE / 2, RATE / (k + 1), net.num_params).astype(dtype) for k in range(STEPS)
    ]


def loop_gradient(net, w, batch, order, recompute=False):
    """(query loss, lam_0) of an inner loop, by one kernel if the net has one for it."""
    (w, *rates), sets = to_device(net, (w, *rates_for(net, w.dtype)), *batch.sets)
    batch = Batch(*sets[0], *sets[1])
    after = net.unrolled(w, rates, batch, order, recompute)
    if after:
        return after.loss, after.grad
    path = descend(net, LOOP, w, rates, *batch.sets[0])
    after = query_pass(net, path.phis[-1], batch)
    lam = after.grad if order == 1 else adjoint(net, LOOP, path, rates, after.grad).lam[0]
    return after.loss, lam


def quantities(net, w, x, y, v):
    """{name: array} of all that a net computes from a loss."""
    primal, batch = net.primal(w, x, y), tasks_of(x, y)
    loss, lam = loop_gradient(net, w, batch, 2)
    found = {
        "outputs": primal.outputs,
        "loss": primal.loss,
        "gradient": primal.grad,
        "gradient alone": net.gradient(w, x, y),
        "H v": net.hvp(primal, v),
        "G v": net.gauss_newton_product(primal, v),
        "loss after inner steps": loss,
        "lam_0": lam,
        "lam_0, recomputed": loop_gradient(net, w, batch, 2, recompute=True)[1],
        "lam_0, order 1": loop_gradient(net, w, batch, 1)[1],
    }
    return {
        name: a if isinstance(a, np.ndarray) else net.kernels.to_host(a)
        for name, a in found.items()
    }


def whole_net_check(name, net, kernels, dtype, shared):
    """A net on `kernels` in `dtype` against the reference kernels in float64.

    Returns a Check for each quantity.
    """
    w, x, y, v, margin = probe(net, dtype, shared)
    fast = quantities(net.with_kernels(kernels), w, x, y, v)
    exact = quantities(net, *in_float64(w, x, y, v))
    subject = subject_on(kernels, name, dtype, shared)
    terms = {
        name: net_terms(net, EXAMPLES)
        * (3 * (STEPS + 1) if "lam" in name or "steps" in name else 1)
        for name in exact
    }
    return [
        Check(
            "7 kernels",
            subject,
            quantity,
            "reference kernels",
            relative_error(fast[quantity], value),
            tolerance(dtype, terms[quantity]),
            margin,
        )
        for quantity, value in exact.items()
    ]


def whole_net_checks(kernels):
    """Every net in both precisions, with parameters per task and with shared ones.

    Sets that run layer by layer have the layers of `nets_of_parts` checked one by one.
    """
    every = nets() | (nets_of_parts() if kernels.whole_net else {})
    for dtype in (np.float32, np.float64):
        for name, net in every.items():
            for shared in (False, True):
                subject = subject_on(kernels, name, dtype, shared)
                yield from guarded(subject, whole_net_check, name, net, kernels, dtype, shared)
