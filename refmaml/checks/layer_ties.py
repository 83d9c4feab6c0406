"""Where no derivative exists: ties in max-pooling, 0 in ReLU. Conventions differ.

Every choice among equal entries is a convention. To count entries as equal that are
not is a mistake: then the output does not decide which entry gets dy."""

from itertools import product as pairs

import numpy as np

from refmaml import layers
from refmaml.checks import window_loops as loops
from refmaml.checks.layer_cases import NEAR_TIES
from refmaml.checks.layer_names import fits
from refmaml.checks.report import Row
from refmaml.doctor.verdicts import RIGHT, WRONG

UNKNOWN = float("nan")


def tie_row(name, c):
    """(Row, remark, text, fix) of dx on a case with ties or near ties."""
    if c.right:
        return Row(name, c.error, c.allowed, UNKNOWN, RIGHT), "", "", ""
    found = convention(c) if c.case.kind != NEAR_TIES else None
    if found:
        row = Row(name, c.error, c.allowed, UNKNOWN, RIGHT, "a convention")
        return row, f"a convention for ties, not a mistake: {found}", "", ""
    text = "wrong where entries tie, by no known rule"
    fix = "hand dy to one of the equal entries, or share it among them"
    if c.case.kind == NEAR_TIES and not c.problem:
        text, fix = tolerance(c)
    return Row(name, c.error, c.allowed, UNKNOWN, WRONG), "", text, fix


def convention(c):
    """The rule for ties that gives this dx, or None."""
    if isinstance(c.case.layer, layers.MaxPool2d) and not c.problem:
        window, stride = c.case.layer.geometry()
        for text, rule in loops.RULES.items():
            dx = loops.max_pool_backward(c.case.x, c.case.dy, window, stride, rule)
            if fits(c.got, dx, c.allowed):
                return f"dy goes to {text}"
        return None
    return None if c.problem else at_zero(c)


def at_zero(c):
    """The derivative of a ReLU at 0, in words, if the rest is right."""
    zero = c.case.x == 0
    scale = np.abs(c.expected).max()
    rest = np.abs(c.got - c.expected)[~zero].max() <= c.allowed * scale
    ratio = (c.got[zero] / c.case.dy[zero]) if zero.any() else np.zeros(0)
    if rest and len(ratio) and np.ptp(ratio) <= c.allowed and -1e-12 <= ratio[0] <= 1 + 1e-12:
        return f"the derivative at 0 is {ratio[0]:.3g}"
    return None


def tolerance(c):
    """(text, fix) of entries that are taken for equal and are not."""
    gaps = gaps_below(c.case)
    scale = np.abs(c.expected).max()
    moved = np.abs(c.got - c.expected) > c.allowed * scale
    extra = moved & (gaps > 0)
    largest = float(gaps[extra].max()) if extra.any() else 0.0
    text = (
        f"wrong where entries almost tie: entries up to {largest:.0e} below the largest count "
        "as equal, a tolerance in the comparison"
    )
    return text, "compare exactly (x == y, or argmax), not with isclose or a tolerance"


def gaps_below(case):
    """How far each entry is below the largest of its windows; infinite outside."""
    window, stride = case.layer.geometry()
    gaps = np.full(case.x.shape, np.inf)
    for i, j in pairs(range(case.dy.shape[2]), range(case.dy.shape[3])):
        rows = slice(i * stride[0], i * stride[0] + window[0])
        columns = slice(j * stride[1], j * stride[1] + window[1])
        part = case.x[:, :, rows, columns]
        gap = part.max((2, 3), keepdims=True) - part
        gaps[:, :, rows, columns] = np.minimum(gaps[:, :, rows, columns], gap)
    return gaps
