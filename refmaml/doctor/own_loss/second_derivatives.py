"""Are the user's derivatives right? Each is held against differences of the one below.

    gradient   <g, v> against 4th-order differences of the loss along v
    product    H v against 4th-order differences of the gradient along v

A right derivative agrees with the differences of some step, a wrong one with none."""

from typing import NamedTuple

import numpy as np

from refmaml.doctor.own_loss.differences import STEPS, best_of, central
from refmaml.errors import RefmamlError

DIRECTIONS = 2  # random ones for each task
TASKS = 2  # at most so many tasks are looked at
AGREE = 1e-6  # relative error that counts as agreement: differences of a smooth loss agree
# to 1e-10, a kink between two points costs some of that
UNSURE = 30.0  # an error must be so many times what the differences themselves leave open
ORDER = tuple(sorted(STEPS, key=lambda h: abs(np.log10(h) + 3)))  # 1e-3 first: right
# derivatives of most losses agree there, and the other steps are not needed


class Derivatives(NamedTuple):
    """gradient   the largest relative error of a gradient; product: of a product
    tensor     the named array in which the product is off most, "" where none is
    step       a step at which differences of the gradient are near their best; 0 where
               products are right
    reason     why there is no product at all, or ""
    """

    gradient: float = 0.0
    product: float = 0.0
    tensor: str = ""
    step: float = 0.0
    reason: str = ""

    @property
    def wrong_gradient(self):
        return self.gradient > 0

    @property
    def wrong_product(self):
        return self.product > 0 or bool(self.reason)


class Off(NamedTuple):
    """error: relative, 0 where the derivative agrees; place: the entry that is most
    off; step: the best of the differences, 0 where the derivative agrees."""

    error: float
    place: int = 0
    step: float = 0.0


def check_derivatives(model, w, batch, products=True):
    """The Derivatives of a LossModel at w (P,), on some tasks' support sets."""
    rng = np.random.default_rng(0)
    found = Derivatives()
    for x, y, _, _ in batch.tasks[:TASKS]:
        for _ in range(DIRECTIONS):
            v = rng.standard_normal(len(w))
            v /= np.linalg.norm(v)
            found = found._replace(
                gradient=max(found.gradient, gradient_off(model, w, v, x, y).error)
            )
            if not products or found.wrong_gradient:
                continue
            try:
                off = product_off(model, w, v, x, y)
            except RefmamlError as error:
                step = compare(None, gradients_along(model, w, v, x, y)).step
                found = found._replace(reason=str(error), step=step)
                continue
            if off.error > found.product:
                tensor = model.name_of(off.place)[2:-1]
                found = found._replace(product=off.error, tensor=tensor, step=off.step)
    return found


def gradient_off(model, w, v, x, y):
    """The Off of <g, v>."""
    g = model.pass_at(w, x, y, keep=False).grad
    size = np.linalg.norm(g) / np.sqrt(len(g))
    return compare(
        np.array([g @ v]),
        lambda s: np.array([model.functions.pass_at(w + s * v, x, y, 0, False).loss]),
        size,
    )


def product_off(model, w, v, x, y):
    """The Off of H v."""
    return compare(model.pass_at(w, x, y).product(v), gradients_along(model, w, v, x, y))


def gradients_along(model, w, v, x, y):
    """s -> the gradient at w + s v."""
    return lambda s: model.functions.pass_at(w + s * v, x, y, 0, False).grad


def compare(exact, f, size=0.0):
    """The Off of a derivative of f at 0; with exact None only the best step.

    size  errors are relative to the derivative or to this, whichever is larger
    """
    values = {}
    for h in ORDER:
        values[h] = central(f, h)
        if exact is None:
            continue
        scale = max(np.abs(exact).max(), np.abs(values[h]).max(), size)
        if np.abs(exact - values[h]).max() <= AGREE * scale:
            return Off(0.0)
    best = best_of([values[h] for h in STEPS], STEPS)
    if exact is None:
        return Off(np.inf, 0, best.step)
    off = min((np.abs(exact - value) for value in values.values()), key=np.max)
    if off.max() <= UNSURE * best.error:
        return Off(0.0)
    scale = max(np.abs(exact).max(), np.abs(best.value).max(), size)
    return Off(float(off.max() / scale), int(off.argmax()), best.step)
