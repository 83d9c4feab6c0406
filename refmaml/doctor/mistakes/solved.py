"""Mistakes of heads that are solved in closed form: R2-D2, LR-D2, MetaOptNet."""

from refmaml.doctor.mistakes.mistake import ROLES, Mistake, fix
from refmaml.doctor.mistakes.sets_and_tasks import only_one_task, swapped_sets

THROUGH = fix(
    "differentiate the solve: dX = R U - P W with U = dw (X'X + lambda I)^-1, P = X U'",
    torch="no .detach() and no torch.no_grad() around the solve; torch.linalg.solve on the "
    "features themselves",
    jax="no lax.stop_gradient around the solve",
)
BOTH = fix("the body's parameters act through the support features and the query features")
LAMBDA = fix("lambda = exp(params['head.log_strength']), on the diagonal of X'X, learned as ell")
SCALE = fix(
    "W = argmin 1/2 |Y - X W'|^2 + lambda/2 |W|^2 (LR-D2, MetaOptNet: their own losses), labels "
    "as unit vectors of 0 and 1, and outputs alpha q W' + beta"
)
SOLVE = fix("solve the head on each support set; theta's own last layer is not used")
NEWTON = fix(
    "iterate until |G| is at rounding (the residual says so), or declare the steps: "
    "differentiate='iterations' with newton_steps"
)
ACTIVE = fix("at the optimum entries at their bound stay there: only the others solve the system")
CONVERGE = fix(
    "iterate until the products of slacks and multipliers are at rounding, and report them: "
    "problem.method.solver_steps is enough for a method that starts inside the bounds",
    torch="qpth: raise maxIter until the gradient no longer changes, in float64; verbose=1 "
    "prints the residuals",
)
CLAMP = fix(
    "solve the system of the entries that are not at their bounds, with no lower limit on "
    "slacks and multipliers",
    torch="qpth clamps both at 1e-8 in its backward pass: its gradient is off by about 1e-7, "
    "however many iterations it takes",
)
STEPS = (1, 2, 3, 4, 5, 6, 8, 10)  # of an iterative solver
MAXITER, SOLVED = range(1, 13), 50  # of OptNet's interior-point method


def sets(what):
    """Which set a task is adapted on, which measures the loss, which tasks count."""
    query, support, both = {"query": "support"}, {"support": "query"}, {"support": "both"}
    return [
        Mistake("6", "the query loss is measured on the support set", query, ROLES, True),
        Mistake("6", f"{what} sees the query set", support, ROLES, True),
        Mistake("6", f"{what} sees support and query together", both, ROLES),
        swapped_sets(),
        *only_one_task(),
    ]


def head(method):
    """What goes wrong with every head."""
    detached = "the head's solution is a constant: nothing goes back through the solve"
    still = "the query features are constants"
    unsolved = "the head is theta's own last layer: nothing is solved"
    unscaled = "the outputs are not scaled by alpha"
    doubled = "twice the solution of the head: 2 Y in place of Y, or labels of 1 and -1"
    return [
        Mistake("48", detached, {"through": "query"}, THROUGH, True),
        Mistake("48", still, {"through": "support"}, BOTH, True),
        Mistake("48", unsolved, {"adapted": False}, SOLVE),
        Mistake("50", doubled, {"factor": 2.0}, SCALE, True),
        Mistake("50", "half the solution of the head", {"factor": 0.5}, SCALE),
        Mistake("50", unscaled, {"scaled": False}, SCALE, True),
        *strengths(),
        *sets("the head"),
    ]


def strengths():
    """Another lambda than e^ell."""
    averaged = "lambda counts N times: X and Y are divided by sqrt(N), or X'X by N"
    still = "lambda is a constant: its logarithm has no gradient"
    found = [
        ("lambda is ell itself, not e^ell: it may become negative", of_ell),
        (averaged, {"strength": ("N", True)}),
        ("lambda counts twice", {"strength": (2.0, True)}),
        ("lambda counts half", {"strength": (0.5, True)}),
        (still, {"strength": (1.0, False)}),
        ("lambda is 1, whatever ell is", {"strength": ("1", False)}),
    ]
    return [Mistake("49", name, changes, LAMBDA, True) for name, changes in found]


def of_ell(case):
    """lambda = ell, where that has a solution."""
    return {"strength": "ell"} if case.meta[case.net.num_params] > 0 else None


def r2d2(method):
    """Every mistake of R2-D2."""
    inverse = "(X'X + lambda I)^-1 is a constant: only X'Y is differentiated"
    return [*head(method), Mistake("48", inverse, {"inverse": False}, THROUGH)]


def lrd2(method):
    """Every mistake of LR-D2: a solver that stops early, beside those of every head."""
    found = head(method)
    for steps in STEPS:
        if steps >= method.newton_steps and method.differentiate == "iterations":
            continue
        name = f"Newton's method stops after {steps} step{'s' if steps > 1 else ''}"
        for how, text in (
            ("iterations", f"{name}, which {'are' if steps > 1 else 'is'} differentiated"),
            ("optimum", f"{name}, differentiated as if at the optimum"),
        ):
            settings = (("newton_steps", steps), ("differentiate", how))
            found.append(Mistake("51", text, {"settings": settings}, NEWTON))
    return found


def metaoptnet(method):
    """Every mistake of MetaOptNet."""
    free = "the derivative of the dual lets the entries at their bounds move"
    constant = "the bound of the dual variables is 0.1, a constant of the function's own"
    found = [*head(method), Mistake("48", free, {"free": True}, ACTIVE)]
    if method.cost != 0.1:
        read = fix("read the bound from problem.method.cost")
        found.append(Mistake("51", constant, {"settings": (("cost", 0.1),)}, read))
    for factor, text in ((2.0, "twice"), (0.5, "half")):
        name = f"the bound of the dual variables is {text} problem.method.cost"
        settings = {"settings": (("cost", factor * method.cost),)}
        found.append(Mistake("51", name, settings, fix("0 <= c Y - Z, entry by entry")))
    return found + stopped_duals(method)


def stopped_duals(method):
    """Interior-point methods for the SVM's dual that stop before the optimum."""
    clamped = "slacks and multipliers count as 1e-8 at least where the dual is differentiated"
    found = [Mistake("48", f"{clamped}, as in qpth", {"maxiter": SOLVED}, CLAMP)]
    for steps in STEPS:
        if steps < method.solver_steps:
            name = f"the solver of the dual stops after {steps} step{'s' if steps > 1 else ''}"
            settings = {"settings": (("solver_steps", steps),)}
            found.append(Mistake("51", name, settings, CONVERGE))
    for maxiter in MAXITER:
        name = f"the solver of the dual stops as qpth does with maxIter={maxiter}"
        found.append(Mistake("51", name, {"maxiter": maxiter}, CONVERGE))
    return found
