"""What the dictionary is made of: a Mistake, what to do about it, and those that any method with an inner loop can have.

A row is the mistake's number in the collection it was gathered in; several forms of one mistake share their row. Scales (a sum in place
of a mean, a missing 1 / lambda, a sign) are no rows of their own: every candidate is compared up to one factor, which scale_factors.py names.
"""

from typing import Any, NamedTuple

from refmaml.doctor.update_rules import EntryClip, Momentum, NormClip


class Mistake(NamedTuple):
    """row; name: what is wrong, in a few words; changes: {field: value}, or a function of a case that returns that (None: does not arise);
    fix: what to do about it, by framework, "" for any; common: whether it also occurs together with another."""

    row: str
    name: str
    changes: Any
    fix: dict = {}
    common: bool = False

    def of(self, case):
        """{field: value} on this case, or None where the mistake cannot arise there."""
        return self.changes(case) if callable(self.changes) else self.changes

    def repair(self, framework):
        """What to do about it in a framework."""
        return self.fix.get(framework, self.fix.get("", ""))


def fix(text="", torch="", jax="", numpy=""):
    """A fix by framework; the first text is for all others."""
    return {
        "": text,
        **({"torch": torch} if torch else {}),
        **({"jax": jax} if jax else {}),
        **({"numpy": numpy} if numpy else {}),
    }


DETACHED = fix(
    "let the inner gradients depend on the parameters: add -alpha H lam in every step on the way back",
    torch="torch.autograd.grad(..., create_graph=True) in the inner loop, no .detach(), .data or no_grad() there",
    jax="no lax.stop_gradient on the inner gradients or adapted parameters",
    numpy="lam = lam - alpha * H(phi_k) @ lam for every inner step k, from the last to the first",
)
HESSIAN = fix("hold the Hessian-vector product against a difference of two gradients")
TASKS = fix(
    "add the loss of every task to the outer loss, then divide by their number",
    torch="losses = [...] for every task; torch.stack(losses).mean(), no losses[-1], no += loss.item()",
    jax="jax.vmap over tasks, then .mean(0)",
)
ROLES = fix("adapt on x_support, y_support; judge on x_query, y_query")
REBIND = fix(
    "phi = phi - alpha * grad(phi): take gradient and difference at the phi of the step before"
)
STEPS = fix("run the inner loop exactly inner_steps times")
STATISTICS = fix(
    "normalise with the batch's own statistics, and differentiate them",
    torch="module.train(), or F.batch_norm(..., training=True) with running statistics None",
    jax="use_running_average=False, and no stop_gradient on mean and variance",
)


def shared(method):
    """Mistakes of the inner loop, the roles of the sets and the tasks, that any method with an inner loop can have."""
    K = method.inner_steps
    found = [
        Mistake(
            "6", "the query loss is measured on the support set", {"query": "support"}, ROLES, True
        ),
        Mistake("6", "the inner loop adapts on the query set", {"support": "query"}, ROLES, True),
        Mistake(
            "6", "the inner loop adapts on support and query together", {"support": "both"}, ROLES
        ),
        Mistake(
            "7",
            "support and query sets are swapped",
            {"support": "query", "query": "support"},
            ROLES,
            True,
        ),
        Mistake("8", "only the first task counts", {"tasks": "first"}, TASKS, True),
        Mistake("8", "only the last task counts", {"tasks": "last"}, TASKS, True),
        Mistake("8", "the first task is left out", {"tasks": "not first"}, TASKS),
        Mistake("8", "the last task is left out", {"tasks": "not last"}, TASKS),
        Mistake(
            "13",
            "every inner step takes the gradient at the initial parameters",
            {"base": "once"},
            REBIND,
            True,
        ),
        Mistake(
            "13",
            "every inner step starts from the initial parameters",
            {"base": "start"},
            REBIND,
            True,
        ),
        Mistake("16", "one inner step too few", {"steps": K - 1} if K > 1 else none, STEPS, True),
        Mistake("16", "one inner step too many", {"steps": K + 1}, STEPS, True),
        Mistake(
            "13",
            "a single inner step, whatever inner_steps says",
            {"steps": 1} if K > 2 else none,
            REBIND,
            True,
        ),
        *rates(),
        *statistics(),
        *clips(),
        Mistake(
            "26",
            "momentum 0.9 in the inner loop",
            {"rule": Momentum(0.9)},
            fix("plain gradient descent in the inner loop"),
        ),
    ]
    found += [
        Mistake(
            "decay",
            f"weight decay {value:g} in the inner loop",
            {"decay": value},
            fix("no weight decay in the inner loop"),
        )
        for value in (1e-1, 1e-2, 1e-3, 5e-4, 1e-4)
    ]
    return found + unadapted()


def none(case):
    """A mistake that cannot arise."""
    return None


def constant_rate(case):
    """The step size that the user named, where the probe has another."""
    given = getattr(case.given, "inner_lr", case.method.inner_lr)
    return {"rate": given / case.method.inner_lr} if given != case.method.inner_lr else None


def rates():
    """Inner losses that are sums where means are meant, or the other way round: a factor on the step size."""
    text = fix("the inner loss is the mean over the support examples of one task")
    names = {
        "N": (
            "summed over the support examples",
            "divided by the number of support examples once too often",
        ),
        "C": (
            "summed over outputs (or per shot)",
            "divided by the number of outputs once too often",
        ),
        "B": ("multiplied by the number of tasks", "divided by the number of tasks"),
    }
    found = []
    for symbol, (more, less) in names.items():

        def times(case, symbol=symbol, power=1):
            return {"rate": case.symbols[symbol] ** power} if symbol in case.symbols else None

        found.append(Mistake("11", f"the inner loss is {more}", times, text, True))
        found.append(
            Mistake(
                "11",
                f"the inner loss is {less}",
                lambda case, f=times: f(case, power=-1),
                text,
                True,
            )
        )
    return [
        *found,
        Mistake(
            "11",
            "the inner step size is a constant of the function's own, not problem.method.inner_lr",
            constant_rate,
            fix("read the step size from problem.method: it differs from probe to probe"),
            True,
        ),
        Mistake("11", "the inner step size is twice as large", {"rate": 2.0}, text, True),
        Mistake("11", "the inner step size is half as large", {"rate": 0.5}, text, True),
        Mistake(
            "11",
            "the inner loop climbs: its gradient has the wrong sign",
            {"rate": -1.0},
            fix("phi = phi - alpha * gradient"),
            True,
        ),
    ]


def statistics():
    """Batch-norm, max-pooling and softmax."""
    found = []
    for what, text in (
        ("detached statistics", "batch-norm's mean and variance are treated as constants"),
        ("running statistics", "batch-norm runs in evaluation mode on fresh running statistics"),
    ):
        found += [
            Mistake("19", text, {"kernels": what, "query_kernels": what}, STATISTICS, True),
            Mistake("19", f"{text}, in the inner loop only", {"kernels": what}, STATISTICS),
            Mistake("19", f"{text}, on the query set only", {"query_kernels": what}, STATISTICS),
        ]
    both = [
        (
            "21",
            "batch-norm uses the unbiased variance",
            "unbiased variance",
            "divide by n, not n - 1 (torch: unbiased=False)",
        ),
        ("21", "batch-norm uses eps = 1e-5", "eps 1e-5", "use the net's eps"),
        ("21", "batch-norm uses eps = 1e-3", "eps 1e-3", "use the net's eps"),
        ("21", "batch-norm uses eps = 1e-2", "eps 1e-2", "use the net's eps"),
    ]
    found += [
        Mistake(row, text, {"kernels": key, "query_kernels": key}, fix(how))
        for row, text, key, how in both
    ]
    return [
        *found,
        Mistake(
            "21",
            "query points are normalised with the support set's statistics",
            {"query_kernels": "support statistics"},
            STATISTICS,
        ),
    ]


def clips():
    """Clipping in the inner loop."""
    text = fix("no clipping inside the inner loop, or differentiate through it")
    found = []
    for c in (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0):
        found += [
            Mistake(
                "26",
                f"the inner gradients are clipped to norm {c:g}, the clipping not differentiated",
                {"rule": NormClip(c, constant=True)},
                text,
            ),
            Mistake(
                "26", f"the inner gradients are clipped to norm {c:g}", {"rule": NormClip(c)}, text
            ),
            Mistake(
                "26",
                f"the inner gradients' entries are clipped to [-{c:g}, {c:g}]",
                {"rule": EntryClip(c)},
                text,
            ),
        ]
    return found


def unadapted():
    """Parameters that the inner loop skips, or updates twice."""
    found = []
    for pattern, what in (
        ("head", "the head"),
        ("body", "the body"),
        ("*.bias", "every bias"),
        ("*.weight", "every weight"),
        ("BatchNorm2d", "batch-norm"),
        ("0.weight", "0.weight"),
        ("0.bias", "0.bias"),
        ("1.weight", "1.weight"),
        ("1.bias", "1.bias"),
        ("2.weight", "2.weight"),
        ("2.bias", "2.bias"),
        ("5.weight", "5.weight"),
        ("5.bias", "5.bias"),
    ):
        found.append(
            Mistake(
                "41",
                f"the inner loop does not adapt {what}",
                {"factors": ((pattern, 0.0),)},
                fix(
                    "update every parameter that adapts; a missing (None) gradient is an error, not a reason to skip"
                ),
            )
        )
        found.append(
            Mistake(
                "42",
                f"the inner loop updates {what} twice in each step",
                {"factors": ((pattern, 2.0),)},
                fix("update every parameter once in each step, shared ones too"),
            )
        )
    return found
