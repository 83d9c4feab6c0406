"""A factor on the inner step size.

An inner loss that is a sum where a mean is meant, or the other way round, is such a
factor.
"""

from refmaml.doctor.mistakes.mistake import Mistake, fix

MEAN = fix("the inner loss is the mean over the support examples of one task")
SUMS = {
    "N": (
        "summed over the support examples",
        "divided by the number of support examples once too often",
    ),
    "C": ("summed over outputs (or per shot)", "divided by the number of outputs once too often"),
    "B": ("multiplied by the number of tasks", "divided by the number of tasks"),
}


def step_sizes():
    """Every factor on the inner step size that is tried."""
    own = "the inner step size is a constant of the function's own, not problem.method.inner_lr"
    read = fix("read the step size from problem.method: it differs from case to case")
    ascent = "the inner loop ascends: its gradient has the wrong sign"
    return [
        *sums_for_means(),
        Mistake("11", own, constant_step_size, read, True),
        Mistake("11", "the inner step size is twice as large", {"rate": 2.0}, MEAN, True),
        Mistake("11", "the inner step size is half as large", {"rate": 0.5}, MEAN, True),
        Mistake("11", ascent, {"rate": -1.0}, fix("phi = phi - alpha * gradient"), True),
    ]


def sums_for_means():
    """The inner loss multiplied or divided by a number of things it is a mean over."""
    found = []
    for symbol, (multiplied, divided) in SUMS.items():
        for text, power in ((multiplied, 1), (divided, -1)):
            name, changes = f"the inner loss is {text}", times_symbol(symbol, power)
            found.append(Mistake("11", name, changes, MEAN, True))
    return found


def times_symbol(symbol, power):
    """case -> the step size times symbol**power; None where the symbol is 1 there."""

    def changes(case):
        return {"rate": case.symbols[symbol] ** power} if symbol in case.symbols else None

    return changes


def constant_step_size(case):
    """The step size that the user named, where the case has another one."""
    own, named = case.method.inner_lr, getattr(case.given, "inner_lr", case.method.inner_lr)
    if named == own:
        return None
    if not isinstance(own, tuple):
        return {"rate": named / own}
    return {"rate": tuple(a / b for a, b in zip(named, own, strict=True))}
