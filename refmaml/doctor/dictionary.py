"""The known mistakes of each method, and the gradient that each mistake gives."""

from dataclasses import replace

from refmaml.doctor.implicit_variants import Implicit, implicit_rows
from refmaml.doctor.method_table import IMPLICIT, SOLVED, entry
from refmaml.doctor.solved_variants import Solved, solved_rows
from refmaml.doctor.unrolled_variants import mean_over, right_loop, task_rows

# rows with many strengths, which are not tried in pairs
SINGLE_ONLY = ("decay", "21", "26", "31", "33", "34", "35", "41", "42")


def dictionary(method):
    """[Mistake]: every known mistake that the method can have."""
    return entry(method).mistakes(method)


def right_variant(method):
    """The method itself as a Loop, an Implicit or a Solved."""
    if entry(method).kind == SOLVED:
        return Solved()
    return Implicit() if entry(method).kind == IMPLICIT else right_loop(method)


def candidate(case, changes):
    """The meta-gradient (M,) of a case with some fields of the variant changed."""
    tasks = changes.get("tasks", right_variant(case.method).tasks)
    return mean_over(rows_of(case, changes), tasks, case.weights)


def rows_of(case, changes):
    """That of each task, (T, M), without weights."""
    variant = replace(right_variant(case.method), **changes)
    rows = {Implicit: implicit_rows, Solved: solved_rows}.get(type(variant), task_rows)
    return rows(case, variant) * case.learned


def pairs(mistakes):
    """[(Mistake, Mistake)]: two at once, at least one of them common."""
    paired = [m for m in mistakes if m.row not in SINGLE_ONLY]
    return [(a, b) for i, a in enumerate(paired) for b in paired[i + 1 :] if a.common or b.common]
