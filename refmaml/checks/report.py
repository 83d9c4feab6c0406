"""What a check of one part found: a verdict, a name, and the figures behind both."""

from dataclasses import dataclass, field
from typing import NamedTuple

from refmaml.checks import renderers
from refmaml.doctor.report import Verdict
from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG


class Row(NamedTuple):
    """One comparison of a check.

    name      what was compared: a direction, a tensor, an output, a property
    error     how far it is off, relative
    allowed   how far a right answer may be off
    factor    got / expected, where that is one number; otherwise NaN
    verdict   "right", "wrong" or "inconclusive"
    remark    more about it, or ""
    """

    name: str
    error: float
    allowed: float
    factor: float
    verdict: str
    remark: str = ""


def judged(name, error, allowed, factor=float("nan"), remark=""):
    """A Row that is right where error <= allowed."""
    return Row(name, error, allowed, factor, RIGHT if error <= allowed else WRONG, remark)


@dataclass(frozen=True)
class CheckReport(Verdict):
    """What a check of one part found; bool(report) is report.ok.

    check       "gradient", "hvp", "layer", "solve" or "hypergradient"
    verdict     "right", "wrong" or "inconclusive"
    diagnosis   one line: what is wrong, with which factor; or that nothing is
    fix         what to do about it
    findings    where the mistake is, as texts
    rows        a Row for each comparison
    remarks     other observations
    about       seed, calls, versions, and under "again" the call that repeats the check
    """

    check: str
    verdict: str
    diagnosis: str
    fix: str = ""
    findings: tuple = ()
    rows: tuple = ()
    remarks: tuple = ()
    about: dict = field(default_factory=dict)

    renderers = renderers

    def row(self, name):
        """The Row of that name. Raises KeyError where there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)


def verdict_of(rows):
    """ "wrong" where a row is wrong; otherwise "right" where one is right."""
    verdicts = {row.verdict for row in rows}
    if WRONG in verdicts:
        return WRONG
    return RIGHT if RIGHT in verdicts else INCONCLUSIVE
