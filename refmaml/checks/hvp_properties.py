"""What a product must be whatever its matrix: repeatable, 0 at 0, linear, symmetric."""

import numpy as np

from refmaml.checks.directions import magnitudes, size
from refmaml.checks.factors import common
from refmaml.checks.report import CheckReport, Row, judged
from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG

REPEATED = 3  # further calls with the same vector
DEGREES = {0: "does not grow with v", 2: "grows with the square of v"}


class Properties:
    """Some vectors v, their products, and the rows of the properties.

    vectors, products   lists of (n,)
    """

    SYMMETRY = "w'A v = v'A w"
    JACOBIAN = "the gradient's Jacobian is symmetric"

    def __init__(self, product, count, tol, seed):
        self.product, self.tol = product, tol
        rng = np.random.default_rng(seed)
        scales = magnitudes(product.tree, product.tree.start)
        self.vectors = [scales * rng.standard_normal(product.tree.size) for _ in range(count)]
        self.products = [product(v) for v in self.vectors]
        self.size = max(map(size, self.products)) or 1.0
        self.repeats = [product(self.vectors[0]) for _ in range(REPEATED)]
        self.zero = [product(0 * self.vectors[0]) for _ in range(2)]
        self.rows = [self.repeated(), self.at_zero(), *self.linear(), self.symmetric()]

    def repeated(self):
        """The Row of repeated calls."""
        spread = max(size(p - self.products[0]) for p in self.repeats) / self.size
        row = judged("repeated calls", spread, self.tol)
        return row if row.verdict == RIGHT else row._replace(verdict=INCONCLUSIVE)

    def at_zero(self):
        """The Row of product(0) = 0."""
        return judged("product(0) = 0", max(map(size, self.zero)) / self.size, self.tol)

    def linear(self):
        """The Rows of homogeneity and additivity."""
        v, w = self.vectors[:2]
        p, q = self.products[:2]
        twice = size(self.product(2 * v) - 2 * p) / (2 * self.size)
        total = size(self.product(v + w) - p - q) / self.size
        return (
            judged("product(2v) = 2 product(v)", twice, self.tol),
            judged("product(v + w) = product(v) + product(w)", total, self.tol),
        )

    def symmetric(self):
        """The Row of w'A v = v'A w, over all pairs."""
        return asymmetry(self.SYMMETRY, self.vectors, self.products, self.tol)

    def expect_symmetric(self, products, unsure):
        """Add a Row: the Jacobian of the gradient that was given must be symmetric."""
        allowed = max(self.tol, unsure / (max(map(size, products)) or 1.0))
        self.rows.append(asymmetry(self.JACOBIAN, self.vectors, products, allowed))

    def report(self):
        """The CheckReport of a property that fails, or None."""
        by_name = {row.name: row for row in self.rows}
        steady = by_name["repeated calls"].verdict == RIGHT
        if not steady and self.accumulates():
            text = "each call adds to the result of the call before"
            return self.wrong(text, "set the accumulator to zeros at the start of every call")
        if by_name["product(0) = 0"].verdict == WRONG:
            return self.offset(steady)
        if not steady:
            error = by_name["repeated calls"].error
            return CheckReport(
                "hvp",
                INCONCLUSIVE,
                f"the product changes by {error:.1e}, relative, from call to call (noise)",
                "set the seed of dropout and of every random number; use one fixed batch",
                rows=tuple(self.rows),
            )
        if any(row.verdict == WRONG for row in self.rows if row.name.startswith("product(")):
            return self.nonlinear()
        return None

    def is_symmetric(self):
        """Whether w'A v = v'A w."""
        return next(row for row in self.rows if row.name == self.SYMMETRY).verdict == RIGHT

    def asymmetric(self):
        """The report of a product that is not symmetric."""
        text = "the product is not symmetric: no matrix of second derivatives gives it"
        fix = "give gradient= to see in which arrays it is wrong"
        return self.wrong(text, fix)

    def wrong(self, text, fix):
        """A report with the verdict "wrong"."""
        return CheckReport("hvp", WRONG, text, fix, rows=tuple(self.rows))

    def accumulates(self):
        """Whether each call returns the result before it and one product more."""
        steps = np.diff([*self.repeats], axis=0)
        same = size(steps[0] - steps[1]) <= self.tol * self.size
        return same and size(steps[0]) > self.tol * self.size and bool(steps[0].any())

    def offset(self, steady):
        """The report of product(0) != 0."""
        share = size(self.zero[0]) / self.size
        if steady:
            text = f"an offset is added to the product: product(0) is {share:.1e} of it, not 0"
            return self.wrong(text, "start the sum from zeros; leave out what does not depend on v")
        text = (
            f"noise is added to the product: product(0) is {share:.1e} of it, not 0, and differs "
            "from call to call (an accumulator that starts from random numbers)"
        )
        return self.wrong(text, "start the sum from zeros (torch.zeros_like, not randn_like)")

    def nonlinear(self):
        """The report of a product that is not linear."""
        v, p = self.vectors[0], self.products[0]
        for degree, text in DEGREES.items():
            if size(self.product(2 * v) - 2.0**degree * p) <= self.tol * self.size:
                fix = "multiply by |v| again where v was scaled to length 1"
                return self.wrong(
                    f"the product is not linear: it {text}", fix if not degree else ""
                )
        if size(self.product(-v) - p) <= self.tol * self.size:
            return self.wrong("the product is not linear: v and -v give the same", "")
        error = max(row.error for row in self.rows if row.name.startswith("product("))
        text = f"the product is not linear, by {error:.1e}, relative"
        fix = (
            "if it is a difference of two gradients: use central differences and scale v; "
            "otherwise detach nothing that depends on v"
        )
        return self.wrong(text, fix)

    def wrong_arrays(self, matrix):
        """Findings: the arrays in which products are off, with their factors."""
        if len(matrix.got) != len(self.vectors) * self.product.tree.size:
            return ()
        got = matrix.got.reshape(len(self.vectors), -1)
        expected = matrix.expected.reshape(len(self.vectors), -1)
        whole, texts = size(expected) or 1.0, []
        for leaf in self.product.tree.leaves:
            a, b = got[:, leaf.place], expected[:, leaf.place]
            error = size(a - b) / (size(b) or whole)
            if size(a - b) / whole > max(self.tol, matrix.uncertainty / whole):
                ratios = [float((x @ y) / (y @ y)) for x, y in zip(a, b, strict=True) if y.any()]
                factor = common(ratios, 1e-4)
                tail = "" if factor is None else f", {factor:.6g} times"
                texts.append(f"rows of {leaf.name or 'params'}: off by {error:.1e}{tail}")
        return tuple(texts)


def asymmetry(name, vectors, products, allowed):
    """The Row of w'p(v) = v'p(w) over all pairs, relative to |w| |p(v)|."""
    worst = 0.0
    for i, v in enumerate(vectors):
        for j in range(i):
            left, right = vectors[j] @ products[i], v @ products[j]
            whole = np.linalg.norm(vectors[j] * products[i]) + np.linalg.norm(v * products[j])
            worst = max(worst, abs(left - right) / (whole or 1.0))
    return Row(name, float(worst), allowed, float("nan"), RIGHT if worst <= allowed else WRONG)
