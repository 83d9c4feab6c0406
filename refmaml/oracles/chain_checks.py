"""Rung 7 for kernel sets that run a whole net as one kernel: nets that between them have every operation such a kernel knows."""
import numpy as np

from refmaml.layers import (
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
    Softplus,
    Tanh,
)
from refmaml.nets import conv4, mlp, two_layer_linear
from refmaml.network import Sequential
from refmaml.oracles import cases
from refmaml.oracles.kinks import net_margin
from refmaml.oracles.net_checks import net_terms
from refmaml.oracles.tolerance import Check, relative_error, tolerance

TASKS, EXAMPLES = 3, 7


def nets():
    """{name: net}; channels that fill no vector, or more than one; pixels in no window; windows that overlap; a bias before batch-norm and
    one before nothing; images to flatten at the start and at the end."""
    return {
        "strided conv4": conv4(5, channels=6, image=(1, 14, 14), bn_gamma=True),
        "max-pool conv4": conv4(3, channels=5, image=(1, 16, 19), downsample="max_pool", head="flatten"),
        "wide, leaky, odd windows": Sequential(
            [Conv2d(3, 18, 3, padding=1), BatchNorm2d(18), LeakyReLU(0.2), MaxPool2d((2, 3)),
             Conv2d(18, 10, (2, 3), stride=(1, 2), padding=((0, 1), (2, 0))), BatchNorm2d(10, gamma=False, beta=False),
             AvgPool2d(2, stride=1), Flatten(), Linear(20, 4)], CrossEntropy("sum/K"), (3, 7, 14)),
        "smooth, overlapping windows": Sequential(
            [Conv2d(2, 9, 3), Softplus(), MaxPool2d(3, stride=2), Conv2d(9, 4, 2), Tanh(), Flatten(), Linear(16, 3, bias=False)],
            MSE("sum"), (2, 9, 9)),
        "flattened first": Sequential([Flatten(), Linear(12, 8), BatchNorm2d(8), ReLU(), Linear(8, 33), LeakyReLU(0.1), Linear(33, 3)],
                                      CrossEntropy("sum"), (3, 2, 2)),
        "mlp": mlp((3, 40, 7, 2)),
        "two-layer linear": two_layer_linear(6, 2)}


def probe(net, dtype, shared, seed=0):
    """(w, x, y, v, margin), drawn until no choice is near: in `dtype`'s precision, as arrays of `dtype`."""
    rng, T = np.random.default_rng(seed), 1 if shared else TASKS
    outputs = net.output_shape(net.input_shape)[0]
    while True:
        w = np.stack([cases.start(net, rng) for _ in range(T)]).astype(dtype)
        x = rng.standard_normal((TASKS, EXAMPLES, *net.input_shape)).astype(dtype)
        margin = net_margin(net, w.astype(float), x.astype(float))
        if margin > 100 * np.finfo(dtype).eps:
            break
    y = (rng.integers(0, outputs, (TASKS, EXAMPLES)) if isinstance(net.loss_function, CrossEntropy)
         else rng.standard_normal((TASKS, EXAMPLES, outputs)).astype(dtype))
    return w, x, y, rng.standard_normal((TASKS, net.num_params)).astype(dtype), margin


def quantities(net, w, x, y, v):
    """All that a net computes of a loss: by name."""
    primal = net.primal(w, x, y)
    return {"outputs": primal.outputs, "loss": primal.loss, "gradient": primal.grad, "gradient alone": net.gradient(w, x, y),
            "H v": net.hvp(primal, v), "G v": net.gauss_newton_product(primal, v)}


def chain_check(name, net, kernels, dtype, shared):
    """A net as one kernel against the reference kernels in float64 on the same numbers, a Check for each quantity."""
    w, x, y, v, margin = probe(net, dtype, shared)
    fast = quantities(net.with_kernels(kernels), w, x, y, v)
    exact = quantities(net, w.astype(float), x.astype(float), y if y.dtype.kind == "i" else y.astype(float), v.astype(float))
    subject = f"{name}{', shared' if shared else ''} [{kernels.name}, {np.dtype(dtype).name}]"
    return [Check("7 kernels", subject, quantity, "reference kernels", relative_error(fast[quantity], value),
                  tolerance(dtype, net_terms(net, EXAMPLES)), margin) for quantity, value in exact.items()]


def chain_checks(kernels):
    """Every net in both precisions, with parameters of their own for each task and with shared ones."""
    for dtype in (np.float32, np.float64):
        for name, net in nets().items():
            for shared in (False, True):
                yield from chain_check(name, net, kernels, dtype, shared)
