"""Are the user's derivatives right? Each is held against differences of the one below.

    gradient   <g, v> against 4th-order differences of the loss along v
    product    H v against 4th-order differences of the gradient along v

A right derivative agrees at some step. A wrong one is off at all of them."""

from typing import NamedTuple

import numpy as np

from refmaml.doctor.own_loss.differences import STEPS, best_difference, central
from refmaml.errors import RefmamlError

DIRECTIONS = 3  # random ones for each task
TASKS = 2  # at most so many tasks are looked at
AGREE = 1e-6  # relative error that counts as agreement: differences of a smooth loss agree
# to 1e-10, a kink between two points costs some of that
UNSURE = 30.0  # an error must be so many times what the differences themselves leave open


class Derivatives(NamedTuple):
    """gradient   the largest relative error of a gradient; product: of a product
    tensor     the named array in which the product is off most, "" where none is
    step       a step at which differences of the gradient are near their best
    reason     why there is no product at all, or ""
    """

    gradient: float
    product: float
    tensor: str
    step: float
    reason: str

    @property
    def wrong_gradient(self):
        return self.gradient > AGREE

    @property
    def wrong_product(self):
        return self.product > AGREE or bool(self.reason)


def check_derivatives(model, w, batch, products=True):
    """The Derivatives of a LossModel at w (P,) on some tasks' support sets."""
    rng = np.random.default_rng(0)
    gradient, product, tensor, reason, steps = 0.0, 0.0, "", "", []
    for xs, ys, _, _ in batch.tasks[:TASKS]:
        for _ in range(DIRECTIONS):
            v = rng.standard_normal(len(w))
            v /= np.linalg.norm(v)
            gradient = max(gradient, gradient_error(model, w, v, xs, ys))
            if not products:
                continue
            try:
                found = product_error(model, w, v, xs, ys)
            except RefmamlError as error:
                reason, found = str(error), (0.0, "", step_of(model, w, v, xs, ys))
            product, tensor = max((product, tensor), found[:2])
            steps.append(found[2])
    step = float(np.exp(np.mean(np.log(steps)))) if steps else STEPS[3]
    return Derivatives(gradient, product, tensor if product > AGREE else "", step, reason)


def gradient_error(model, w, v, x, y):
    """The relative error of <g, v>, 0 where differences cannot tell."""
    g = model.pass_at(w, x, y, keep=False).grad
    found = best_difference(lambda s: model.functions.pass_at(w + s * v, x, y, 0, False).loss)
    size = np.linalg.norm(g) / np.sqrt(len(g))
    error = abs(g @ v - found.value)
    return 0.0 if error <= UNSURE * found.error or size == 0 else float(error / size)


def gradients_along(model, w, v, x, y):
    """s -> the gradient at w + s v."""
    return lambda s: model.functions.pass_at(w + s * v, x, y, 0, False).grad


def step_of(model, w, v, x, y):
    """The step at which differences of the gradient agree best."""
    return best_difference(gradients_along(model, w, v, x, y)).step


def product_error(model, w, v, x, y):
    """(the relative error of H v, the array it is largest in, the best step).

    Of all steps the one is taken at which H v agrees best; a right H v agrees there.
    """
    exact = model.pass_at(w, x, y).product(v)
    along = gradients_along(model, w, v, x, y)
    found = best_difference(along)
    values = [central(along, h) for h in STEPS]
    errors = [np.abs(exact - value) for value in values]
    size = max(np.abs(found.value).max(), np.abs(exact).max())
    off = min(errors, key=lambda e: e.max())
    if size == 0 or off.max() <= UNSURE * found.error:
        return 0.0, "", found.step
    place = int(off.argmax())
    return float(off.max() / size), model.name_of(place)[2:-1], found.step
