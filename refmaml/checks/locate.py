"""Where a gradient is wrong: which arrays, which entries, by which factor.

Every array gets directions of its own; inside the worst one, bisection finds the first
and the last wrong entry.
"""

from typing import NamedTuple

import numpy as np

from refmaml.checks.factors import agreement, common, fix_of, meaning, number_text, times_text
from refmaml.doctor.verdicts import WRONG

EACH = 3  # directions for each array: one factor must explain them all
ROUND = 4  # an array's own steps begin at so many times the smallest that was chosen
STEPS = 6  # and are halved so often: down to an eighth of it
NAMED = 4  # arrays that a sentence lists by name


class Place(NamedTuple):
    """text continues "the gradient is not the derivative of the loss"."""

    text: str
    fix: str
    findings: tuple
    rows: tuple


def located(exam, lengths):
    """The Place of what is wrong with a gradient."""
    rows, factors = array_rows(exam)
    wrong = [name for name, row in rows.items() if row.verdict == WRONG]
    shown = tuple(rows.values())
    if not wrong:
        text = "; array by array no difference is large enough to be seen"
        return Place(text, "use float64, or fewer parameters", (), shown)
    agree = agreement(rows.values())
    one = common([factors[name] for name in wrong], agree) if all_known(factors, wrong) else None
    if one is not None:
        text = (
            f" in {listed(wrong)}: there it is {times_text(one)} the derivative, "
            f"{meaning(one, lengths)}"
        )
        return Place(text, fix_of(one, listed(wrong)), (), shown)
    findings = tuple(
        f"{listed([name])}: {times_text(factors[name])} the derivative, "
        f"{meaning(factors[name], lengths)}"
        for name in wrong
        if factors[name] is not None
    )
    unexplained = [name for name in wrong if factors[name] is None]
    if unexplained:
        worst = max(unexplained, key=lambda name: rows[name].error / rows[name].allowed)
        findings += (entries_text(exam, worst),)
    fix = f"compare the use of {listed(wrong[:1])} in the loss with the term of its gradient"
    return Place(f" in {listed(wrong)}", fix, findings, shown)


def all_known(factors, names):
    """Whether every array has a factor."""
    return all(factors[name] is not None for name in names)


def listed(names):
    """Names in a sentence."""
    names = [name or "params" for name in names]
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def array_rows(exam):
    """({name: Row}, {name: factor or None}), along directions in each array."""
    rows, factors = {}, {}
    for leaf in exam.tree.leaves:
        found = directions_of(exam, leaf)
        worst = max(found, key=lambda row: row.error / row.allowed)
        factors[leaf.name] = common([row.factor for row in found], agreement(found))
        rows[leaf.name] = with_factor(worst, factors[leaf.name])
    return rows, factors


def directions_of(exam, leaf):
    """Rows of one array: EACH directions, fewer once their factors differ."""
    found = []
    while len(found) < EACH:
        v = direction(exam, leaf.place)
        found.append(exam.row(leaf.name or "params", v, **short(exam))[0])
        if common([row.factor for row in found], agreement(found)) is None:
            break
    return found


def with_factor(row, factor):
    """The Row with the factor of all directions, or none."""
    return row._replace(factor=float("nan") if factor is None else factor)


def short(exam):
    """The steps of an array's own directions, around those of all together."""
    return {"first": min(ROUND * exam.step, 2.0**-3), "levels": STEPS}


def direction(exam, place):
    """A random direction inside a range of entries."""
    v = np.zeros(exam.tree.size)
    v[place] = (exam.scales * exam.rng.standard_normal(exam.tree.size))[place]
    return v


def entries_text(exam, name):
    """Which entries of an array are wrong, as a finding."""
    leaf = next(leaf for leaf in exam.tree.leaves if leaf.name == name)
    low, high = narrowed(exam, leaf.place.start, leaf.place.stop)
    first = low - leaf.place.start, high - 1 - leaf.place.start
    if (low, high) == (leaf.place.start, leaf.place.stop) and high - low > 1:
        return f"{name or 'params'}: all over the array"
    index = [[int(i) for i in np.unravel_index(k, leaf.shape)] for k in first]
    if high - low > 1:
        return f"{name or 'params'}: entries {index[0]} to {index[1]}"
    v = np.zeros(exam.tree.size)
    v[low] = exam.scales[low]
    expected = float(exam.along(v, **short(exam)).value) / exam.scales[low]
    got = float(exam.gradient[low])
    factor = f", {number_text(got / expected)} times" if expected else ""
    return f"{name or 'params'}: entry {index[0]}, got {got:.6g}, expected {expected:.6g}{factor}"


def narrowed(exam, low, high):
    """The range from the first wrong entry to the last, by two bisections.

    A range is wrong where it holds a wrong entry.
    """

    def wrong(start, stop):
        v = direction(exam, slice(start, stop))
        return exam.row("", v, **short(exam))[0].verdict == WRONG

    def bisect(good, bad, is_wrong):
        while abs(bad - good) > 1:
            middle = (good + bad) // 2
            good, bad = (good, middle) if is_wrong(middle) else (middle, bad)
        return bad

    if wrong(low, low + 1) and wrong(high - 1, high):  # the usual case
        return low, high
    first = bisect(low, high, lambda k: wrong(low, k)) - 1
    after = bisect(high, low, lambda k: wrong(k, high)) + 1
    return (first, after) if first < after else (low, high)
