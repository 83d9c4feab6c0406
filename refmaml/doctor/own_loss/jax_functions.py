"""A user's loss in JAX as loss, gradient and Hessian-vector product."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np

from refmaml.autodiff import jax_autodiff
from refmaml.doctor.own_loss.model import Pass
from refmaml.doctor.own_loss.user_loss import expect_number

AGREE = 1e-9  # relative difference of a compiled gradient from one that is not: sums in
# another order differ by less, an operation that XLA has computed twice by more


class JaxFunctions:
    """loss, gradient and product by jax.grad and jax.jvp, forward over reverse.

    The functions are compiled where the loss can be traced, and where the compiled
    gradient is the same (see `compile_if_same`).
    """

    random = module = None
    uses_differences = False

    def __init__(self, loss, parameters):
        self.loss, self.parameters = loss, parameters
        self.gradient = jax.value_and_grad(self.value)
        self.product = self.product_of_gradient
        self.compiled = False

    def value(self, w, x, y):
        """The loss at a flat vector w (P,)."""
        parts = [w[s].reshape(self.parameters.shapes[n]) for n, s in self.parameters.slices.items()]
        value = self.loss(self.parameters.user(parts), x, y)
        shape = getattr(value, "shape", () if isinstance(value, float) else None)
        real = shape is not None and jnp.issubdtype(jnp.result_type(value), jnp.floating)
        expect_number(value, shape, real)
        return jnp.reshape(value, ())

    def product_of_gradient(self, w, v, x, y):
        """H v by a forward derivative of the gradient."""
        return jax.jvp(lambda w: jax.grad(self.value)(w, x, y), (w,), (v,))[1]

    def compile_if_same(self, w, x, y):
        """Compile, unless the loss cannot be traced or the compiled gradient differs.

        Returns a remark where it differs, else "".
        """
        with jax_autodiff.float64():
            arguments = jnp.asarray(w), self.data(x, w.dtype), self.data(y, w.dtype)
            exact = np.asarray(self.gradient(*arguments)[1])
            gradient = jax.jit(self.gradient)
            try:
                fast = np.asarray(gradient(*arguments)[1])
            except Exception:  # not traceable, or x holds more than arrays
                return ""
            if np.abs(fast - exact).max() > AGREE * np.abs(exact).max():
                return (
                    "the loss's gradient under jax.jit differs from the one without it by "
                    f"{np.abs(fast - exact).max() / np.abs(exact).max():.0e}: the one without "
                    "it is taken"
                )
            self.gradient, self.product = gradient, jax.jit(self.product_of_gradient)
        self.compiled = True
        return ""

    def data(self, x, dtype):
        """The x or y of one task as arrays of JAX, made once."""
        return x.converted(("jax", np.dtype(dtype).char), self.to_user(dtype))

    def pass_at(self, w, x, y, number, products):
        """The Pass of one task at w (P,), in w's precision."""
        with jax_autodiff.float64():
            arguments = self.data(x, w.dtype), self.data(y, w.dtype)
            at = jnp.asarray(w)
            value, gradient = self.loss.guarded(x, lambda: self.gradient(at, *arguments))
            gradient = np.asarray(gradient)

        def product(v):
            with jax_autodiff.float64():
                return np.asarray(self.product(at, jnp.asarray(v), *arguments))

        return Pass(float(value), gradient, product if products else None)

    def with_smaller_step(self, factor):
        """These functions: they have no step of their own."""
        return self

    # ---- the user's arrays -----------------------------------------------------------

    def to_user(self, dtype):
        """A NumPy array -> a new array of JAX, real numbers in a dtype."""

        def convert(a):
            if not isinstance(a, np.ndarray):
                return a
            return jnp.asarray(a.astype(dtype) if a.dtype.kind == "f" else a)

        return convert

    @contextmanager
    def around_call(self, dtype):
        """Nothing: see Framework.scope."""
        yield
