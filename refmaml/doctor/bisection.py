"""Where a mistake without a name is: the first stage and tensor that disagree.

Stages that the function returned beside its gradient are compared first. Then the
function is called on a small tanh regression under conditions that isolate one stage:

    no step (alpha -> 0)         M = g(theta): the result is the query gradient
    query loss 0 at theta,       lam = H_g (phi_1 - theta): the result shows the inner
    alpha tiny, K = 1            gradient
    support loss 0 at theta,     no step changes phi: lam = grad g - H_f (A grad g):
    K = 1                        the result shows the Hessian-vector product
    K = 1, 2, ...                the steps together
"""

import numpy as np

from refmaml.batch import Batch
from refmaml.doctor.cases import STEP_SIZE
from refmaml.doctor.findings import MARGIN, Finding, first_wrong_tensor, wrong_stage
from refmaml.doctor.matching import ACCEPTED, fit_scale
from refmaml.doctor.method_settings import selects
from refmaml.doctor.method_table import DISPLACEMENT, IMPLICIT, NO_LOOP, SOLVED, UNROLLED, entry
from refmaml.doctor.own_settings import own_number_of_steps, own_step_size
from refmaml.doctor.regression_case import (
    regression,
    with_query_solved,
    with_single_step,
    with_step_size,
    with_steps,
    with_support_solved,
)
from refmaml.doctor.stage_comparison import compare_stages, way_back
from refmaml.errors import ArgumentError
from refmaml.layers import BatchNorm2d
from refmaml.layers.walk import all_layers

NO_STEP = 1e-30  # a step size that changes no number in float64
UNCHANGED = 1e-12  # relative change of an answer below which an example is not seen
TINY = 1e-7  # a step size whose square is below rounding
FORWARD_STAGES = ("inner gradient", "query gradient")  # which returned stages show better
COARSE = 1e-4  # agreement of a stage seen through a step of TINY: eps / TINY, and what
# solving with H_g adds


def bisect(function, case, answer):
    """[Finding], the first stage first, for a wrong answer on a case.

    Empty where the UserFunction cannot be called under other conditions.
    """
    try:
        found = compare_stages(case, answer)
    except ArgumentError:
        found = []
    back = [] if found else way_back(case, answer)
    try:
        found = found or by_experiments(function, case)
    except ArgumentError:  # it fails on a single task, or on another net
        return back
    forward = not found or found[0].stage in FORWARD_STAGES
    return back if back and forward else with_stages_right(found, back)


def with_stages_right(found, back):
    """The findings of experiments, with what returned stages showed in front."""
    if not back:
        return found
    return [found[0]._replace(text=f"every stage that was returned is right; {found[0].text}")]


def by_experiments(function, case):
    """[Finding] from calls under other conditions."""
    found = mean_over_tasks(function, case)
    solved = entry(case.method).kind == SOLVED  # none of its stages can be switched off
    if found or solved or not function.takes_problem:
        return found or frozen_statistics(function, case)
    if case.own_loss:  # a function of this net does not know another one
        own = query_gradient(function, case, "on the case itself")
        return own or own_number_of_steps(function, case) or by_number_of_steps(function, case)
    small = regression(case.shown_method).with_(
        task_weights=case.task_weights, step_sizes_through=case.step_sizes_through
    )
    constant = tuple(p for p in case.constant if selects(small.net, p))
    if small.with_(constant=constant).constant_names < set(small.net.shapes):
        small = small.with_(constant=constant)
    if case.step_factors is not None:
        small = small.scheduled(case.step_factors)
    own_steps = own_number_of_steps(function, small)
    if own_steps:
        return query_gradient(function, small, "with no inner step to speak of") or own_steps
    return (
        unseen_examples(function, small)
        or isolated_stage(function, small)
        or by_number_of_steps(function, small)
        or query_gradient(function, case, "on the case itself")
        or by_number_of_steps(function, case)
    )


def mean_over_tasks(function, case):
    """[Finding] where each task alone is right, and all of them at once are wrong."""
    if len(case.batch) == 1 or not right(case, function.mean_of_single_tasks(case), case.truth):
        return []
    text = (
        "right for each task alone, wrong for all of them at once: the tasks are not "
        "independent, or their gradients are not averaged"
    )
    return [Finding("mean over tasks", "", text)]


def frozen_statistics(function, case):
    """[Finding] where batch-norm does not use the query batch's own statistics.

    Then the gradient is a mean over query examples, so that the gradients on halves of
    the query set average to the whole. Under batch statistics they do not.
    """
    if not any(isinstance(layer, BatchNorm2d) for layer in all_layers(case.net.layers)):
        return []
    b, M = case.batch, case.batch.x_query.shape[1]
    parts = [slice(0, M // 2), slice(M // 2, M)]
    halves = [Batch(b.x_support, b.y_support, b.x_query[:, p], b.y_query[:, p]) for p in parts]
    first, second = (function.answer(case.with_(batch=half)).grad for half in halves)
    mean = (M // 2 * first + (M - M // 2) * second) / M
    if not right(case, mean, function.answer(case).grad):
        return []
    text = (
        "batch-norm does not use the query batch's own statistics: two halves of a query set "
        "average to the whole (evaluation mode? running statistics?)"
    )
    return [Finding("batch-norm", "", text)]


def right(case, g, truth):
    """Whether a gradient is right to MARGIN times what rounding allows."""
    return bool((np.abs(g - truth) <= MARGIN * case.allowed).all())


def unseen_examples(function, case):
    """[Finding] where the first inner step does not see every support example that it
    should: the answer is the same when the example changes."""
    if entry(case.method).kind not in (UNROLLED, DISPLACEMENT):
        return []
    single, b = with_single_step(case), case.batch
    expected, g = seen_by_method(single), function.answer(single).grad
    seen = []
    for i in range(b.x_support.shape[1]):
        x, y = b.x_support.copy(), b.y_support.copy()
        x[:, i], y[:, i] = 1.1 * x[:, i], y[:, i] + 0.1
        other = single.with_(batch=Batch(x, y, b.x_query, b.y_query))
        if np.abs(function.answer(other).grad - g).max() > UNCHANGED * np.abs(g).max():
            seen.append(i)
    if not seen or seen == expected:
        return []
    text = (
        f"mini-batches: the first inner step sees the support examples {seen} of "
        f"{b.x_support.shape[1]}, where the method has {expected}"
    )
    return [Finding("mini-batches", "", text)]


def seen_by_method(case):
    """The support examples that the first step of the method sees."""
    examples = case.batch.x_support.shape[1]
    if case.method.inner_batch is None:
        return list(range(examples))
    return sorted({int(i) for i in case.method.mini_batches(examples)[0]})


# ---- one stage at a time -------------------------------------------------------------


def isolated_stage(function, case):
    """[Finding] from the experiments that leave one stage to see."""
    known = entry(case.method)
    if known.kind == DISPLACEMENT:  # a single step is alpha times the inner gradient
        return wrong_answer(
            function, with_steps(case, 1), "inner gradient", " (seen by a single step)"
        )
    found = query_gradient(function, case, "with no inner step to speak of")
    matrices = hasattr(case.method, "matrix_shapes")
    plain = not matrices and (known.kind == NO_LOOP or case.method.rule.plain)
    if found or known.kind == NO_LOOP or known.context or not plain:
        return found  # the other experiments read a step as alpha times the gradient
    tiny = with_step_size(with_single_step(with_query_solved(case)), TINY)
    stage = "linear system" if known.kind == IMPLICIT else "Hessian-vector product"
    how = " (seen where the support loss is 0 at theta, so that no step moves)"
    standing = with_single_step(with_support_solved(case))
    return inner_gradient(function, tiny) or wrong_answer(function, standing, stage, how)


def query_gradient(function, case, how):
    """[Finding] in the query gradient: the step size takes away everything else."""
    if entry(case.method).kind == DISPLACEMENT:
        return []
    given, case = case, with_step_size(case, NO_STEP)
    g = function.answer(case).grad
    tensor = first_wrong_tensor(case, g)
    if tensor is None:
        return []
    own = own_step_size(function, given, g)
    if own:
        return own
    if entry(case.method).kind == IMPLICIT:
        fit = fit_scale(case, g, case.truth)
        multiple = fit.misfit <= ACCEPTED
        return [unsolved_system(fit.scale, tensor) if multiple else no_multiple(tensor)]
    if tensor.startswith(STEP_SIZE):  # those of the net itself come first, and are right
        return [wrong_stage("step sizes' gradient", tensor, f" (seen {how})")]
    return [wrong_stage("query gradient", tensor, f" (seen {how})")]


def unsolved_system(scale, tensor):
    """The Finding that the answer is a multiple of the query gradient where the linear
    system is the identity."""
    text = (
        f"the first stage that is wrong is the linear system: where H / lambda is 0, the answer is "
        f"{scale:.6g} times the query gradient, so the approximate inverse is wrong"
    )
    return Finding("linear system", tensor, text)


def no_multiple(tensor):
    """The Finding that it is not, which has two causes that no call tells apart."""
    text = (
        "the first stage that is wrong is the query gradient, or a solve that is not linear: where "
        f"H / lambda is 0, the answer is no multiple of the right query gradient, in {tensor}"
    )
    return Finding("query gradient", tensor, text)


def wrong_answer(function, case, stage, how):
    """[Finding] for the first tensor in which the answer on a case is wrong."""
    tensor = first_wrong_tensor(case, function.answer(case).grad)
    return [] if tensor is None else [wrong_stage(stage, tensor, how)]


def inner_gradient(function, case):
    """[Finding]: lam = H_g (phi_1 - theta), solved for the step and compared with
    alpha grad f."""
    P, b = case.net.num_params, case.batch
    g = function.answer(case).grad[:P]
    if np.abs(g - case.truth[:P]).max() <= COARSE * np.abs(case.truth[:P]).max():
        return []
    off = np.linalg.lstsq(query_hessian(case), g - case.truth[:P], rcond=1e-9)[0] / TINY
    size = np.abs(case.net.gradient(case.theta[None], b.x_support, b.y_support)[0]).max()
    for name, part in case.net.parameters.slices.items():
        error = np.abs(off[part]).max() / size
        if error > 30 * COARSE:
            how = (
                f": off by {error:.1e} of its largest entry (seen by a tiny step from theta "
                "to a query loss that is 0 there)"
            )
            return [wrong_stage("inner gradient", name, how)]
    text = "the first stage that is wrong is the first inner step (seen by a tiny step)"
    return [Finding("inner gradient", "", text)]


def query_hessian(case):
    """H_g(theta) of a single task, (P, P)."""
    P, b = case.net.num_params, case.batch
    primal = case.net.primal(
        np.broadcast_to(case.theta, (P, P)),
        np.broadcast_to(b.x_query, (P, *b.x_query.shape[1:])),
        np.broadcast_to(b.y_query, (P, *b.y_query.shape[1:])),
    )
    return case.net.hvp(primal, np.eye(P))


def by_number_of_steps(function, case):
    """[Finding]: the smallest number of steps at which the gradient is wrong."""
    for steps in range(1, getattr(case.method, "inner_steps", 0) + 1):
        shorter = with_steps(case, steps)
        if shorter is None:
            return []
        try:
            g = function.answer(shorter).grad
        except ArgumentError:
            return []
        tensor = first_wrong_tensor(shorter, g)
        if tensor is not None:
            return [step_finding(steps, tensor)]
    return []


def step_finding(steps, tensor):
    """The Finding that the gradient is wrong from so many steps on."""
    stage, seen = "one whole inner step", "its parts are right"
    if steps > 1:
        stage = f"inner step {steps}"
        seen = f"{steps - 1} step{'s are' if steps > 2 else ' is'} right"
    where = "step size" if tensor.startswith(STEP_SIZE) else "gradient"
    text = f"the first stage that is wrong is {stage}, in the {where} of {tensor} ({seen})"
    return Finding(stage, tensor, text)
