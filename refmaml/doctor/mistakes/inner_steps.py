"""Number of inner steps, and where a step starts."""

from refmaml.doctor.mistakes.mistake import Mistake, fix

REBIND = fix(
    "phi = phi - alpha * grad(phi): take gradient and difference at the phi of the step before"
)
STEPS = fix("run the inner loop exactly inner_steps times")


def inner_steps(K):
    """Mistakes in how K inner steps follow each other."""
    at_start = "every inner step takes the gradient at the initial parameters"
    from_start = "every inner step starts from the initial parameters"
    single = "a single inner step, whatever inner_steps says"
    found = [
        Mistake("13", at_start, {"base": "once"}, REBIND, True),
        Mistake("13", from_start, {"base": "start"}, REBIND, True),
    ]
    if K > 1:
        found.append(Mistake("16", "one inner step too few", {"steps": K - 1}, STEPS, True))
    found.append(Mistake("16", "one inner step too many", {"steps": K + 1}, STEPS, True))
    if K > 2:
        found.append(Mistake("13", single, {"steps": 1}, REBIND, True))
    return found
