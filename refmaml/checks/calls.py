"""Calling a function of the user: its arguments, its errors, and its repetition."""

import inspect
import traceback
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from refmaml.checks.trees import (
    Tree,
    children,
    described,
    framework_of,
    in_precision,
    is_number,
    kind_of,
    libraries,
)
from refmaml.doctor.frameworks import first_line
from refmaml.doctor.verdicts import WRONG
from refmaml.errors import ArgumentError, expect

LOSS_FIRST = "the pair was read as (loss, gradient)"
# Relative. Solvers that stop at 1e-8 and sums in float32 (1e-7) stay below this; a term
# that is left out or counted twice changes a derivative by more.
TOLERANCE = {"float64": 1e-6, "float32": 1e-3}


def check_settings(precision, tol, seed):
    """The tolerance. Raises ArgumentError for a wrong precision, tol or seed."""
    known = precision in TOLERANCE
    expect(known, "precision", "float64 or float32", lambda: repr(precision))
    fits = tol is None or (is_number(tol) and 0 < tol < 1)
    expect(fits, "tol", "a number between 0 and 1", lambda: repr(tol))
    whole = isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0
    expect(whole, "seed", "an integer >= 0", lambda: repr(seed))
    return TOLERANCE[precision] if tol is None else float(tol)


def check_function(fn, argument, form):
    """Raise ArgumentError unless fn can be called."""
    expect(callable(fn), argument, f"a function {form}", lambda: type(fn).__name__)


def takes(fn, count):
    """Whether a function can be called with `count` positional arguments."""
    try:
        inspect.signature(fn).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # compiled, without a signature
        return True
    return True


def same_as_bound(fn, form, argument, counts):
    """The first of `counts` that fn takes. Raises ArgumentError where it takes none."""
    for count in counts:
        if takes(fn, count):
            return count
    raise ArgumentError(f"{argument}: expected a function {form}, got {signature_text(fn)}")


def signature_text(fn):
    """A function's arguments, for an error message."""
    return f"one of {inspect.signature(fn)}"


class Scope:
    """What every call needs: float64 enabled in JAX, where any array is JAX's."""

    def __init__(self, *values):
        self.has_jax = "jax" in libraries(*values)

    def __enter__(self):
        self.stack = ExitStack()
        if self.has_jax:
            from refmaml.autodiff.jax_autodiff import float64

            self.stack.enter_context(float64())
        return self

    def __exit__(self, *error):
        self.stack.close()


def called(fn, argument, expected, *values):
    """fn(*values). Raises ArgumentError in one line for what it raises."""
    try:
        return fn(*values)
    except (Exception, SystemExit) as error:
        raise ArgumentError(
            f"{argument}: expected {expected}, got {first_line(error)}{user_line(error)}"
        ) from error


def user_line(error):
    """The file and line of the user's own code in which an exception arose."""
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if "refmaml/checks" not in f.filename.replace("\\", "/")
    ]
    return f" ({frames[0].filename}:{frames[0].lineno})" if frames else ""


def scalar(value, what):
    """A number, an array of one number, or a tensor of one, as float.

    Raises ArgumentError in one line.
    """
    if not is_number(value):
        expect(framework_of(value), what, "a number", lambda: described(value))
        one = int(np.prod(tuple(value.shape))) == 1 and "complex" not in kind_of(value)
        expect(one, what, "one real number", lambda: described(value))
        value = value.detach() if hasattr(value, "detach") else value
        value = value.reshape(())
    number = float(value)
    expect(np.isfinite(number), what, "a finite number", lambda: f"{number}")
    return number


def is_scalar(value):
    """Whether a value is a number or an array of one."""
    return is_number(value) or (bool(framework_of(value)) and int(np.prod(tuple(value.shape))) == 1)


class LossAndGradient:
    """fn(params, batch) -> (gradient, loss), as a function of a vector.

    tree    the Tree of params
    calls   how often fn was called
    ambiguous, swapped  whether both are single numbers; whether then the loss is first
    absent  names whose gradient was None
    """

    def __init__(self, fn, params, batch, precision, name="params"):
        form = "fn(params, batch) or fn(params)"
        check_function(fn, "fn", form)
        self.fn, self.batch, self.precision, self.argument = fn, batch, precision, "fn"
        self.tree, self.calls, self.absent = Tree(params, name), 0, ()
        self.ambiguous = self.swapped = False
        orders = (1, 2) if batch is None else (2, 1)
        self.arguments = same_as_bound(fn, form, "fn", orders)

    def __call__(self, vector):
        """(gradient (n,), loss) at a vector."""
        value = self.value(vector)
        pair = isinstance(value, tuple | list) and len(value) == 2
        if isinstance(value, dict) and {"grad", "loss"} <= set(value):
            value, pair = (value["grad"], value["loss"]), True
        expect(pair, self.argument, "(gradient, loss)", lambda: described(value))
        gradient, loss = value
        self.ambiguous = is_scalar(gradient) and is_scalar(loss)
        loss_first = self.swapped if self.ambiguous else is_scalar(gradient)
        if loss_first:  # as jax.value_and_grad returns it
            gradient, loss = loss, gradient
        flat, self.absent = self.tree.flat(gradient, "gradient")
        self.expect_finite(flat)
        return flat, scalar(loss, "loss")

    def value(self, vector):
        """What fn returns at a vector."""
        self.calls += 1
        given = [self.tree.build(vector, self.precision)]
        if self.arguments == 2:
            given.append(in_precision(self.batch, self.precision))
        return called(self.fn, self.argument, "a gradient and a loss", *given)

    def loss(self, vector):
        """The loss alone."""
        return self(vector)[1]

    def expect_finite(self, flat):
        """Raise ArgumentError naming the first array with NaN or infinity."""
        for leaf in self.tree.leaves:
            bad = int((~np.isfinite(flat[leaf.place])).sum())
            name = f"gradient[{leaf.name!r}]" if leaf.name else "gradient"
            expect(not bad, name, "finite numbers", f"{bad} that are NaN or infinite")


def in_either_order(problem, examine):
    """examine(); where it is wrong and the pair ambiguous, that of (loss, gradient).

    The second one counts only where it is right.
    """
    report = examine()
    if report.verdict != WRONG or not problem.ambiguous:
        return report
    problem.swapped = True
    other = examine()
    return replace(other, remarks=(*other.remarks, LOSS_FIRST)) if other.ok else report


def lengths_of(batch):
    """{length: where} of the axes of all arrays in a batch, the first place of each."""
    found = {}

    def visit(value, name):
        inner = children(value)
        if inner is not None:
            if not isinstance(value, dict) and len(inner) > 1:
                found.setdefault(len(inner), f"the length of {name}")
            for key, child in inner:
                visit(child, f"{name}[{key!r}]")
        elif framework_of(value):
            for axis, length in enumerate(value.shape):
                found.setdefault(int(length), f"the length of axis {axis} of {name}")

    visit(batch, "batch")
    return found
