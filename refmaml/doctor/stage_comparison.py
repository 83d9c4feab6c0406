"""The stages that a function returned beside its gradient, compared one by one.

Each stage is compared with what it should be at the function's own inputs, in the order
in which stages depend on each other, so that one wrong stage does not make those after
it look wrong:

    inner_grad[k]   grad f at the function's own phi_k
    phi[k+1]        the step from its own phi_k by its own inner_grad[k]
    loss            g at its own phi_K;  query_grad: grad g there
    hvp[k]          H_f(phi_k) (A_k lam_{k+1}), lam from its own query_grad and hvp
"""

from typing import Any, NamedTuple

import numpy as np

from refmaml.doctor.findings import Finding
from refmaml.doctor.learned_matrices import with_matrices
from refmaml.doctor.method_table import DISPLACEMENT, UNROLLED, entry
from refmaml.doctor.stages_of_methods import compare_with_truth
from refmaml.doctor.unrolled_forward import data, mini_batches, start_and_rates
from refmaml.doctor.unrolled_variants import right_loop

MARGIN = 100.0  # how many times what rounding allows in the gradient a stage may be off
FORWARD = {"inner_grad", "phi", "adapted", "query_grad"}
SECOND = (
    "every stage that was returned is right, the way back is wrong: the Hessian-vector product, "
    "so the second derivative of an operation, or how its results are added up"
)


class Walk(NamedTuple):
    """What the comparison of an inner loop goes along: case, loop, phi_0 (T, P), step
    sizes, places of the mini-batches, what was returned, and the relative bound."""

    case: Any
    loop: Any
    start: np.ndarray
    rates: list
    places: list
    stages: dict
    bound: float


def compare_stages(case, answer):
    """[Finding] of the first returned stage that is wrong; [] where none is."""
    bound = MARGIN * float((case.allowed / np.abs(case.truth).max()).max())
    if entry(case.method).kind not in (UNROLLED, DISPLACEMENT):
        return compare_with_truth(case, answer.stages, bound)
    wrong_length = steps_missing(case, answer.stages)
    if wrong_length:
        return wrong_length
    loop = with_matrices(case, right_loop(case.method))
    phi, rates = start_and_rates(case, loop)
    start = np.broadcast_to(phi, (len(case.batch), case.net.num_params))
    places = mini_batches(case, loop, case.batch.x_support.shape[1])
    walk = Walk(case, loop, start, rates, places, answer.stages, bound)
    findings, phis = compare_inner_loop(walk)
    return findings or compare_query(walk, phis) or compare_products(walk, phis)


def way_back(case, answer):
    """[Finding] where forward stages were returned and all of them are right."""
    if not FORWARD & set(answer.stages) or not entry(case.method).second_order:
        return []
    return [Finding("way back", "", SECOND)]


def steps_missing(case, stages):
    """[Finding] of a stage that has another number of steps than the method."""
    K = case.method.inner_steps
    for name in ("inner_grad", "phi", "hvp"):
        if name in stages and len(stages[name]) != K:
            text = f"{name}: expected {K} steps, got {len(stages[name])}"
            return [Finding(TITLES[name], "", text)]
    return []


TITLES = {"inner_grad": "inner gradient", "phi": "step", "hvp": "Hessian-vector product"}


# ---- the inner loop ------------------------------------------------------------------


def compare_inner_loop(walk):
    """([Finding], [phi_0 .. phi_K]): the function's own phi_k, as far as it returned
    them or its inner gradients determine them."""
    case, loop, stages = walk.case, walk.loop, walk.stages
    phis, state = [walk.start], loop.rule.init(walk.start)
    for k, A in enumerate(walk.rates):
        x, y = data(case, "support")
        at = walk.places[k]
        g = case.net.primal(phis[-1], x[:, at], y[:, at], keep=False).grad
        if "inner_grad" in stages:
            finding = compare(walk, "inner gradient", k, stages["inner_grad"][k], g)
            if finding:
                return [finding], phis
            g = stages["inner_grad"][k]
        pulled = case.method.inner_gradient(case.net, g, phis[-1], walk.start)
        arguments = case.net, phis[-1], pulled, state, loop.rule.factors(k + 1)
        d, state = loop.rule.direction(*arguments)
        stepped = phis[-1] - A * d
        if "phi" in stages:
            finding = compare_step(walk, k, phis[-1], stages["phi"][k], stepped)
            if finding:
                return [finding], phis
            stepped = stages["phi"][k]
        phis.append(stepped)
    if "adapted" in stages:
        finding = compare(walk, "adapted parameters", None, stages["adapted"][0], phis[-1])
        return ([finding] if finding else []), [*phis[:-1], stages["adapted"][0]]
    return [], phis


def compare_step(walk, k, before, after, expected):
    """A Finding if a step is not what it should be from the function's own phi_k."""
    tensor = off_in(walk, after, expected)
    if tensor is None:
        return None
    step, right = after - before, expected - before
    c = float((step * right).sum() / (right * right).sum())
    how = f", in {tensor}: off by {relative(after, expected):.1e}"
    if np.abs(step - c * right).max() <= walk.bound * np.abs(after).max() and c != 0:
        how = f", {c:.6g} times too long" if c > 1 else f", {c:.6g} times what it should be"
    text = (
        f"the first stage that is wrong is the step, inner step {k + 1}{how} (from the "
        "function's own phi and inner gradient)"
    )
    return Finding("step", tensor, text)


# ---- the query set -------------------------------------------------------------------


def compare_query(walk, phis):
    """[Finding] of the query loss or its gradient at the function's own phi_K."""
    case, stages = walk.case, walk.stages
    weighted = hasattr(case.method, "loss_weights")
    primal = case.net.primal(phis[-1], case.batch.x_query, case.batch.y_query, keep=False)
    if "loss" in stages:
        expected = case.outcome.loss if weighted else primal.loss
        finding = compare_loss(stages["loss"], expected, walk.bound)
        if finding:
            return [finding]
    if "query_grad" in stages:
        finding = compare(walk, "query gradient", None, stages["query_grad"][0], primal.grad)
        return [finding] if finding else []
    return []


def compare_loss(value, expected, bound):
    """A Finding if the loss, its mean or one a task, is off."""
    wanted = expected if value.size > 1 else expected.mean()
    if value.size not in (1, len(expected)):
        text = f"loss: expected a number or {len(expected)}, got shape {value.shape}"
        return Finding("query loss", "", text)
    error = np.abs(value.reshape(np.shape(wanted)) - wanted).max() / np.abs(wanted).max()
    if error <= bound:
        return None
    return Finding("query loss", "", f"the query loss after adaptation is off by {error:.1e}")


# ---- the way back --------------------------------------------------------------------


def compare_products(walk, phis):
    """[Finding] of a Hessian-vector product at the function's own phi_k and vector.

    With an update rule, a proximal term or losses after every step, the vector depends
    on how the function is written; products are not compared then.
    """
    case, stages, loop = walk.case, walk.stages, walk.loop
    weighted = hasattr(case.method, "loss_weights")
    if "hvp" not in stages or not loop.rule.plain or loop.anchor or weighted:
        return []
    x, y = data(case, "support")
    primal = case.net.primal(phis[-1], case.batch.x_query, case.batch.y_query, keep=False)
    lam = stages["query_grad"][0] if "query_grad" in stages else primal.grad
    for k in range(len(walk.rates) - 1, -1, -1):
        at = walk.places[k]
        expected = case.net.hvp(case.net.primal(phis[k], x[:, at], y[:, at]), walk.rates[k] * lam)
        finding = compare(walk, "Hessian-vector product", k, stages["hvp"][k], expected)
        if finding:
            return [finding]
        lam = lam - stages["hvp"][k]
    return []


# ---- comparing -----------------------------------------------------------------------


def relative(got, expected):
    """The largest error, over the largest entry."""
    return np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-300)


def off_in(walk, got, expected):
    """The first tensor of the net that is off by more than the bound, or None."""
    whole = max(np.abs(expected).max(), 1e-300)
    for tensor, part in walk.case.net.parameters.slices.items():
        if np.abs(got[:, part] - expected[:, part]).max() > walk.bound * whole:
            return tensor
    return None


def compare(walk, title, k, got, expected):
    """A Finding for the first tensor in which a stage is off; k: the step, or None."""
    tensor = off_in(walk, got, expected)
    if tensor is None:
        return None
    step = "" if k is None else f", inner step {k + 1}"
    text = f"the first stage that is wrong is the {title}{step}, in {tensor}"
    return Finding(title, tensor, f"{text}: off by {relative(got, expected):.1e}")
