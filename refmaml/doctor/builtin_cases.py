"""The built-in cases, chosen so that mistakes show, and the case of a user's own net.

On an adapted net, on zero inputs or at a tiny step size most wrong meta-gradients equal
the right one to many digits. So the step size is one at which curvature shows
(method_settings.py), inputs and parameters are random, and the numbers of tasks, of
support and query examples, of outputs and of inner steps are distinct primes, so that a
wrong factor can be recognised by its value.
"""

import numpy as np

from refmaml import kernels
from refmaml.arrays import described
from refmaml.batch import Batch
from refmaml.doctor.cases import Case
from refmaml.doctor.method_settings import fitting, initial_meta
from refmaml.doctor.method_table import entry
from refmaml.doctor.task_weights import checked_weights
from refmaml.errors import ArgumentError, expect
from refmaml.execution import Sequential
from refmaml.layers import (
    MSE,
    BatchNorm2d,
    Context,
    Conv2d,
    CrossEntropy,
    FiLM,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Tanh,
)
from refmaml.oracles.cases import random_targets
from refmaml.ragged import RaggedBatch
from refmaml.tasks.orthonormal import random_orthonormal

PRIMES = (3, 5, 7, 11, 13)
DRAWS = 12  # how often inputs are drawn at most
FAR = 1e-5  # distance to a kink at which drawing stops: float32 rounds 80 times finer
CONTEXT = 2  # length of a task's context, where the method adapts one


def extents(method):
    """(tasks, outputs, support examples, query examples): distinct primes, none of them
    the number of inner steps."""
    return [p for p in PRIMES if p != getattr(method, "inner_steps", 0)][:4]


# ---- the nets ------------------------------------------------------------------------


def context(method, outputs=1):
    """([Context layer], its length) for a method with a context, else ([], 0)."""
    size = context_size(method, outputs)
    return ([Context(size)], size) if size else ([], 0)


def context_size(method, outputs):
    """The numbers in a task's context; those of each class, where each has its own."""
    each = CONTEXT * outputs if getattr(method, "by_class", False) else CONTEXT
    return each if entry(method).context else 0


def quadratic(method, features, outputs):
    """Least squares: 1/2 mean (w x - y)^2.

    Its Hessian X'X / N is random, symmetric and positive definite.
    """
    layers, more = context(method)
    layers = [*layers, Linear(features + more, 1, bias=False)]
    return Sequential(layers, MSE(factor=0.5), (features,))


def two_layer(method, features, outputs):
    """The two-layer linear net, whose mixed second derivatives carry ANIL's and MAML's
    second-order term."""
    layers, more = context(method)
    layers = [*layers, Linear(features + more, CONTEXT, bias=False), Linear(CONTEXT, 1, bias=False)]
    return Sequential(layers, MSE(factor=0.5), (features,))


def mlp(method, features, outputs):
    """A tanh net with softmax cross-entropy."""
    layers, more = context(method, outputs)
    layers = [*layers, Linear(features + more, 13), Tanh(), Linear(13, outputs)]
    return Sequential(layers, CrossEntropy(), (features,))


def conv(method, features, outputs):
    """Convolution, batch-norm, ReLU, max-pooling and a head.

    The convolution has no bias: before batch-norm its gradient would be rounding alone.
    """
    size = context_size(method, outputs)
    film = [FiLM(3, size)] if size else []
    layers = [
        Conv2d(1, 3, 3, padding=1, bias=False),
        BatchNorm2d(3, eps=1e-3),
        *film,
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(18, outputs),
    ]
    return Sequential(layers, CrossEntropy(), (1, 4, 6))


NETS = {"quadratic": quadratic, "two-layer": two_layer, "mlp": mlp, "conv": conv}


# ---- the cases -----------------------------------------------------------------------


def builtin_cases(method, names=None, seed=0):
    """(cases, [(name, why it was left out), ...]) for the given names (None: all).

    Raises ArgumentError for an unknown name.
    """
    names = tuple(NETS) if names is None else tuple(names)
    for name in names:
        expect(name in NETS, "probes", f"some of {', '.join(NETS)}", repr(name))
    cases, left_out = [], []
    for name in names:
        try:
            cases.append(builtin_case(name, method, seed))
        except ArgumentError as error:
            left_out.append((name, str(error)))
    return cases, left_out


def builtin_case(name, method, seed=0):
    """One case: drawn until it is far from kinks, or the farthest of DRAWS."""
    best = None
    for draw in range(DRAWS):
        rng = np.random.default_rng([seed, list(NETS).index(name), draw])
        case = drawn(name, method, rng)
        if best is None or case.margin > best.margin:
            best = case
        if best.margin > FAR:
            break
    return best


def drawn(name, method, rng):
    """One draw of a built-in case."""
    T, C, N, M = extents(method)
    net = NETS[name](method, C, C)
    spread = 0.5 if name == "two-layer" else 0.1
    theta = net.init(rng, np.float64) + spread * rng.standard_normal(net.num_params)
    inputs = spectral_inputs if name == "quadratic" else normal_inputs
    batch = Batch(*inputs(net, T, N, rng), *inputs(net, T, M, rng))
    if getattr(method, "by_class", False) and batch.y_support.ndim == 2:
        for y in (batch.y_support, batch.y_query):  # a mean of no example is nothing
            y[:, :C] = rng.permuted(np.tile(np.arange(C), (T, 1)), axis=1)
    given = method
    method = entry(method).settings(fitting(method, net), net, theta, batch)
    return Case(name, net, method, initial_meta(method, net, theta, rng), batch, given=given)


def normal_inputs(net, T, N, rng):
    """Standard normal inputs (T, N, ...), and targets that the loss takes."""
    (D,) = net.output_shape(net.input_shape)
    x = rng.standard_normal((T, N, *net.input_shape))
    return x, random_targets(net.loss_function, rng, (T, N, D))


def spectral_inputs(net, T, N, rng):
    """X = sqrt(N) U diag(sqrt(s)) V', s between 0.5 and 1.2; targets standard normal.

    So X'X / N = V diag(s) V'.
    """
    (P,) = net.input_shape
    x = [
        np.sqrt(N)
        * (random_orthonormal(rng, N, P) * np.sqrt(rng.uniform(0.5, 1.2, P)))
        @ random_orthonormal(rng, P, P).T
        for _ in range(T)
    ]
    return np.stack(x), rng.standard_normal((T, N, 1))


def own_case(net, method, batch, seed):
    """The user's own net and method unchanged, on the user's batch or a random one.

    Raises ArgumentError where the meta-gradient is 0 throughout. The true gradient is
    computed with NumPy, so a net on a GPU gets the reference kernels.
    """
    rng = np.random.default_rng([seed, len(NETS)])
    net = net.with_kernels(kernels.reference() if net.kernels.on_device else net.kernels)
    if batch is None:
        batch = random_batch(net, rng)
    expect(isinstance(batch, Batch), "batch", "a refmaml.Batch", lambda: described(batch))
    ragged = isinstance(batch, RaggedBatch)
    expect(not ragged, "batch", "tasks of one size", "a RaggedBatch")
    weights = checked_weights(batch.weights)
    batch = Batch(*batch.arrays)
    theta = net.init(rng, np.float64)
    meta = initial_meta(method, net, theta, rng)
    case = Case("own net", net, method, meta, batch.astype(np.float64), own=True)
    case = case if weights is None else case.with_(task_weights=weights)
    expect(
        case.truth.any(),
        "net",
        "one in which something depends on the parameters",
        "a meta-gradient of 0 throughout: dead units?",
    )
    return case


def random_batch(net, rng):
    """Two tasks of normal inputs, with at least as many examples as outputs."""
    expect(net.input_shape is not None, "batch", "a Batch where the net has no input_shape", "None")
    (outputs,) = net.output_shape(net.input_shape)
    N = max(outputs, 5)
    return Batch(*normal_inputs(net, 2, N, rng), *normal_inputs(net, 2, N + 2, rng))
