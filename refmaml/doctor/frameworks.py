"""Arrays of NumPy, PyTorch, JAX and CuPy, going out and coming back, and one clear line for what cannot be read.

Arrays go out as fresh copies, in the user's own framework and precision. They come back over DLPack, the protocol all four share.
"""

from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from refmaml import layers
from refmaml.autodiff import formulas, jax_autodiff, torch_autodiff
from refmaml.doctor.layouts import Layout
from refmaml.doctor.problem import Engine, Problem
from refmaml.errors import ArgumentError, expect

CPU = 1  # DLPack's number for it


class Framework(NamedTuple):
    """name; array: NumPy array -> the framework's own, a copy; back: its array -> NumPy's, whatever became of its flags;
    loss(net) -> loss(params, x, y) of one task, None where Engine does it; scope: what a call has to run inside of;
    kernels: what the net of a problem computes with, None: as it comes."""

    name: str
    array: Any
    back: Any
    loss: Any = None
    scope: Any = nullcontext
    kernels: Any = None


def framework(name):
    """The framework called `name`. Raises ArgumentError for another name, or where it cannot be imported."""
    makers = {
        "numpy": numpy_framework,
        "torch": torch_framework,
        "jax": jax_framework,
        "cupy": cupy_framework,
    }
    expect(name in makers, "framework", f"one of {', '.join(makers)}", repr(name))
    reason = formulas.why_not(name)
    expect(reason is None, "framework", f"{name} to be installed", reason)
    return makers[name]()


def numpy_framework():
    return Framework("numpy", np.array, np.asarray)


def cupy_framework():
    cupy = import_module("cupy")
    return Framework("cupy", cupy.array, cupy.asnumpy)


def torch_framework():
    torch = import_module("torch")
    return Framework(
        "torch",
        lambda a: torch.from_numpy(np.array(a)),
        lambda a: a.detach().cpu().numpy(),
        torch_loss,
    )


def torch_loss(net):
    """loss(params, x, y) of one task."""
    f = torch_autodiff.framework()

    def loss(params, x, y):
        return formulas.named_loss(f, net, params, x, y, formulas.FORWARD, formulas.LOSSES)

    return loss


def jax_framework():
    jnp = import_module("jax.numpy")
    return Framework("jax", jnp.asarray, np.asarray, jax_loss, jax_autodiff.float64)


def jax_loss(net):
    """loss(params, x, y) of one task. Maxima by comparisons: the derivative of a maximum asks which entry equals it, and XLA may compute
    that entry a second time, rounded otherwise, so that none does."""
    from jax.lax import stop_gradient

    f = jax_autodiff.framework()

    def max_pool2d(f, layer, w, x):
        (kH, kW), (sH, sW) = layer.geometry()
        Ho, Wo = layer.output_shape(tuple(x.shape[1:]))[1:]
        best = None
        for p in range(kH):
            for q in range(kW):
                seen = x[:, :, p : p + sH * (Ho - 1) + 1 : sH, q : q + sW * (Wo - 1) + 1 : sW]
                best = seen if best is None else f.xp.where(seen > best, seen, best)
        return best

    def cross_entropy(f, loss, z, labels):
        shifted = z - stop_gradient(
            z.max(axis=1, keepdims=True)
        )  # the loss does not depend on the shift
        log_p = shifted - f.xp.log(f.xp.exp(shifted).sum(axis=1, keepdims=True))
        scale = loss.scale(*z.shape)
        return -scale * f.xp.take_along_axis(log_p, labels[:, None], axis=1).sum()

    forward = formulas.FORWARD | {layers.MaxPool2d: max_pool2d}
    losses = formulas.LOSSES | {layers.CrossEntropy: cross_entropy}
    return lambda params, x, y: formulas.named_loss(f, net, params, x, y, forward, losses)


# ---- going out -------------------------------------------------------------------------------------------------------


class TaskBatch(NamedTuple):
    """The tasks a function is given: arrays of its framework, the task axis first."""

    x_support: Any
    y_support: Any
    x_query: Any
    y_query: Any


def outgoing(case, lib, layout):
    """(problem, params, batch) of a case in framework `lib`, every array a fresh copy in the case's precision."""

    def cast(a):
        return lib.array(a.astype(case.dtype) if a.dtype.kind == "f" else a.astype(np.int64))

    params = {name: cast(layout.theirs(name, a)) for name, a in case.named(case.meta).items()}
    b = case.batch
    batch = TaskBatch(
        cast(layout.images(b.x_support)),
        cast(b.y_support),
        cast(layout.images(b.x_query)),
        cast(b.y_query),
    )
    return problem_of(case, lib, layout), params, batch


def problem_of(case, lib, layout):
    """The Problem of a case."""

    def of_ours(function):
        def call(params, x, y, *more):
            ours = [
                {name: layout.ours(name, a) for name, a in named.items()}
                for named in (params, *more)
            ]
            return function(ours[0], layout.one_task(x), y, *ours[1:])

        return call

    def by_name(function):
        return lambda *arguments: {
            name: layout.theirs(name, a) for name, a in of_ours(function)(*arguments).items()
        }

    net = case.net if lib.kernels is None else case.net.with_kernels(lib.kernels)
    if lib.loss is not None:
        return Problem(case.name, case.method, net, lib.name, of_ours(lib.loss(net)))
    engine = Engine(net, lib.array, lib.back)
    return Problem(
        case.name,
        case.method,
        net,
        lib.name,
        of_ours(engine.loss),
        by_name(engine.gradient),
        by_name(engine.hvp),
    )


# ---- coming back -----------------------------------------------------------------------------------------------------


def incoming(value, what):
    """Any framework's array as a fresh NumPy array of float32 or float64. Raises ArgumentError in one line for what is none."""
    expect(value is not None, what, "an array", "None")
    expect(
        hasattr(value, "shape") and hasattr(value, "dtype"),
        what,
        "an array",
        f"{type(value).__name__}",
    )
    expect(
        not getattr(value, "requires_grad", False),
        what,
        "a plain tensor",
        "one that still requires grad (return it as .detach(), or take it from torch.autograd.grad without create_graph)",
    )
    kind = str(value.dtype).rpartition(".")[2].strip("'>")
    expect(
        kind in ("float32", "float64"),
        what,
        "float64 or float32 numbers",
        lambda: f"{kind}{TOO_COARSE.get(kind, '')}",
    )
    try:
        if not isinstance(value, np.ndarray) and value.__dlpack_device__()[0] != CPU:
            value = value.get() if hasattr(value, "get") else value.cpu()
        return np.array(value if isinstance(value, np.ndarray) else np.from_dlpack(value))
    except Exception as error:
        raise ArgumentError(
            f"{what}: expected an array that can be read, got {type(value).__name__}: {first_line(error)}"
        ) from None


TOO_COARSE = {
    kind: ", which holds too few digits to judge a meta-gradient by (compute in float32 or float64)"
    for kind in ("bfloat16", "float16")
}


def first_line(error):
    """The first line of an exception's text, with its class, short enough for a line."""
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:200]


@contextmanager
def watched(lib, params, batch):
    """Raise ArgumentError if an input changed inside the block, naming it."""
    inputs = {
        **{f"params[{name!r}]": a for name, a in params.items()},
        **{f"batch.{name}": a for name, a in batch._asdict().items()},
    }
    before = {name: np.array(lib.back(a)) for name, a in inputs.items()}
    yield
    for name, a in inputs.items():
        expect(
            np.array_equal(before[name], lib.back(a), equal_nan=True),
            name,
            "inputs that are left as they are",
            "a function that writes into them (work on a copy)",
        )


__all__ = [
    "Framework",
    "Layout",
    "TaskBatch",
    "framework",
    "incoming",
    "outgoing",
    "watched",
    "first_line",
]
