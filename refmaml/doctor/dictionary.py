"""The dictionary: known wrong meta-gradients, each a Loop (or, for iMAML, an Implicit) with a field or two changed."""

from dataclasses import replace

from refmaml.doctor.implicit import Implicit, implicit_rows
from refmaml.doctor.mistakes import (
    DETACHED,
    HESSIAN,
    ROLES,
    TASKS,
    Mistake,
    fix,
    none,
    shared,
    statistics,
)
from refmaml.doctor.unrolled_variants import mean_over, right_loop, task_rows
from refmaml.doctor.update_rules import Adam, Descent
from refmaml.methods import CAVIA, ERM, IMAML, FirstOrderMAML, MAMLPlusPlus, MetaSGD, Reptile


def unrolled(method):
    """Methods that are differentiated through their inner loop."""
    K = method.inner_steps
    order = (
        second_order(K)
        if not isinstance(method, FirstOrderMAML)
        else [
            Mistake(
                "1",
                "second-order, where first-order was asked for",
                {"curvature": 1.0},
                fix("detach the inner gradients"),
                True,
            )
        ]
    )
    return [
        *order,
        Mistake(
            "5",
            "the query loss is measured at the unadapted parameters",
            {"weights": "start", "rates": "zero"},
            fix("evaluate the query loss at phi_K, not at theta"),
            True,
        ),
        Mistake(
            "12",
            "the inner losses' own gradients are added to the outer one",
            {"accumulated": True},
            fix(
                "clear gradients after the inner loop",
                torch="torch.autograd.grad in the inner loop, not loss.backward()",
            ),
        ),
        Mistake(
            "24",
            "Adam in the inner loop",
            {"rule": Adam()},
            fix("plain gradient descent in the inner loop"),
        ),
        *multi_step(method),
        *of_rates(method),
        *wrong_part(method),
        *shared(method),
    ]


def second_order(K):
    """What becomes of the second-order term."""
    return [
        Mistake(
            "1", "first-order: the second-order term is missing", {"curvature": 0.0}, DETACHED, True
        ),
        Mistake("1", "the Hessian counts twice", {"curvature": 2.0}, HESSIAN),
        Mistake("1", "the Hessian counts half", {"curvature": 0.5}, HESSIAN),
        Mistake("1", "the Hessian has the wrong sign", {"curvature": -1.0}, HESSIAN),
        Mistake(
            "1",
            "the Gauss-Newton matrix stands for the Hessian",
            {"product": "gauss_newton_product"},
            HESSIAN,
        ),
        *(
            Mistake(
                "14",
                f"only the last {m} of the inner steps {'is' if m == 1 else 'are'} differentiated",
                {"back": m},
                fix("keep the graph of every inner step"),
            )
            for m in range(1, K)
        ),
        Mistake(
            "17", "parameters that do not adapt lose their second-order term", mixed_term, DETACHED
        ),
        Mistake(
            "22", "no second derivative through max-pooling", {"kernels": "lost pooling"}, HESSIAN
        ),
        Mistake(
            "23",
            "softmax's probabilities are constants in the second derivative",
            {"kernels": "constant probabilities"},
            HESSIAN,
        ),
    ]


def mixed_term(case):
    """Only where some parameters do not adapt."""
    moves = case.method.adapting(case.net, case.theta)
    return None if moves.all() else {"mixed": False}


def multi_step(method):
    """Losses after every step where the last one is meant, or the other way round."""
    K, text = (
        method.inner_steps,
        fix("one query loss after the last step (MAML++: after each step, with the weights given)"),
    )
    if isinstance(method, MAMLPlusPlus):
        return [
            Mistake("15", "only the loss after the last step counts", {"weights": "last"}, text)
        ]
    if K == 1:
        return [
            Mistake(
                "15", "the losses before and after the step are averaged", {"weights": "all"}, text
            )
        ]
    return [
        Mistake(
            "15", "the query losses after every step are averaged", {"weights": "after"}, text, True
        ),
        Mistake(
            "15",
            "the query losses before, between and after the steps are averaged",
            {"weights": "all"},
            text,
        ),
    ]


def of_rates(method):
    """Gradients of learned step sizes."""
    if not isinstance(method, (MetaSGD, MAMLPlusPlus)):
        return []
    text = fix("dM/dA = sum over steps of -grad f(phi_k) * lam_{k+1}")
    found = [
        Mistake("18", "the step sizes' gradient is first-order", {"rates": "query"}, text),
        Mistake("18", "the step sizes' gradient has the wrong sign", {"rates": "negative"}, text),
        Mistake("18", "the step sizes have no gradient", {"rates": "zero"}, text),
    ]
    if isinstance(method, MetaSGD) and method.inner_steps > 1:
        found += [
            Mistake(
                "18",
                f"the step sizes' gradient holds the {which} inner step only",
                {"rates": which},
                text,
            )
            for which in ("first", "last")
        ]
    return found


def wrong_part(method):
    """Methods that adapt a part, taken for those that adapt another."""
    if isinstance(method, (MetaSGD, MAMLPlusPlus, CAVIA)) or tuple(method.adapts) == ("*",):
        return []
    return [
        Mistake(
            "17",
            "the inner loop adapts every parameter",
            {"adapts": ("*",)},
            fix(f"adapt {', '.join(method.adapts)} only"),
            True,
        ),
        Mistake(
            "17",
            "the inner loop adapts the body in place of the head",
            {"adapts": ("body",)},
            fix("adapt the head only"),
        ),
    ]


# ---- the others ------------------------------------------------------------------------------------------------------


def reptile(method):
    """Reptile: nothing is differentiated, so that what can go wrong is the walk and the difference."""
    text = fix("theta - phi_K, the mean over tasks; the outer step then subtracts it")
    other = Adam(0.0) if method.optimizer == "sgd" else Descent()
    found = [
        Mistake("38", "2 theta - phi_K in place of theta - phi_K", {"direction": "blend"}, text),
        Mistake("38", "the adapted parameters themselves", {"direction": "adapted"}, text),
        Mistake("39", "the query loss's gradient (first-order MAML)", {"direction": "query"}, text),
        Mistake(
            "24",
            f"the inner optimiser is not {method.optimizer}",
            {"rule": other},
            fix(f"use {method.optimizer}"),
        ),
        Mistake(
            "24",
            "Adam with its usual beta1 = 0.9 in the inner loop",
            {"rule": Adam()},
            fix("Reptile's Adam has beta1 = 0"),
        ),
    ]
    if method.optimizer == "adam":
        found.append(
            Mistake(
                "25",
                "Adam's state is carried from task to task",
                {"carry": True},
                fix("a fresh optimiser for every task"),
            )
        )
    if method.inner_batch is not None:
        found.append(
            Mistake(
                "39",
                "every inner step sees the whole support set",
                {"places": "all"},
                fix("mini-batches of inner_batch"),
            )
        )
    return found + shared(method)


def imaml(method):
    """iMAML: the inner problem, the linear system and what solves it."""
    q = fix("solve (I + H(phi*) / lambda) u = grad g(phi*), all of it at phi*")
    solve = fix(
        "CG until the residual is small: x += a p, r -= a A p with one a = |r|^2 / p'Ap; p = r_new + (|r_new|^2 / |r|^2) p"
    )
    return [
        Mistake(
            "1",
            "the query gradient at phi* itself, no linear system solved (first-order)",
            {"curvature": 0.0},
            q,
            True,
        ),
        Mistake("5", "the query gradient at the initial parameters", {"query_at": "start"}, q),
        Mistake(
            "5",
            "the query gradient at the initial parameters, no linear system solved",
            {"query_at": "start", "curvature": 0.0},
            q,
        ),
        Mistake(
            "6", "the query loss is measured on the support set", {"query": "support"}, ROLES, True
        ),
        Mistake("6", "the inner problem is on the query set", {"support": "query"}, ROLES, True),
        Mistake(
            "7",
            "support and query sets are swapped",
            {"support": "query", "query": "support"},
            ROLES,
            True,
        ),
        Mistake("8", "only the first task counts", {"tasks": "first"}, TASKS, True),
        Mistake("8", "only the last task counts", {"tasks": "last"}, TASKS, True),
        Mistake(
            "23",
            "softmax's probabilities are constants in the second derivative",
            {"kernels": "constant probabilities"},
            HESSIAN,
        ),
        Mistake(
            "22", "no second derivative through max-pooling", {"kernels": "lost pooling"}, HESSIAN
        ),
        Mistake(
            "27",
            "the inner problem lacks its proximal term",
            {"prox": False},
            fix("minimise f(phi) + (lambda/2) |phi - theta|^2"),
            True,
        ),
        Mistake("28", "the linear system has 2 lambda for lambda", {"outer": 2.0}, q, True),
        Mistake("28", "the linear system has lambda / 2 for lambda", {"outer": 0.5}, q, True),
        Mistake(
            "28",
            "the inner problem has 2 lambda for lambda",
            {"inner": 2.0},
            fix("(lambda/2) |phi - theta|^2, with the half"),
            True,
        ),
        Mistake(
            "28",
            "the inner problem has lambda / 2 for lambda",
            {"inner": 0.5},
            fix("(lambda/2) |phi - theta|^2, once"),
            True,
        ),
        Mistake(
            "28",
            "2 lambda for lambda throughout",
            {"inner": 2.0, "outer": 2.0},
            fix("(lambda/2) |phi - theta|^2, with the half"),
        ),
        Mistake(
            "28",
            "lambda / 2 for lambda throughout",
            {"inner": 0.5, "outer": 0.5},
            fix("(lambda/2) |phi - theta|^2, once"),
        ),
        Mistake(
            "28",
            "lambda is a constant of the function's own, not problem.method.regularization",
            constant_strength,
            fix("read lambda from problem.method: it differs from probe to probe"),
        ),
        Mistake(
            "30", "the Hessian has the wrong sign in the linear system", {"curvature": -1.0}, q
        ),
        Mistake(
            "1",
            "the Hessian counts twice in the linear system, and so does I",
            {"curvature": 2.0, "identity": 2.0},
            q,
        ),
        Mistake(
            "1",
            "the Gauss-Newton matrix stands for the Hessian",
            {"product": "gauss_newton_product"},
            HESSIAN,
        ),
        Mistake("5", "the Hessian is taken at the initial parameters", {"at": "start"}, q),
        *(
            Mistake(
                "31",
                f"damping: ({1 + damp:g} I + H / (lambda + {extra:g}))",
                {"identity": 1.0 + damp, "extra": extra},
                fix("no damping in the system whose solution is the gradient"),
            )
            for damp in (0.0, 1.0)
            for extra in (0.0, 1.0, 10.0)
            if damp or extra
        ),
        *(
            Mistake(
                "33",
                f"CG's directions start from the old residual{after(m)}",
                {"solver": ("beta", m)},
                solve,
            )
            for m in (None, 3, 5, 10)
        ),
        *(
            Mistake(
                "34",
                f"CG's step is {1 / c:g} times too long{after(m)}",
                {"solver": ("scaled", m, c)},
                solve,
            )
            for c in (0.5, 0.1)
            for m in (None, 3, 5, 10)
        ),
        *(
            Mistake(
                "35",
                f"CG stops after {m} iteration{'s' * (m > 1)}",
                {"solver": ("stopped", m)},
                solve,
            )
            for m in (1, 2, 3, 4, 5)
            if m < method.cg_steps
        ),
    ]


def constant_strength(case):
    """The lambda that the user named, where the probe has another."""
    given = getattr(case.given, "regularization", case.method.regularization)
    factor = given / case.method.regularization
    return {"inner": factor, "outer": factor} if factor != 1 else None


def after(iterations):
    return f", {iterations} iterations" if iterations else ""


def erm(method):
    """No adaptation."""
    return [
        Mistake("6", "the loss is measured on the support set", {"query": "support"}, ROLES),
        Mistake("8", "only the first task counts", {"tasks": "first"}, TASKS),
        Mistake("8", "only the last task counts", {"tasks": "last"}, TASKS),
        *(m for m in statistics() if "kernels" in m.changes and "query_kernels" in m.changes),
    ]


# ---- their use -------------------------------------------------------------------------------------------------------


def dictionary(method):
    """Every Mistake that a method can have."""
    makers = {IMAML: imaml, ERM: erm, Reptile: reptile}
    maker = next((makers[c] for c in makers if isinstance(method, c)), unrolled)
    return [m for m in maker(method) if m.changes is not none]


def right_recipe(method):
    """The method itself as a Loop or an Implicit."""
    return Implicit() if isinstance(method, IMAML) else right_loop(method)


def candidate(case, changes):
    """The meta-gradient (M,) of a case with some fields changed."""
    recipe = replace(right_recipe(case.method), **changes)
    rows = implicit_rows(case, recipe) if isinstance(recipe, Implicit) else task_rows(case, recipe)
    return mean_over(rows, recipe.tasks)


def pairs(mistakes):
    """Two mistakes at once, one of them common and neither of a kind that comes in a dozen strengths."""
    some = [m for m in mistakes if m.row not in ALONE]
    return [(a, b) for i, a in enumerate(some) for b in some[i + 1 :] if a.common or b.common]


ALONE = ("decay", "21", "26", "31", "33", "34", "35", "41", "42")
