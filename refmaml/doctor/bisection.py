"""Where a mistake without a name sits: the first stage, and the tensor in it, that disagree.

Whatever the function returned beside its gradient is compared stage by stage. For the rest the function is asked again on a small tanh
regression under circumstances that leave one stage to see:

    no step (alpha -> 0)                        M = g(theta): the gradient is the query gradient
    query loss 0 at theta, alpha tiny, K = 1    lam = H_g (phi_1 - theta): it shows the inner gradient
    support loss 0 at theta, K = 1              no step moves: lam = grad g - H_f (A grad g): it shows the Hessian-vector product
    K = 1, 2, ...                               the steps together
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refmaml.batch import Batch
from refmaml.doctor import probes
from refmaml.doctor.cases import RATES, Case
from refmaml.errors import ArgumentError
from refmaml.execution import Sequential
from refmaml.layers import MSE, BatchNorm2d, Context, Linear, Tanh
from refmaml.methods import CAVIA, ERM, IMAML, MAMLPlusPlus, Reptile

STILL, TINY = (
    1e-30,
    1e-7,
)  # a step size that moves nothing in float64; one whose square is nothing beside it
COARSE = 1e-4  # agreement where a stage is seen through a step of TINY: eps / TINY, grown by solving with H_g


class Finding(NamedTuple):
    """stage: what is wrong first; tensor: the first named array in which it is; text: both, and how it was seen."""

    stage: str
    tensor: str
    text: str


def bisect(examinee, case, answer):
    """The Findings, the first stage first, for a wrong answer on a case; none where the function cannot be asked any further."""
    try:
        return compare_stages(case, answer) or asked_again(examinee, case)
    except ArgumentError:  # it answers on the probes, but not on one task, or on another net
        return []


def asked_again(examinee, case):
    """Findings from other questions to the function."""
    if len(case.batch) > 1:
        alone = examinee.alone(case)
        if fine(case, alone, case.truth):
            return [
                Finding(
                    "mean over tasks",
                    "",
                    "right for each task alone, wrong for all of them at once: the tasks are not "
                    "independent, or their gradients are not averaged",
                )
            ]
    if not examinee.told:
        return frozen_statistics(examinee, case)
    small = regression(case.method)
    found = black_box(examinee, small) or ladder(examinee, small)
    return found or still(examinee, case, "on the probe itself") or ladder(examinee, case)


def frozen_statistics(examinee, case):
    """Train or evaluation mode: with statistics that are not the query batch's own, the gradient is a mean over query examples, so that
    halves of the query set average to the whole. Under batch statistics they do not."""
    if not any(isinstance(layer, BatchNorm2d) for layer in case.net.layers):
        return []
    b, M = case.batch, case.batch.x_query.shape[1]
    parts = [slice(0, M // 2), slice(M // 2, M)]
    halves = [
        examinee.answer(
            case.with_(batch=Batch(b.x_support, b.y_support, b.x_query[:, p], b.y_query[:, p]))
        ).grad
        for p in parts
    ]
    mean = (M // 2 * halves[0] + (M - M // 2) * halves[1]) / M
    if not fine(case, mean, examinee.answer(case).grad):
        return []
    return [
        Finding(
            "batch-norm",
            "",
            "batch-norm does not use the query batch's own statistics: two halves of a query set average "
            "to the whole (evaluation mode? running statistics?)",
        )
    ]


def fine(case, g, truth, more=10.0):
    """Whether a gradient is as right as rounding lets it be, some leeway allowed."""
    return bool((np.abs(g - truth) <= more * case.allowed).all())


# ---- what was returned -----------------------------------------------------------------------------------------------


def compare_stages(case, answer):
    """Findings from the stages a function returned, in the order in which one makes the next."""
    bound = 100 * float((case.allowed / np.abs(case.truth).max()).max())
    expected = reference_stages(case)
    for name in ("inner_grad", "phi", "adapted", "loss", "query_grad", "hvp"):
        if name not in answer.stages or expected.get(name) is None:
            continue
        finding = (loss_finding if name == "loss" else stage_finding)(
            case, name, answer.stages[name], expected[name], bound
        )
        if finding:
            return [finding]
    return []


TITLES = {
    "inner_grad": "inner gradient",
    "phi": "adapted parameters",
    "adapted": "adapted parameters",
    "loss": "query loss",
    "query_grad": "query gradient",
    "hvp": "Hessian-vector product",
}


def reference_stages(case):
    """What refmaml has for each stage."""
    trace, b = case.outcome.trace, case.batch
    phis = trace.get("phi", [])
    after = case.net.primal(phis[-1], b.x_query, b.y_query, keep=False) if phis else None
    return {
        "inner_grad": trace.get("inner_grad"),
        "phi": phis[1:],
        "adapted": phis[-1:],
        "hvp": trace.get("hvp"),
        "loss": case.outcome.loss,
        "query_grad": [after.grad] if after is not None else None,
    }


def loss_finding(case, name, value, expected, bound):
    """A Finding if the loss, its mean or one a task, is off."""
    wanted = expected if value.size > 1 else expected.mean()
    if value.size not in (1, len(expected)):
        return Finding(
            "query loss", "", f"loss: expected a number or {len(expected)}, got shape {value.shape}"
        )
    error = np.abs(value.reshape(np.shape(wanted)) - wanted).max() / np.abs(wanted).max()
    return (
        Finding("query loss", "", f"the query loss after adaptation is off by {error:.1e}")
        if error > bound
        else None
    )


def stage_finding(case, name, value, expected, bound):
    """A Finding for the first step and tensor of a stage that is off."""
    title = TITLES[name]
    if len(value) != len(expected):
        return Finding(title, "", f"{name}: expected {len(expected)} steps, got {len(value)}")
    for k, (ours, theirs) in enumerate(zip(expected, value, strict=True)):
        whole = max(np.abs(ours).max(), 1e-300)
        for tensor, part in case.net.parameters.slices.items():
            error = np.abs(theirs[:, part] - ours[:, part]).max() / whole
            if error > bound:
                step = f", inner step {k + (name == 'phi')}" if len(expected) > 1 else ""
                return Finding(
                    title,
                    tensor,
                    f"the first stage that is wrong is the {title}{step}, in {tensor}: off by {error:.1e}",
                )
    return None


# ---- one stage at a time ---------------------------------------------------------------------------------------------


def regression(method):
    """A tanh regression of one task and enough query points that its Gauss-Newton matrix can be inverted."""
    rng = np.random.default_rng(7)
    context = [Context(2)] if isinstance(method, CAVIA) else []
    net = Sequential(
        [*context, Linear(3 + 2 * len(context), 5), Tanh(), Linear(5, 2)], MSE(factor=0.5), (3,)
    )
    theta = net.init(rng, np.float64) + 0.1 * rng.standard_normal(net.num_params)
    batch = Batch(*probes.normal_inputs(net, 1, 7, rng), *probes.normal_inputs(net, 1, 61, rng))
    method = probes.visible(
        probes.fitting(replace(method, **plain(method)), net), net, theta, batch
    )
    return Case("regression", net, method, probes.meta_start(method, net, theta, rng), batch)


def plain(method):
    """Changes that make patterns of names fit another net."""
    return (
        {"adapts": ("*",), "frozen": ()}
        if hasattr(method, "adapts") and not set(method.adapts) & {"head", "body", "context"}
        else {}
    )


def with_steps(case, steps):
    """The case with another number of inner steps."""
    method = case.method
    if isinstance(method, (ERM, IMAML)):
        return None
    changes = {"inner_steps": steps}
    if isinstance(method, MAMLPlusPlus):
        changes["loss_weights"] = None
    method = replace(method, **changes)
    rng = np.random.default_rng(11)
    return case.with_(method=method, meta=probes.meta_start(method, case.net, case.theta, rng))


def with_rate(case, rate):
    """The case with another inner step size; for iMAML, the regularization that moves as little."""
    if isinstance(case.method, ERM):
        return case
    if isinstance(case.method, IMAML):
        return case.with_(method=replace(case.method, regularization=1 / rate, inner_lr=rate))
    method = replace(case.method, inner_lr=rate)
    meta = case.meta.copy()
    meta[case.net.num_params :] = method.init(case.net, case.theta)[case.net.num_params :]
    return case.with_(method=method, meta=meta)


def outputs(case, x):
    """The net's outputs at theta: targets for which the loss is 0 there."""
    start = case.theta
    if isinstance(case.method, CAVIA):
        start = start * (1 - case.method.adapting(case.net, start))
    return case.net.forward(case.net.parameters.views(start[None]), x, keep=False)[0]


def black_box(examinee, case):
    """Findings from the experiments that leave one stage to see."""
    b = case.batch
    solved_query = case.with_(
        batch=Batch(b.x_support, b.y_support, b.x_query, outputs(case, b.x_query))
    )
    solved_support = case.with_(
        batch=Batch(b.x_support, outputs(case, b.x_support), b.x_query, b.y_query)
    )
    if isinstance(case.method, Reptile):
        return displaced(examinee, with_steps(case, 1))
    single = with_steps(case, 1)
    found = still(examinee, case, "with no inner step to speak of")
    if found or isinstance(case.method, (ERM, CAVIA)):
        return found
    tiny = with_rate(solved_query if single is None else with_steps(solved_query, 1), TINY)
    found = inner_gradient(examinee, tiny)
    if found or single is None and not isinstance(case.method, IMAML):
        return found
    standing = solved_support if single is None else with_steps(solved_support, 1)
    title = "linear system" if isinstance(case.method, IMAML) else "Hessian-vector product"
    return plainly(
        examinee, standing, title, "where the support loss is 0 at theta, so that no step moves"
    )


def still(examinee, case, how):
    """The query gradient: everything else multiplied by 0."""
    if isinstance(case.method, Reptile):
        return []
    return plainly(examinee, with_rate(case, STILL), "query gradient", how)


def plainly(examinee, case, title, how):
    """A Finding for the first tensor in which the answer on a case is wrong."""
    tensor = first_wrong(case, examinee.answer(case).grad)
    if tensor is None:
        return []
    return [
        Finding(
            title, tensor, f"the first stage that is wrong is the {title}, in {tensor} (seen {how})"
        )
    ]


def first_wrong(case, g):
    """The first named array with an entry that is off by more than rounding allows, or None."""
    return next(
        (
            name
            for name, place in case.places.items()
            if (np.abs(g[place] - case.truth[place]) > 10 * case.allowed[place]).any()
        ),
        None,
    )


def inner_gradient(examinee, case):
    """lam = H_g (phi_1 - theta), solved for the step and compared with alpha grad f."""
    P, b = case.net.num_params, case.batch
    g = examinee.answer(case).grad[:P]
    if np.abs(g - case.truth[:P]).max() <= COARSE * np.abs(case.truth[:P]).max():
        return []
    primal = case.net.primal(
        np.broadcast_to(case.theta, (P, P)),
        np.broadcast_to(b.x_query, (P, *b.x_query.shape[1:])),
        np.broadcast_to(b.y_query, (P, *b.y_query.shape[1:])),
    )
    H = case.net.hvp(primal, np.eye(P))
    off = np.linalg.lstsq(H, g - case.truth[:P], rcond=1e-9)[0] / TINY
    ours = case.net.gradient(case.theta[None], b.x_support, b.y_support)[0]
    for name, part in case.net.parameters.slices.items():
        if np.abs(off[part]).max() > 30 * COARSE * np.abs(ours).max():
            error = np.abs(off[part]).max() / np.abs(ours).max()
            return [
                Finding(
                    "inner gradient",
                    name,
                    f"the first stage that is wrong is the inner gradient, in {name}: off by {error:.1e} "
                    "of its largest entry (seen by a tiny step from theta to a query loss that is 0 there)",
                )
            ]
    return [
        Finding(
            "inner gradient",
            "",
            "the first stage that is wrong is the first inner step (seen by a tiny step)",
        )
    ]


def displaced(examinee, case):
    """Reptile: a single step is alpha times the inner gradient."""
    tensor = first_wrong(case, examinee.answer(case).grad)
    if tensor is None:
        return []
    return [
        Finding(
            "inner gradient",
            tensor,
            f"the first stage that is wrong is the inner gradient, in {tensor} (seen by a single step)",
        )
    ]


def ladder(examinee, case):
    """The first number of steps at which the gradient is wrong."""
    for steps in range(1, getattr(case.method, "inner_steps", 0) + 1):
        rung = with_steps(case, steps)
        if rung is None:
            return []
        try:
            g = examinee.answer(rung).grad
        except ArgumentError:
            return []
        tensor = first_wrong(rung, g)
        if tensor is not None:
            what = "one whole inner step" if steps == 1 else f"inner step {steps}"
            where = "step size" if tensor.startswith(RATES) else "gradient"
            seen = (
                "its parts are right"
                if steps == 1
                else f"{steps - 1} step{'s are' if steps > 2 else ' is'} right"
            )
            return [
                Finding(
                    what,
                    tensor,
                    f"the first stage that is wrong is {what}, in the {where} of {tensor} ({seen})",
                )
            ]
    return []
