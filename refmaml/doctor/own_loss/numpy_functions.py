"""A user's loss in NumPy: the gradient given, or by the complex step.

    Im L(w + ih e_j) / h   the j-th derivative, exact to rounding, of an analytic loss
    Im g(w + ihv) / h      H v, exact to rounding, of an analytic gradient
    H v by 4th-order differences of gradients where the gradient is not analytic
Source of the complex step: Squire, Trapp 1998."""

import warnings
from contextlib import contextmanager
from copy import copy

import numpy as np

from refmaml.doctor.frameworks import first_line
from refmaml.doctor.own_loss.differences import best_difference, product_by_differences
from refmaml.doctor.own_loss.model import Pass
from refmaml.doctor.own_loss.trees import tree_of
from refmaml.doctor.own_loss.user_loss import expect_number
from refmaml.errors import ArgumentError, expect

TINY = 1e-100  # of the complex step: its square is 0 in float64
AGREE = 1e-6  # relative error of differences at which a complex step counts as right
NEEDED = (
    "gradient=, a function (params, x, y) -> the loss's gradient, or a loss that takes "
    "complex parameters (no abs, maximum, float, np.empty of floats)"
)


class NumpyFunctions:
    """loss, gradient and product of a loss in NumPy.

    loss       a UserLoss
    gradient   the user's gradient(params, x, y), or None: by the complex step
    analytic   whether products are a complex step of that gradient
    step       of the differences that take its place
    """

    random = module = None

    def __init__(self, loss, parameters, gradient=None):
        self.loss, self.parameters, self.given = loss, parameters, gradient
        self.analytic, self.step = False, 1e-3

    @property
    def uses_differences(self):
        """Whether products are differences of gradients."""
        return not self.analytic

    def with_smaller_step(self, factor):
        """The same functions with a smaller step of the differences."""
        other = copy(self)
        other.step = self.step / factor
        return other

    def choose(self, w, x, y):
        """Find out what the loss or the gradient can do, at w on one task."""
        v = np.random.default_rng(0).standard_normal(len(w))
        v /= np.linalg.norm(v)
        if self.given is None:
            by_differences = best_difference(lambda s: self.value(w + s * v, x, y))
            wanted, got = by_differences.value, self.slope_by_complex_step(w, v, x, y)
            right = got is not None and abs(got - wanted) <= AGREE * abs(wanted) + 1e-12
            expect(right, "gradient", NEEDED, "no gradient, and a loss that does not")
        found = best_difference(lambda s: self.gradient(w + s * v, x, y))
        self.step = found.step
        if self.given is not None:
            try:
                with np.errstate(all="ignore"):
                    exact = self.gradient(w + 1j * TINY * v, x, y).imag / TINY
            except Exception:  # the user's gradient takes real numbers only: differences
                return
            size = np.abs(found.value).max()
            self.analytic = bool(np.abs(exact - found.value).max() <= AGREE * size and size > 0)

    def slope_by_complex_step(self, w, v, x, y):
        """The derivative along v; None where the loss takes no complex numbers."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)  # float(complex)
                value = self.value(w + 1j * TINY * v, x, y)
        except Exception:  # the user's loss takes real numbers only: `choose` says so
            return None
        return value.imag / TINY if np.iscomplexobj(value) else None

    def value(self, w, x, y):
        """The loss at w (P,), real or complex."""
        value = self.loss.called(self.user(w), x, *self.data(x, y, w.real.dtype))
        a = np.asarray(value) if value is not None else None
        is_number = a is not None and a.dtype.kind in "fc"
        expect_number(value, None if a is None or a.dtype == object else a.shape, is_number)
        return a.reshape(())[()]

    def user(self, w):
        """The user's structure with parameters w."""
        return self.parameters.user([np.array(a) for a in self.parameters.arrays(w)])

    def data(self, x, y, dtype):
        """The x and y of one task in a precision, made once."""
        return [d.converted(("numpy", dtype.char), self.to_user(dtype)) for d in (x, y)]

    def gradient(self, w, x, y):
        """The gradient (P,) at w, real or complex."""
        if self.given is None:
            steps = TINY * np.eye(len(w))
            return np.array([self.value(w + 1j * step, x, y).imag / TINY for step in steps])
        arrays = self.data(x, y, w.real.dtype)
        try:
            found = self.given(self.user(w), *arrays)
        except Exception as error:
            raise ArgumentError(
                f"gradient: expected the loss's gradient, got {first_line(error)}"
            ) from error
        return self.flat(found, w.dtype)

    def flat(self, found, dtype):
        """(P,) of the user's gradient by name. Raises ArgumentError in one line."""
        tree = tree_of(found)
        named = dict(zip((n or "params" for n in tree.names), tree.leaves, strict=True))
        missing = [n for n in self.parameters.shapes if n not in named]
        expect(not missing, "gradient", "the names of params", f"nothing for {missing[:1]}")
        parts = []
        for name, shape in self.parameters.shapes.items():
            a = np.asarray(named[name])
            what = f"gradient[{name!r}]"
            expect(a.dtype.kind in "fc", what, "an array of numbers", f"{a.dtype}")
            expect(a.shape == shape, what, f"shape {shape}", f"{a.shape}")
            parts.append(a.ravel())
        return np.concatenate(parts).astype(dtype, copy=False)

    def pass_at(self, w, x, y, number, products):
        """The Pass of one task at w (P,), in w's precision."""

        def product(v):
            if self.analytic:
                with np.errstate(all="ignore"):
                    return self.gradient(w + 1j * TINY * v, x, y).imag / TINY
            return product_by_differences(lambda w: self.gradient(w, x, y), w, v, self.step)

        gradient = self.gradient(w, x, y).astype(w.dtype, copy=False)
        return Pass(float(self.value(w, x, y)), gradient, product if products else None)

    # ---- the user's arrays -----------------------------------------------------------

    def to_user(self, dtype):
        """A NumPy array -> a copy, real numbers in a dtype."""

        def convert(a):
            if not isinstance(a, np.ndarray):
                return a
            return a.astype(dtype) if a.dtype.kind == "f" else a.copy()

        return convert

    @contextmanager
    def around_call(self, dtype):
        """Nothing."""
        yield
