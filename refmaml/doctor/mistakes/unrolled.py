"""All mistakes of the methods that are differentiated through their inner loop."""

from refmaml.doctor.mistakes.declared_rule import declared_rule
from refmaml.doctor.mistakes.inner_steps import inner_steps
from refmaml.doctor.mistakes.laplace_term import laplace_term
from refmaml.doctor.mistakes.layer_kernels import batch_norm
from refmaml.doctor.mistakes.learned_step_sizes import learned_step_sizes, single_step_of_sum
from refmaml.doctor.mistakes.mistake import Mistake, fix
from refmaml.doctor.mistakes.parameters import skipped_or_updated_twice, wrong_part_adapts
from refmaml.doctor.mistakes.query_losses import (
    averaged_losses,
    last_loss_only,
    unadapted_query_loss,
)
from refmaml.doctor.mistakes.second_order import (
    FIRST_ORDER,
    second_order,
    unwanted_second_order,
    whole_step_detached,
)
from refmaml.doctor.mistakes.sets_and_tasks import chained_tasks, sets_and_tasks
from refmaml.doctor.mistakes.step_sizes import step_sizes

GRAPH = fix(
    "clear gradients after the inner loop",
    torch="torch.autograd.grad in the inner loop, not loss.backward()",
)


def inner_loop(method):
    """Mistakes that every method with an inner loop can have, Reptile included."""
    return [
        *sets_and_tasks(),
        *inner_steps(method.inner_steps),
        *step_sizes(),
        *batch_norm(),
        *skipped_or_updated_twice(),
    ]


def unrolled(method, order, own):
    """order: mistakes of the second-order term; own: those of this method alone."""
    differentiated = any(m.name == FIRST_ORDER for m in order)
    accumulated = "the inner losses' own gradients are added to the outer one"
    return [
        *order,
        unadapted_query_loss(),
        Mistake("12", accumulated, {"accumulated": True}, GRAPH),
        *(whole_step_detached(method) if differentiated else []),
        *own,
        *chained_tasks(through=differentiated),
        *declared_rule(method),
        *whole_support_set(method),
        *inner_loop(method),
    ]


def whole_support_set(method):
    """No mini-batches where the method has them."""
    if method.inner_batch is None:
        return []
    name = "every inner step sees the whole support set"
    return [Mistake("39", name, {"places": "all"}, fix("mini-batches of inner_batch"))]


def maml(method):
    """MAML and ANIL."""
    own = averaged_losses(method.inner_steps) + wrong_part_adapts(method)
    return unrolled(method, second_order(method.inner_steps), own)


def first_order_maml(method):
    """First-order MAML and first-order ANIL."""
    own = averaged_losses(method.inner_steps) + wrong_part_adapts(method)
    return unrolled(method, unwanted_second_order(method), own)


def llama(method):
    """LLAMA: MAML's mistakes and those of its Laplace term."""
    own = averaged_losses(method.inner_steps) + wrong_part_adapts(method) + laplace_term(method)
    return unrolled(method, second_order(method.inner_steps), own)


def cavia(method):
    """CAVIA: which parameters adapt follows from the net's context."""
    own = averaged_losses(method.inner_steps)
    return unrolled(method, second_order(method.inner_steps), own)


def meta_sgd(method):
    """Meta-SGD: a learned step size for each parameter, the same in every step."""
    K = method.inner_steps
    own = [*averaged_losses(K), *learned_step_sizes(), *single_step_of_sum(K)]
    return unrolled(method, second_order(K), own)


def maml_plus_plus(method):
    """MAML++: a learned step size for each layer and step, a loss after each step."""
    own = last_loss_only() + learned_step_sizes()
    return unrolled(method, second_order(method.inner_steps), own)
