"""A user's loss in JAX as loss, gradient and Hessian-vector product."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np

from refmaml.autodiff import jax_autodiff
from refmaml.doctor.own_loss.model import Pass
from refmaml.doctor.own_loss.user_loss import expect_number


class JaxFunctions:
    """loss, gradient and product by jax.grad and jax.jvp, forward over reverse.

    The functions are compiled where the loss can be traced.
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

    def compile(self, w, x, y):
        """Compile, unless the loss cannot be traced."""
        plain = self.gradient, self.product
        self.gradient, self.product = map(jax.jit, plain)
        try:
            self.pass_at(w, x, y, 0, False)
            self.compiled = True
        except Exception:  # not traceable, or x holds more than arrays
            self.gradient, self.product = plain

    def without_compiler(self):
        """From here on without a compiler."""
        self.gradient, self.product = jax.value_and_grad(self.value), self.product_of_gradient
        self.compiled = False

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
                v = jnp.asarray(v)
                return np.asarray(self.loss.guarded(x, lambda: self.product(at, v, *arguments)))

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
