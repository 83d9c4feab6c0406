"""The dictionary: known wrong meta-gradients, each a Loop (or, for iMAML, an Implicit) with a field or two changed.

A row is the mistake's number in the collection it was gathered in; several forms of one mistake share their row. Scales (a sum in place of
a mean, a missing 1 / lambda, a sign) are no rows of their own: every candidate is compared up to one factor, and scales.py says what that is.
"""
from dataclasses import replace
from typing import Any, NamedTuple

from refmaml.doctor.implicit import Implicit, implicit_rows
from refmaml.doctor.loop import mean_over, right_loop, task_rows
from refmaml.doctor.update_rules import Adam, Descent, EntryClip, Momentum, NormClip
from refmaml.methods import ANIL, CAVIA, ERM, IMAML, FirstOrderMAML, MAMLPlusPlus, MetaSGD, Reptile


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


def fix(text="", torch="", jax="", numpy=""):
    """A fix by framework; the first text is for all others."""
    return {"": text, **({"torch": torch} if torch else {}), **({"jax": jax} if jax else {}), **({"numpy": numpy} if numpy else {})}


DETACHED = fix("let the inner gradients depend on the parameters: add -alpha H lam in every step on the way back",
               torch="torch.autograd.grad(..., create_graph=True) in the inner loop, no .detach(), .data or no_grad() there",
               jax="no lax.stop_gradient on the inner gradients or adapted parameters",
               numpy="lam = lam - alpha * H(phi_k) @ lam for every inner step k, from the last to the first")
HESSIAN = fix("hold the Hessian-vector product against a difference of two gradients")
TASKS = fix("add the loss of every task to the outer loss, then divide by their number",
            torch="losses = [...] for every task; torch.stack(losses).mean(), no losses[-1], no += loss.item()",
            jax="jax.vmap over tasks, then .mean(0)")
ROLES = fix("adapt on x_support, y_support; judge on x_query, y_query")
REBIND = fix("phi = phi - alpha * grad(phi): take gradient and difference at the phi of the step before")
STEPS = fix("run the inner loop exactly inner_steps times")
STATISTICS = fix("normalise with the batch's own statistics, and differentiate them",
                 torch="module.train(), or F.batch_norm(..., training=True) with running statistics None",
                 jax="use_running_average=False, and no stop_gradient on mean and variance")


# ---- methods with an inner loop ------------------------------------------------------------------------------------------------------

def shared(method):
    """Mistakes of the inner loop, the roles of the sets and the tasks, that any method with an inner loop can have."""
    K = method.inner_steps
    found = [
        Mistake("6", "the query loss is measured on the support set", {"query": "support"}, ROLES, True),
        Mistake("6", "the inner loop adapts on the query set", {"support": "query"}, ROLES, True),
        Mistake("6", "the inner loop adapts on support and query together", {"support": "both"}, ROLES),
        Mistake("7", "support and query sets are swapped", {"support": "query", "query": "support"}, ROLES, True),
        Mistake("8", "only the first task counts", {"tasks": "first"}, TASKS, True),
        Mistake("8", "only the last task counts", {"tasks": "last"}, TASKS, True),
        Mistake("13", "every inner step takes the gradient at the initial parameters", {"base": "once"}, REBIND, True),
        Mistake("13", "every inner step starts from the initial parameters", {"base": "start"}, REBIND, True),
        Mistake("16", "one inner step too few", {"steps": K - 1} if K > 1 else none, STEPS, True),
        Mistake("16", "one inner step too many", {"steps": K + 1}, STEPS, True),
        Mistake("13", "a single inner step, whatever inner_steps says", {"steps": 1} if K > 2 else none, REBIND, True),
        *rates(), *statistics(), *clips(),
        Mistake("26", "momentum 0.9 in the inner loop", {"rule": Momentum(0.9)}, fix("plain gradient descent in the inner loop"))]
    found += [Mistake("decay", f"weight decay {value:g} in the inner loop", {"decay": value}, fix("no weight decay in the inner loop"))
              for value in (1e-1, 1e-2, 1e-3, 5e-4, 1e-4)]
    return found + unadapted()


def none(case):
    """A mistake that cannot arise."""
    return None


def rates():
    """Inner losses that are sums where means are meant, or the other way round: a factor on the step size."""
    text = fix("the inner loss is the mean over the support examples of one task")
    names = {"N": ("summed over the support examples", "divided by the number of support examples once too often"),
             "C": ("summed over outputs (or per shot)", "divided by the number of outputs once too often"),
             "B": ("multiplied by the number of tasks", "divided by the number of tasks")}
    found = []
    for symbol, (more, less) in names.items():
        def times(case, symbol=symbol, power=1):
            return {"rate": case.symbols[symbol] ** power} if symbol in case.symbols else None
        found.append(Mistake("11", f"the inner loss is {more}", times, text, True))
        found.append(Mistake("11", f"the inner loss is {less}", lambda case, f=times: f(case, power=-1), text, True))
    return [*found, Mistake("11", "the inner step size is twice as large", {"rate": 2.0}, text, True),
            Mistake("11", "the inner step size is half as large", {"rate": 0.5}, text, True),
            Mistake("11", "the inner loop climbs: its gradient has the wrong sign", {"rate": -1.0}, fix("phi = phi - alpha * gradient"), True)]


def statistics():
    """Batch-norm, max-pooling and softmax."""
    found = []
    for what, text in (("detached statistics", "batch-norm's mean and variance are treated as constants"),
                       ("running statistics", "batch-norm runs in evaluation mode on fresh running statistics")):
        found += [Mistake("19", text, {"kernels": what, "query_kernels": what}, STATISTICS, True),
                  Mistake("19", f"{text}, in the inner loop only", {"kernels": what}, STATISTICS),
                  Mistake("19", f"{text}, on the query set only", {"query_kernels": what}, STATISTICS)]
    both = [("21", "batch-norm uses the unbiased variance", "unbiased variance", "divide by n, not n - 1 (torch: unbiased=False)"),
            ("21", "batch-norm uses eps = 1e-5", "eps 1e-5", "use the net's eps"), ("21", "batch-norm uses eps = 1e-3", "eps 1e-3",
                                                                                  "use the net's eps"),
            ("21", "batch-norm uses eps = 1e-2", "eps 1e-2", "use the net's eps")]
    found += [Mistake(row, text, {"kernels": key, "query_kernels": key}, fix(how)) for row, text, key, how in both]
    return [*found, Mistake("21", "query points are normalised with the support set's statistics", {"query_kernels": "support statistics"},
                            STATISTICS)]


def clips():
    """Clipping in the inner loop."""
    text = fix("no clipping inside the inner loop, or differentiate through it")
    found = []
    for c in (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0):
        found += [Mistake("26", f"the inner gradients are clipped to norm {c:g}, the clipping not differentiated",
                          {"rule": NormClip(c, constant=True)}, text),
                  Mistake("26", f"the inner gradients are clipped to norm {c:g}", {"rule": NormClip(c)}, text),
                  Mistake("26", f"the inner gradients' entries are clipped to [-{c:g}, {c:g}]", {"rule": EntryClip(c)}, text)]
    return found


def unadapted():
    """Parameters that the inner loop skips, or updates twice."""
    found = []
    for pattern, what in (("head", "the head"), ("body", "the body"), ("*.bias", "every bias"), ("*.weight", "every weight"),
                          ("BatchNorm2d", "batch-norm"), ("0.weight", "0.weight"), ("0.bias", "0.bias"), ("1.weight", "1.weight"),
                          ("1.bias", "1.bias"), ("2.weight", "2.weight"), ("2.bias", "2.bias"), ("5.weight", "5.weight"),
                          ("5.bias", "5.bias")):
        found.append(Mistake("41", f"the inner loop does not adapt {what}", {"factors": ((pattern, 0.0),)},
                             fix("update every parameter that adapts; a missing (None) gradient is an error, not a reason to skip")))
        found.append(Mistake("42", f"the inner loop updates {what} twice in each step", {"factors": ((pattern, 2.0),)},
                             fix("update every parameter once in each step, shared ones too")))
    return found


def unrolled(method):
    """Methods that are differentiated through their inner loop."""
    K = method.inner_steps
    first = isinstance(method, FirstOrderMAML)
    order = ([Mistake("1", "second-order, where first-order was asked for", {"curvature": 1.0}, fix("detach the inner gradients"), True)] if first
             else [Mistake("1", "first-order: the second-order term is missing", {"curvature": 0.0}, DETACHED, True),
                   Mistake("1", "the Hessian counts twice", {"curvature": 2.0}, HESSIAN),
                   Mistake("1", "the Hessian counts half", {"curvature": 0.5}, HESSIAN),
                   Mistake("1", "the Hessian has the wrong sign", {"curvature": -1.0}, HESSIAN),
                   Mistake("1", "the Gauss-Newton matrix stands for the Hessian", {"product": "gauss_newton_product"}, HESSIAN),
                   *(Mistake("14", f"only the last {m} of the inner steps {'is' if m == 1 else 'are'} differentiated", {"back": m},
                             fix("keep the graph of every inner step")) for m in range(1, K)),
                   Mistake("17", "parameters that do not adapt lose their second-order term", mixed_term, DETACHED),
                   Mistake("22", "no second derivative through max-pooling", {"kernels": "lost pooling"}, HESSIAN),
                   Mistake("23", "softmax's probabilities are constants in the second derivative", {"kernels": "constant probabilities"},
                           HESSIAN)])
    return [*order,
            Mistake("5", "the query loss is measured at the unadapted parameters", {"weights": "start", "rates": "zero"},
                    fix("evaluate the query loss at phi_K, not at theta"), True),
            Mistake("12", "the inner losses' own gradients are added to the outer one", {"accumulated": True},
                    fix("clear gradients after the inner loop", torch="torch.autograd.grad in the inner loop, not loss.backward()")),
            Mistake("24", "Adam in the inner loop", {"rule": Adam()}, fix("plain gradient descent in the inner loop")),
            *multi_step(method), *of_rates(method), *wrong_part(method), *shared(method)]


def mixed_term(case):
    """Only where some parameters do not adapt."""
    moves = case.method.adapting(case.net, case.theta)
    return None if moves.all() else {"mixed": False}


def multi_step(method):
    """Losses after every step where the last one is meant, or the other way round."""
    K, text = method.inner_steps, fix("one query loss after the last step (MAML++: after each step, with the weights given)")
    if isinstance(method, MAMLPlusPlus):
        return [Mistake("15", "only the loss after the last step counts", {"weights": "last"}, text)]
    if K == 1:
        return [Mistake("15", "the losses before and after the step are averaged", {"weights": "all"}, text)]
    return [Mistake("15", "the query losses after every step are averaged", {"weights": "after"}, text, True),
            Mistake("15", "the query losses before, between and after the steps are averaged", {"weights": "all"}, text)]


def of_rates(method):
    """Gradients of learned step sizes."""
    if not isinstance(method, (MetaSGD, MAMLPlusPlus)):
        return []
    text = fix("dM/dA = sum over steps of -grad f(phi_k) * lam_{k+1}")
    found = [Mistake("18", "the step sizes' gradient is first-order", {"rates": "query"}, text),
             Mistake("18", "the step sizes' gradient has the wrong sign", {"rates": "negative"}, text),
             Mistake("18", "the step sizes have no gradient", {"rates": "zero"}, text)]
    if isinstance(method, MetaSGD) and method.inner_steps > 1:
        found += [Mistake("18", f"the step sizes' gradient holds the {which} inner step only", {"rates": which}, text)
                  for which in ("first", "last")]
    return found


def wrong_part(method):
    """Methods that adapt a part, taken for those that adapt another."""
    if isinstance(method, (MetaSGD, MAMLPlusPlus, CAVIA)) or tuple(method.adapts) == ("*",):
        return []
    return [Mistake("17", "the inner loop adapts every parameter", {"adapts": ("*",)}, fix(f"adapt {', '.join(method.adapts)} only"), True),
            Mistake("17", "the inner loop adapts the body in place of the head", {"adapts": ("body",)}, fix("adapt the head only"))]


# ---- the others -------------------------------------------------------------------------------------------------------------------------

def reptile(method):
    """Reptile: nothing is differentiated, so that what can go wrong is the walk and the difference."""
    text = fix("theta - phi_K, the mean over tasks; the outer step then subtracts it")
    other = Adam(0.0) if method.optimizer == "sgd" else Descent()
    found = [Mistake("38", "2 theta - phi_K in place of theta - phi_K", {"direction": "blend"}, text),
             Mistake("38", "the adapted parameters themselves", {"direction": "adapted"}, text),
             Mistake("39", "the query loss's gradient (first-order MAML)", {"direction": "query"}, text),
             Mistake("24", f"the inner optimiser is not {method.optimizer}", {"rule": other}, fix(f"use {method.optimizer}")),
             Mistake("24", "Adam with its usual beta1 = 0.9 in the inner loop", {"rule": Adam()}, fix("Reptile's Adam has beta1 = 0"))]
    if method.optimizer == "adam":
        found.append(Mistake("25", "Adam's state is carried from task to task", {"carry": True}, fix("a fresh optimiser for every task")))
    if method.inner_batch is not None:
        found.append(Mistake("39", "every inner step sees the whole support set", {"places": "all"}, fix("mini-batches of inner_batch")))
    return found + shared(method)


def imaml(method):
    """iMAML: the inner problem, the linear system and what solves it."""
    q = fix("solve (I + H(phi*) / lambda) u = grad g(phi*), all of it at phi*")
    solve = fix("CG until the residual is small: x += a p, r -= a A p with one a = |r|^2 / p'Ap; p = r_new + (|r_new|^2 / |r|^2) p")
    return [
        Mistake("1", "the query gradient at phi* itself, no linear system solved (first-order)", {"curvature": 0.0}, q, True),
        Mistake("5", "the query gradient at the initial parameters", {"query_at": "start"}, q),
        Mistake("5", "the query gradient at the initial parameters, no linear system solved", {"query_at": "start", "curvature": 0.0}, q),
        Mistake("6", "the query loss is measured on the support set", {"query": "support"}, ROLES, True),
        Mistake("6", "the inner problem is on the query set", {"support": "query"}, ROLES, True),
        Mistake("7", "support and query sets are swapped", {"support": "query", "query": "support"}, ROLES, True),
        Mistake("8", "only the first task counts", {"tasks": "first"}, TASKS, True),
        Mistake("8", "only the last task counts", {"tasks": "last"}, TASKS, True),
        Mistake("23", "softmax's probabilities are constants in the second derivative", {"kernels": "constant probabilities"}, HESSIAN),
        Mistake("22", "no second derivative through max-pooling", {"kernels": "lost pooling"}, HESSIAN),
        Mistake("27", "the inner problem lacks its proximal term", {"prox": False}, fix("minimise f(phi) + (lambda/2) |phi - theta|^2"), True),
        Mistake("28", "the linear system has 2 lambda for lambda", {"outer": 2.0}, q, True),
        Mistake("28", "the linear system has lambda / 2 for lambda", {"outer": 0.5}, q, True),
        Mistake("28", "the inner problem has 2 lambda for lambda", {"inner": 2.0}, fix("(lambda/2) |phi - theta|^2, with the half"), True),
        Mistake("28", "the inner problem has lambda / 2 for lambda", {"inner": 0.5}, fix("(lambda/2) |phi - theta|^2, once"), True),
        Mistake("28", "2 lambda for lambda throughout", {"inner": 2.0, "outer": 2.0}, fix("(lambda/2) |phi - theta|^2, with the half")),
        Mistake("28", "lambda / 2 for lambda throughout", {"inner": 0.5, "outer": 0.5}, fix("(lambda/2) |phi - theta|^2, once")),
        Mistake("30", "the Hessian has the wrong sign in the linear system", {"curvature": -1.0}, q),
        Mistake("1", "the Hessian counts twice in the linear system, and so does I", {"curvature": 2.0, "identity": 2.0}, q),
        Mistake("1", "the Gauss-Newton matrix stands for the Hessian", {"product": "gauss_newton_product"}, HESSIAN),
        Mistake("5", "the Hessian is taken at the initial parameters", {"at": "start"}, q),
        *(Mistake("31", f"damping: ({1 + damp:g} I + H / (lambda + {extra:g}))", {"identity": 1.0 + damp, "extra": extra},
                  fix("no damping in the system whose solution is the gradient"))
          for damp in (0.0, 1.0) for extra in (0.0, 1.0, 10.0) if damp or extra),
        *(Mistake("33", f"CG's directions start from the old residual{after(m)}", {"solver": ("beta", m)}, solve)
          for m in (None, 3, 5, 10)),
        *(Mistake("34", f"CG's step is {1 / c:g} times too long{after(m)}", {"solver": ("scaled", m, c)}, solve)
          for c in (0.5, 0.1) for m in (None, 3, 5, 10)),
        *(Mistake("35", f"CG stops after {m} iteration{'s' * (m > 1)}", {"solver": ("stopped", m)}, solve)
          for m in (1, 2, 3, 4, 5) if m < method.cg_steps)]


def after(iterations):
    return f", {iterations} iterations" if iterations else ""


def erm(method):
    """No adaptation."""
    return [Mistake("6", "the loss is measured on the support set", {"query": "support"}, ROLES),
            Mistake("8", "only the first task counts", {"tasks": "first"}, TASKS),
            Mistake("8", "only the last task counts", {"tasks": "last"}, TASKS),
            *(m for m in statistics() if "kernels" in m.changes and "query_kernels" in m.changes)]


# ---- their use ------------------------------------------------------------------------------------------------------------------------------

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
    return [(a, b) for i, a in enumerate(some) for b in some[i + 1:] if a.common or b.common]


ALONE = ("decay", "21", "26", "31", "33", "34", "35", "41", "42")
