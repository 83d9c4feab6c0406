"""Arrays of NumPy, PyTorch, JAX and CuPy, to the user's function and back.

Arrays are passed as fresh copies, in the user's own framework and precision. They come
back over DLPack, the protocol that all four share.
"""

from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from refmaml.autodiff import formulas, jax_autodiff
from refmaml.doctor.nets_in_frameworks import net_in_jax, net_in_torch
from refmaml.doctor.problem import Engine, Problem
from refmaml.errors import ArgumentError, expect

CPU = 1  # DLPack's number for it
MOST_SHOWN = 240  # characters of an exception's text
EXTRAS = {"cupy": "pip install refmaml[cuda12] or refmaml[cuda13]"}  # not named as the module
TOO_FEW_DIGITS = {
    kind: ", which holds too few digits to judge a meta-gradient by (compute in float32 or float64)"
    for kind in ("bfloat16", "float16")
}


class Framework(NamedTuple):
    """A library of arrays.

    array      NumPy array -> an array of the library, a copy
    to_numpy   the way back, for arrays with or without a graph, on any device
    net        net -> NetIn, its loss and outputs; None where Engine provides them
    scope      a context manager that every call needs
    kernels    what the net of a problem computes with; None: the net's own kernels
    """

    name: str
    array: Any
    to_numpy: Any
    net: Any = None
    scope: Any = nullcontext
    kernels: Any = None


def framework(name):
    """The framework called `name`.

    Raises ArgumentError for an unknown name, or where it cannot be imported.
    """
    makers = {
        "numpy": numpy_framework,
        "torch": torch_framework,
        "jax": jax_framework,
        "cupy": cupy_framework,
    }
    expect(name in makers, "framework", f"one of {', '.join(makers)}", repr(name))
    reason = import_error(name)
    expect(reason is None, "framework", f"{name} to be installed", reason)
    return makers[name]()


def import_error(name):
    """None where a framework imports, otherwise one line that says why it does not."""
    if name not in EXTRAS:
        return formulas.why_not(name)
    try:
        import_module(name)
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        return f"{name} cannot be imported ({error}); it comes with {EXTRAS[name]}"
    return None


def numpy_framework():
    """NumPy."""
    return Framework("numpy", np.array, np.asarray)


def cupy_framework():
    """CuPy: arrays on the GPU."""
    cupy = import_module("cupy")
    return Framework("cupy", cupy.array, cupy.asnumpy)


def torch_framework():
    """PyTorch."""
    torch = import_module("torch")
    return Framework(
        "torch",
        lambda a: torch.from_numpy(np.array(a)),
        lambda a: a.detach().cpu().numpy(),
        net_in_torch,
    )


def jax_framework():
    """JAX, with float64 enabled during a call."""
    jnp = import_module("jax.numpy")
    return Framework("jax", jnp.asarray, np.asarray, net_in_jax, jax_autodiff.float64)


# ---- to the user's function ----------------------------------------------------------


class TaskBatch(NamedTuple):
    """The tasks that a function receives: its own arrays, the task axis first."""

    x_support: Any
    y_support: Any
    x_query: Any
    y_query: Any


class Arguments(NamedTuple):
    """What a call of the user's function receives.

    inputs  {text: [arrays]}: the arrays of params and batch, by the words for them
    """

    problem: Any
    params: Any
    batch: Any
    inputs: dict


def arguments_of(case, lib, layout):
    """The Arguments of a case in framework `lib`.

    Every array is a fresh copy in the case's precision.
    """

    def cast(a):
        return lib.array(a.astype(case.dtype) if a.dtype.kind == "f" else a.astype(np.int64))

    params = {name: cast(layout.to_user(name, a)) for name, a in case.named(case.meta).items()}
    b = case.batch
    batch = TaskBatch(
        cast(layout.images_to_user(b.x_support)),
        cast(b.y_support),
        cast(layout.images_to_user(b.x_query)),
        cast(b.y_query),
    )
    inputs = {
        **{f"params[{name!r}]": [a] for name, a in params.items()},
        **{f"batch.{name}": [a] for name, a in batch._asdict().items()},
    }
    return Arguments(problem_of(case, lib, layout), params, batch, inputs)


def problem_of(case, lib, layout):
    """The Problem of a case, with functions of arrays in the user's layout."""

    def from_user(named):
        return {name: layout.from_user(name, a) for name, a in named.items()}

    def takes_user_layout(function):
        def call(params, x, *more):
            x = layout.images_from_user(x)
            more = [from_user(a) if isinstance(a, Mapping) else a for a in more]
            return function(from_user(params), x, *more)

        return call

    def returns_user_layout(function):
        function = takes_user_layout(function)
        return lambda *arguments: {
            name: layout.to_user(name, a) for name, a in function(*arguments).items()
        }

    net = case.net if lib.kernels is None else case.net.with_kernels(lib.kernels)
    given = case.name, case.shown_method, net, lib.name
    if lib.net is not None:
        functions = lib.net(net)
        return Problem(
            *given,
            takes_user_layout(functions.loss),
            features=takes_user_layout(functions.features),
        )
    engine = Engine(net, lib.array, lib.to_numpy)
    return Problem(
        *given,
        takes_user_layout(engine.loss),
        returns_user_layout(engine.gradient),
        returns_user_layout(engine.hvp),
        takes_user_layout(engine.features),
        returns_user_layout(engine.features_pullback),
    )


@contextmanager
def unchanged_inputs(lib, inputs):
    """Raise ArgumentError, naming the input, if one changes inside the block.

    inputs  {text: [arrays]}; what is no array is not compared
    """
    before = {name: numpy_copies(lib, arrays) for name, arrays in inputs.items()}
    yield
    for name, arrays in inputs.items():
        pairs = zip(before[name], numpy_copies(lib, arrays), strict=True)
        expect(
            all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs),
            name,
            "inputs that are left as they are",
            "a function that writes into them (work on a copy)",
        )


def numpy_copies(lib, arrays):
    """The arrays among some values, as copies in NumPy."""
    return [np.array(lib.to_numpy(a)) for a in arrays if hasattr(a, "dtype")]


# ---- back ----------------------------------------------------------------------------


def numpy_array(value, what):
    """Any framework's array as a fresh NumPy array of float32 or float64.

    Raises ArgumentError in one line for anything else.
    """
    expect(value is not None, what, "an array", "None")
    is_array = hasattr(value, "shape") and hasattr(value, "dtype")
    expect(is_array, what, "an array", f"{type(value).__name__}")
    expect(
        not getattr(value, "requires_grad", False),
        what,
        "a plain tensor",
        "one that still requires grad (return it as .detach(), or take it from "
        "torch.autograd.grad without create_graph)",
    )
    kind = str(value.dtype).rpartition(".")[2].strip("'>")
    expect(
        kind in ("float32", "float64"),
        what,
        "float64 or float32 numbers",
        lambda: f"{kind}{TOO_FEW_DIGITS.get(kind, '')}",
    )
    try:
        if not isinstance(value, np.ndarray) and value.__dlpack_device__()[0] != CPU:
            value = value.get() if hasattr(value, "get") else value.cpu()
        return np.array(value if isinstance(value, np.ndarray) else np.from_dlpack(value))
    except Exception as error:
        raise ArgumentError(
            f"{what}: expected an array that can be read, "
            f"got {type(value).__name__}: {first_line(error)}"
        ) from None


def first_line(error):
    """An exception's class and its text in one line: the first paragraph, cut after a
    sentence, or else after a word, where it is longer than MOST_SHOWN."""
    text = " ".join(str(error).strip().split("\n\n")[0].split())
    if len(text) > MOST_SHOWN:
        sentence = text.rfind(". ", 0, MOST_SHOWN) + 1
        text = text[:sentence] or f"{text[: max(text.rfind(' ', 0, MOST_SHOWN), 1)]} ..."
    return f"{type(error).__name__}: {text}"
