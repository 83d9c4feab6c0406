"""The verdict, the name of the mistake, and the figures behind both."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

RIGHT, WRONG, INCONCLUSIVE = "right", "wrong", "inconclusive"


class TensorRow(NamedTuple):
    """One named array of a gradient beside the truth.

    error    max |g - t| / max |t|; where t is 0 to rounding, over the largest entry of the whole gradient. tolerance: what rounding allows
    scale    <g, t> / <t, t>; cosine: <g, t> / (|g| |t|)
    worst    the index of the entry that is farthest off, its value as returned, and as it should be
    """

    name: str
    error: float
    tolerance: float
    scale: float
    cosine: float
    worst: tuple
    got: float
    expected: float


@dataclass(frozen=True)
class CaseResult:
    """What came out on one case: its precision ("float64", "float32"), its verdict with a remark, and a row for each named array.

    misfit   the largest error in multiples of what rounding allows: at most 1 for a right gradient
    noise    by how much the reference itself moves, relative, when its inputs are off by one rounding
    margin   the relative distance of the nearest kink
    """

    case: str
    precision: str
    verdict: str
    remark: str
    misfit: float
    noise: float
    margin: float
    rows: list

    @property
    def worst(self):
        """The row that is off by the largest multiple of its tolerance."""
        return max(self.rows, key=lambda row: row.error / row.tolerance)


@dataclass(frozen=True)
class Report:
    """What check_meta_gradient found. report.ok, bool(report): whether the verdict is "right".

    verdict      "right", "wrong" or "inconclusive"
    diagnosis    one line: what is wrong, at which scale; or that nothing is
    fix          what to do about it
    ties         what else would look the same here
    findings     where a mistake without a name sits: texts; stages: (stage, tensor) of each
    sittings     a CaseResult for each probe and precision
    remarks      what else was noticed
    about        function, method, framework, seed, seconds, versions and how to run it again
    """

    verdict: str
    diagnosis: str
    fix: str = ""
    ties: tuple = ()
    findings: tuple = ()
    stages: tuple = ()
    sittings: tuple = ()
    remarks: tuple = ()
    about: dict = field(default_factory=dict)

    @property
    def ok(self):
        """Whether the gradient is right."""
        return self.verdict == RIGHT

    def __bool__(self):
        return self.ok

    def __str__(self):
        from refmaml.doctor.renderers import text

        return text(self)

    def to_json(self):
        """The whole report as JSON text; "schema" says which form."""
        from refmaml.doctor.renderers import as_json

        return as_json(self)

    def to_markdown(self):
        """The report as a markdown page, e.g. for $GITHUB_STEP_SUMMARY."""
        from refmaml.doctor.renderers import markdown

        return markdown(self)

    def to_junit(self):
        """The report as JUnit XML: a test case for each probe and precision."""
        from refmaml.doctor.renderers import junit

        return junit(self)


def tensor_rows(case, g):
    """A TensorRow for each named array of a gradient g (M,)."""
    return [
        tensor_row(case, name, g[place], case.truth[place], case.allowed[place])
        for name, place in case.places.items()
    ]


def tensor_row(case, name, g, t, allowed):
    """One named array as a TensorRow."""
    size = np.abs(t).max()
    size = size if size > allowed.max() else np.abs(case.truth).max() or 1.0
    worst = np.unravel_index(np.abs((g - t) / allowed).argmax(), g.shape)
    gt, tt, gg = (float((a * b).sum()) for a, b in ((g, t), (t, t), (g, g)))
    return TensorRow(
        name,
        float(np.abs(g - t).max() / size),
        float(allowed.max() / size),
        gt / tt if tt else float("nan"),
        gt / np.sqrt(tt * gg) if tt and gg else float("nan"),
        tuple(int(i) for i in worst),
        float(g[worst]),
        float(t[worst]),
    )
