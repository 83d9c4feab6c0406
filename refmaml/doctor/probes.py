"""The cases everybody is tried on, chosen so that mistakes show.

On an adapted net, on zero inputs or with a tiny step size, most wrong meta-gradients equal the right one to many digits. So here
alpha |H| is about 0.6 (for iMAML |H| / lambda 0.3), inputs and parameters are random, and the numbers of tasks, of support and query
examples, of outputs and of inner steps are distinct primes, so that a stray factor can be told by its value.
"""

from dataclasses import replace

import numpy as np

from refmaml import kernels
from refmaml.batch import Batch
from refmaml.doctor.cases import Case, sharpness
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
from refmaml.methods import CAVIA, IMAML
from refmaml.tasks.orthonormal import random_orthonormal

PRIMES = (3, 5, 7, 11, 13)
CURVATURE, PROXIMAL = (
    0.6,
    0.3,
)  # alpha |H|; |H| / lambda, at which a hundred inner steps solve the proximal problem to rounding
DRAWS, FAR = (
    12,
    1e-5,
)  # how often inputs are drawn, until no kink is nearer than this: float32 rounds 80 times finer
CONTEXT = 2  # numbers in a task's context, where the method adapts one
SOLVED = {
    "inner_steps": 60,
    "inner_tol": 0.0,
    "solver": "gradient_descent",
    "cg_steps": 20,
    "cg_tol": 1e-15,
}


def extents(method):
    """(tasks, outputs, support examples, query examples): distinct primes, none of them the number of inner steps."""
    return [p for p in PRIMES if p != getattr(method, "inner_steps", 0)][:4]


def quadratic(method, features, outputs):
    """Least squares: 1/2 mean (w x - y)^2, a quadratic whose Hessian X'X / N is random, symmetric and positive definite."""
    context = [Context(CONTEXT)] if isinstance(method, CAVIA) else []
    return Sequential(
        [*context, Linear(features + CONTEXT * len(context), 1, bias=False)],
        MSE(factor=0.5),
        (features,),
    )


def two_layer(method, features, outputs):
    """The two-layer linear model: its mixed second derivatives carry ANIL's and MAML's second-order term."""
    context = [Context(CONTEXT)] if isinstance(method, CAVIA) else []
    layers = [
        *context,
        Linear(features + CONTEXT * len(context), CONTEXT, bias=False),
        Linear(CONTEXT, 1, bias=False),
    ]
    return Sequential(layers, MSE(factor=0.5), (features,))


def mlp(method, features, outputs):
    """A tanh net with softmax cross-entropy."""
    context = [Context(CONTEXT)] if isinstance(method, CAVIA) else []
    layers = [*context, Linear(features + CONTEXT * len(context), 13), Tanh(), Linear(13, outputs)]
    return Sequential(layers, CrossEntropy(), (features,))


def conv(method, features, outputs):
    """Convolution, batch-norm, ReLU, max-pooling and a head. A bias before batch-norm would have a gradient of pure rounding."""
    film = [FiLM(3, CONTEXT)] if isinstance(method, CAVIA) else []
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


PROBES = {"quadratic": quadratic, "two-layer": two_layer, "mlp": mlp, "conv": conv}


def probes(method, names=None, seed=0):
    """(cases, [(name, why it was left out), ...]) for the probes called `names` (None: all). Raises ArgumentError."""
    names = tuple(PROBES) if names is None else tuple(names)
    for name in names:
        expect(name in PROBES, "probes", f"some of {', '.join(PROBES)}", repr(name))
    cases, left_out = [], []
    for name in names:
        try:
            cases.append(probe(name, method, seed))
        except ArgumentError as error:
            left_out.append((name, str(error)))
    return cases, left_out


def probe(name, method, seed=0):
    """One probe: drawn until it is far from kinks, or the farthest of DRAWS."""
    best = None
    for draw in range(DRAWS):
        rng = np.random.default_rng([seed, list(PROBES).index(name), draw])
        case = drawn(name, method, rng)
        if best is None or case.margin > best.margin:
            best = case
        if best.margin > FAR:
            break
    return best


def drawn(name, method, rng):
    """One draw of a probe."""
    T, C, N, M = extents(method)
    net = PROBES[name](method, C, C)
    theta = net.init(rng, np.float64) + (0.5 if name == "two-layer" else 0.1) * rng.standard_normal(
        net.num_params
    )
    inputs = spectral_inputs if name == "quadratic" else normal_inputs
    batch = Batch(*inputs(net, T, N, rng), *inputs(net, T, M, rng))
    given, method = method, visible(fitting(method, net), net, theta, batch)
    return Case(name, net, method, meta_start(method, net, theta, rng), batch, given=given)


def normal_inputs(net, T, N, rng):
    """Standard normal inputs (T, N, ...), and targets of the kind the loss takes."""
    (D,) = net.output_shape(net.input_shape)
    x = rng.standard_normal((T, N, *net.input_shape))
    if isinstance(net.loss_function, CrossEntropy):
        return x, rng.integers(0, D, (T, N))
    return x, rng.standard_normal((T, N, D))


def spectral_inputs(net, T, N, rng):
    """X = sqrt(N) U diag(sqrt(s)) V', so that X'X / N = V diag(s) V' with s between 0.5 and 1.2; targets standard normal."""
    (P,) = net.input_shape
    x = [
        np.sqrt(N)
        * (random_orthonormal(rng, N, P) * np.sqrt(rng.uniform(0.5, 1.2, P)))
        @ random_orthonormal(rng, P, P).T
        for _ in range(T)
    ]
    return np.stack(x), rng.standard_normal((T, N, 1))


# ---- the method on a probe -------------------------------------------------------------------------------------------


def fitting(method, net):
    """The method with those of its patterns that select something in this net. Raises ArgumentError where none adapts."""
    changes = {}
    for name in ("adapts", "frozen"):
        wanted = getattr(method, name, ())
        kept = tuple(pattern for pattern in wanted if selects(net, pattern))
        expect(
            kept or not wanted or name == "frozen",
            "adapts",
            "patterns that select a parameter of this probe",
            repr(wanted),
        )
        changes |= {name: kept} if kept != wanted else {}
    return replace(method, **changes) if changes else method


def selects(net, pattern):
    """Whether a pattern selects any parameter of the net."""
    try:
        return bool(net.mask((pattern,)).any())
    except ArgumentError:
        return False


def moving(method, net):
    """1 where a parameter adapts, 0 elsewhere, (P,)."""
    chosen = net.mask(method.adapts) if hasattr(method, "adapts") else np.ones(net.num_params, bool)
    frozen = getattr(method, "frozen", ())
    return (chosen & ~net.mask(frozen) if frozen else chosen).astype(float)


def visible(method, net, theta, batch):
    """The method with a step size (iMAML: a regularization, and solves run down to rounding) at which curvature shows."""
    size = sharpness(net, theta, batch, moving(method, net))
    if isinstance(method, IMAML):
        return proximal(method, net, theta, batch, size)
    if hasattr(method, "inner_lr") and getattr(method, "optimizer", "sgd") == "sgd":
        return replace(method, inner_lr=float(f"{CURVATURE / size:.3g}"))
    return method


def proximal(method, net, theta, batch, size):
    """iMAML with a lambda at which |H| / lambda is PROXIMAL, or as many times smaller as its inner solve needs to reach rounding."""
    for halvings in range(6):
        strength = float(f"{2**halvings * size / PROXIMAL:.3g}")
        tried = replace(
            method, regularization=strength, inner_lr=float(f"{0.9 / strength:.3g}"), **SOLVED
        )
        if tried.solve(net, theta, batch.x_support, batch.y_support)[2].max() < 1e-12:
            break
    return tried


def meta_start(method, net, theta, rng):
    """The meta-parameters: theta, and learned step sizes each moved a little, so that no two are alike."""
    meta = method.init(net, theta).copy()
    meta[net.num_params :] *= rng.uniform(0.6, 1.2, len(meta) - net.num_params)
    return meta


def own_case(net, method, batch, seed):
    """The user's own net and method as they are, on their batch or on one drawn at random. Raises ArgumentError where nothing shows."""
    rng = np.random.default_rng([seed, len(PROBES)])
    net = net.with_kernels(
        kernels.reference() if net.kernels.on_device else net.kernels
    )  # the truth is worked out with NumPy's arrays
    if batch is None:
        expect(
            net.input_shape is not None, "batch", "a Batch where the net has no input_shape", "None"
        )
        (outputs,) = net.output_shape(net.input_shape)
        batch = Batch(
            *normal_inputs(net, 2, max(outputs, 5), rng),
            *normal_inputs(net, 2, max(outputs, 5) + 2, rng),
        )
    theta = net.init(rng, np.float64)
    case = Case(
        "own net",
        net,
        method,
        meta_start(method, net, theta, rng),
        batch.astype(np.float64),
        own=True,
    )
    expect(
        case.truth.any(),
        "net",
        "one in which something depends on the parameters",
        "a meta-gradient of 0 throughout: dead units?",
    )
    return case
