"""Number of inner steps, where a step starts, momentum and weight decay."""

from refmaml.doctor.mistakes.mistake import Mistake, fix
from refmaml.update_rules import SGD

REBIND = fix(
    "phi = phi - alpha * grad(phi): take gradient and difference at the phi of the step before"
)
STEPS = fix("run the inner loop exactly inner_steps times")
PLAIN_DESCENT = fix("plain gradient descent in the inner loop")
NO_DECAY = fix("no weight decay in the inner loop")


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


def momentum_and_decay():
    """Updates with momentum or weight decay where the method has neither."""
    momentum = {"rule": SGD(momentum=0.9)}
    return [
        Mistake("26", "momentum 0.9 in the inner loop", momentum, PLAIN_DESCENT),
        *(
            Mistake("decay", f"weight decay {d:g} in the inner loop", {"decay": d}, NO_DECAY)
            for d in (1e-1, 1e-2, 1e-3, 5e-4, 1e-4)
        ),
    ]
