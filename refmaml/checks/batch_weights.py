"""A product accumulated over batches: how much each batch counts in it.

The mean over all examples is sum_b n_b H_b v / sum_b n_b. The mean of the batches'
means counts a short last batch as much as a full one.
"""

from typing import NamedTuple

import numpy as np

from refmaml.checks import matrices
from refmaml.checks.directions import size
from refmaml.checks.factors import number_text
from refmaml.checks.report import CheckReport, judged
from refmaml.checks.trees import framework_of, leaves_of
from refmaml.doctor.verdicts import WRONG
from refmaml.errors import expect

MOST = 64  # batches; each needs a product by differences for each vector


class BatchProducts(NamedTuple):
    """parts (B, m): the products of each batch; sizes (B,); whole: the right Matrix."""

    parts: np.ndarray
    sizes: np.ndarray
    whole: matrices.Matrix
    kinks: bool


def checked_batches(batches):
    """The batches as a list. Raises ArgumentError unless there are 2 to MOST."""
    expect(hasattr(batches, "__iter__"), "batches", "a list of batches", type(batches).__name__)
    batches = list(batches)
    expect(2 <= len(batches) <= MOST, "batches", f"2 to {MOST} batches", f"{len(batches)}")
    return batches


def examples(batch):
    """The number of examples in a batch: the length of its first array."""
    arrays = [a for a in leaves_of(batch).values() if framework_of(a) and len(a.shape)]
    expect(arrays, "batches", "arrays in every batch", "none")
    return int(arrays[0].shape[0])


def batch_products(exam, given, batches):
    """The BatchProducts of the vectors of an examination."""
    tree, precision = exam.product.tree, exam.product.precision
    gradient = matrices.Gradient(given.gradient, tree, precision, given.loss)
    found = [
        matrices.hessian_products(gradient, tree.start, batch, exam.vectors) for batch in batches
    ]
    parts = np.array([np.concatenate(products) for products, _, _ in found])
    sizes = np.array([examples(batch) for batch in batches], float)
    unsure = max(u for _, u, _ in found)
    whole = matrices.Matrix(
        "the Hessian",
        sizes @ parts / sizes.sum(),
        np.concatenate(exam.vectors),
        np.concatenate(exam.products),
        unsure,
    )
    return BatchProducts(parts, sizes, whole, any(kinks for _, _, kinks in found))


def weights_of_batches(exam, found):
    """The CheckReport where batches count for more or less than that, or None."""
    got, right = found.whole.got, found.sizes / found.sizes.sum()
    scale = max(size(got), size(found.whole.expected)) or 1.0
    allowed = max(exam.tol, found.whole.uncertainty / scale)
    if size(got - found.whole.expected) <= allowed * scale:
        return None
    B = len(right)
    row = judged("the mean over all examples", size(got - right @ found.parts) / scale, allowed)
    rows = (*exam.rows, row)
    for weights, text, fix in known_weights(found.sizes):
        if size(got - weights @ found.parts) <= allowed * scale:
            return CheckReport("hvp", WRONG, text, fix, counted(weights / right), rows)
    if len(got) > B:
        weights = np.linalg.lstsq(found.parts.T, got, rcond=None)[0]
        one_factor = np.ptp(weights / right) <= 10 * allowed
        if size(got - weights @ found.parts) <= allowed * scale and not one_factor:
            text = "the batches do not count by their numbers of examples"
            fix = "multiply each batch's product by its number of examples, divide by the total"
            return CheckReport("hvp", WRONG, text, fix, counted(weights / right), rows)
    return None


def known_weights(sizes):
    """(weights, text, fix) of the usual mistakes."""
    B, n = len(sizes), sizes.sum()
    one = np.ones(B)
    first, last = np.eye(B)[0], np.eye(B)[-1]
    fix = "multiply each batch's product by its number of examples, divide by the total"
    if np.ptp(sizes):  # otherwise this is right
        yield one / B, "the batches are averaged without their numbers of examples", fix
    yield one, "the batches are summed, each with weight 1", fix
    yield sizes, "the total is not divided by the number of examples", f"divide by {n:g}"
    yield first, "the first batch alone counts", "add the product of every batch"
    yield last, "the last batch alone counts", "acc = acc + product, not acc = product"
    yield first * sizes[0] / n, "the first batch alone counts", "add the product of every batch"
    yield last * sizes[-1] / n, "the last batch alone counts", "acc = acc + product"


def counted(factors):
    """A finding for each batch that counts for more or less than it should."""
    return tuple(
        f"batch {b} counts {number_text(f)} times as much as it should"
        for b, f in enumerate(factors)
        if abs(f - 1) > 1e-4
    )
