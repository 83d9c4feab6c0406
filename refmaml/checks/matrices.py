"""Products with curvature matrices, from differences of what the user gives.

    Hessian        H v   = d gradient(params + s v) / ds
    Gauss-Newton   w'G v = (J w)' H_z (J v), J the Jacobian of the outputs z and H_z the
                   Hessian of the loss in z
    Fisher         w'F v = mean_n (w . g_n)(v . g_n), g_n the gradient of example n's
                   loss ("empirical")

Source: Martens 2020, "New insights and perspectives on the natural gradient method".
"""

from typing import NamedTuple

import numpy as np

from refmaml.checks import directions, trees
from refmaml.checks.calls import called, is_scalar, number_of_arguments, scalar
from refmaml.checks.trees import described, framework_of, in_precision, numpy_of
from refmaml.errors import expect


class Matrix(NamedTuple):
    """Numbers that a product with some matrix gives, beside the user's.

    name         "the Hessian", ...
    expected     (m,): all products in one vector, or all numbers w'M v
    identity     (m,): the same of the identity
    got          (m,): the same of the user's product
    uncertainty  how far `expected` may be off
    kinks        whether a kink lies at the parameters
    """

    name: str
    expected: np.ndarray
    identity: np.ndarray
    got: np.ndarray
    uncertainty: float
    kinks: bool = False


class Gradient:
    """gradient(params, batch) or gradient(params) as a function of a vector."""

    def __init__(self, fn, tree, precision, loss=None):
        self.tree, self.precision, self.calls = tree, precision, 0
        self.fn = fn if fn is not None else by_autodiff(loss, tree)
        form = "gradient(params, batch) or gradient(params)"
        self.arguments = number_of_arguments(self.fn, form, "gradient", (2, 1))

    def __call__(self, vector, batch):
        """(n,) at a vector."""
        self.calls += 1
        given = [self.tree.build(vector, self.precision)]
        if self.arguments == 2:
            given.append(in_precision(batch, self.precision))
        value = called(self.fn, "gradient", "a gradient", *given)
        if isinstance(value, tuple | list) and len(value) == 2 and len(self.tree.leaves) > 0:
            first, second = value
            if is_scalar(second) and not is_scalar(first):
                value = first
            elif is_scalar(first) and not is_scalar(second):
                value = second
        flat, _ = self.tree.flat(value, "gradient")
        expect(np.isfinite(flat).all(), "gradient", "finite numbers", "NaN or infinity")
        return flat

    def along(self, vector, v, batch):
        """The Derivative of the gradient along v: H v."""
        at_zero = self(vector, batch)
        return directions.derivative(
            lambda s: self(vector + s * v, batch), at_zero, precision=self.precision
        )


def by_autodiff(loss, tree):
    """The gradient of loss(params, batch) by the autodiff of the params' framework.

    Raises ArgumentError where they have none.
    """
    form = "loss(params, batch) or loss(params)"
    count = number_of_arguments(loss, form, "loss", (2, 1))
    kinds = {framework_of(leaf) for leaf in leaves(tree.template)}
    known = kinds <= {"torch"} or kinds <= {"jax"}
    expect(known, "loss", "gradient= instead, for params without autodiff", ", ".join(kinds))
    if kinds == {"jax"}:
        import jax

        return lambda params, batch: jax.grad(loss)(*(params, batch)[:count])
    return lambda params, batch: torch_gradient(loss, params, batch, count)


def leaves(template):
    """The arrays of a value."""
    return [leaf for leaf in trees.leaves_of(template).values() if leaf is not None]


def torch_gradient(loss, params, batch, count):
    """The gradient of a loss by torch.autograd, in the structure of params."""
    import torch

    params = trees.mapped(params, lambda _, a: a.detach().clone().requires_grad_())
    value = loss(*(params, batch)[:count])
    found = iter(torch.autograd.grad(value, leaves(params), allow_unused=True))
    return trees.mapped(params, lambda _, a: next(found))


# ---- matrices ------------------------------------------------------------------------


def hessian_products(gradient, vector, batch, vs):
    """([H v], uncertainty, whether there is a kink) for some vectors."""
    found = [gradient.along(vector, v, batch) for v in vs]
    kinked = any(d.jump > directions.AGREED**0.5 * directions.size(d.value) for d in found)
    return [d.value for d in found], max(d.uncertainty for d in found), kinked


def forms(vs, products):
    """(m,): the numbers v_i' p_j."""
    return np.array([v @ p for v in vs for p in products])


def gauss_newton(outputs, output_loss, tree, vector, batch, precision, vs, products):
    """The Matrix of Gauss-Newton."""
    count = number_of_arguments(outputs, "outputs(params, batch)", "outputs", (2, 1))
    takes_batch = (
        number_of_arguments(output_loss, "output_loss(z, batch)", "output_loss", (2, 1)) == 2
    )
    given, made = in_precision(batch, precision), []

    def z(s, v):
        params = tree.build(vector + s * v, precision)
        value = called(outputs, "outputs", "an array", *(params, given)[:count])
        made.append(value)
        return numpy_of(value, "outputs")

    z0 = z(0.0, vs[0])
    jacobian = [directions.derivative(lambda s, v=v: z(s, v), z0, precision=precision) for v in vs]
    js = [j.value for j in jacobian]

    def loss_at(a):
        argument = trees.like(made[0], a, precision)
        pair = (argument, given)[: 2 if takes_batch else 1]
        return scalar(called(output_loss, "output_loss", "a number", *pair), "output_loss")

    centre = loss_at(z0)

    def curvature(a):
        """a' H_z a."""
        return directions.second_derivative(
            lambda s: loss_at(z0 + s * a), centre, precision=precision
        )

    expected, unsure = [], max(j.uncertainty for j in jacobian)
    for a in js:
        for b in js:
            plus, minus = curvature(a + b), curvature(a - b)
            expected.append(float(plus.value - minus.value) / 4)
            unsure = max(unsure, plus.uncertainty + minus.uncertainty)
    return Matrix("Gauss-Newton", np.array(expected), forms(vs, vs), forms(vs, products), unsure)


def fisher(example_losses, tree, vector, batch, precision, vs, products):
    """The Matrix of the empirical Fisher information."""
    form = "example_losses(params, batch)"
    count = number_of_arguments(example_losses, form, "example_losses", (2, 1))
    given = in_precision(batch, precision)

    def losses(s, v):
        params = tree.build(vector + s * v, precision)
        value = called(example_losses, "example_losses", "an array", *(params, given)[:count])
        a = numpy_of(value, "example_losses")
        several = a.ndim == 1 and len(a) > 1
        expect(several, "example_losses", "one number for each example", lambda: described(value))
        return a

    at_zero = losses(0.0, vs[0])
    found = [
        directions.derivative(lambda s, v=v: losses(s, v), at_zero, precision=precision) for v in vs
    ]
    slopes = [d.value for d in found]
    expected = np.array([np.mean(a * b) for a in slopes for b in slopes])
    largest = max(directions.size(a) for a in slopes)
    unsure = 2 * largest * max(d.uncertainty for d in found)
    return Matrix("the empirical Fisher", expected, forms(vs, vs), forms(vs, products), unsure)
