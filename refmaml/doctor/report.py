"""The verdict, the name of the mistake, and the figures behind both."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from refmaml.doctor import renderers
from refmaml.doctor.verdicts import RIGHT


class TensorRow(NamedTuple):
    """One named array of a gradient g beside the true one t.

    error       max |g - t| / max |t|; where t is 0 to rounding, over the largest entry
                of the whole gradient
    tolerance   what rounding allows of that
    scale       <g, t> / <t, t>; cosine: <g, t> / (|g| |t|)
    worst       the index of the entry that is farthest off
    got         its value as returned; expected: as it should be
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
    """The result of one case in one precision, "float64" or "float32".

    verdict, remark   "right", "wrong" or "inconclusive", and why where that needs
                      saying
    misfit            the largest error in multiples of what rounding allows: at most 1
                      for a right gradient
    noise             how far the true gradient moves, relative, when its inputs are off
                      by one rounding
    margin            the relative distance of the nearest kink
    rows              a TensorRow for each named array
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


class Verdict:
    """What all reports have in common; `renderers` says how they look."""

    @property
    def ok(self):
        """Whether what was checked is right."""
        return self.verdict == RIGHT

    def __bool__(self):
        return self.ok

    def __str__(self):
        return self.renderers.text(self)

    def to_json(self):
        """The whole report as JSON text; "schema" is the number of its form."""
        return self.renderers.as_json(self)

    def to_markdown(self):
        """The report as a markdown page, e.g. for $GITHUB_STEP_SUMMARY."""
        return self.renderers.markdown(self)

    def to_junit(self):
        """The report as JUnit XML: a test case for each result."""
        return self.renderers.junit(self)


@dataclass(frozen=True)
class Report(Verdict):
    """What check_meta_gradient found; bool(report) is report.ok.

    verdict      "right", "wrong" or "inconclusive"
    diagnosis    one line: what is wrong, with which factor; or that nothing is
    fix          what to do about it
    ties         other mistakes that would give the same gradient here
    findings     where a mistake without a name is, as texts
    stages       (stage, tensor) of each finding
    results      a CaseResult for each case and precision
    remarks      other observations
    about        function, method, framework, seed, seconds, versions, and under "again"
                 the command that repeats the check
    """

    verdict: str
    diagnosis: str
    fix: str = ""
    ties: tuple = ()
    findings: tuple = ()
    stages: tuple = ()
    results: tuple = ()
    remarks: tuple = ()
    about: dict = field(default_factory=dict)
    renderers = renderers

    @property
    def sittings(self):
        """`results` under its name in the JSON schema."""
        return self.results


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
