"""All mistakes of Reptile: nothing is differentiated, so they lie in the inner loop and
in the difference theta - phi_K."""

from refmaml.doctor.mistakes.mistake import Mistake, fix
from refmaml.doctor.mistakes.sets_and_tasks import chained_tasks
from refmaml.doctor.mistakes.unrolled import inner_loop, whole_support_set
from refmaml.update_rules import Adam, UpdateRule

DIFFERENCE = fix("theta - phi_K, the mean over tasks; the outer step then subtracts it")


def reptile(method):
    """Mistakes in the difference and in the inner optimiser, and those of every inner
    loop."""
    blend = "2 theta - phi_K in place of theta - phi_K"
    query = "the query loss's gradient (first-order MAML)"
    return [
        Mistake("38", blend, {"direction": "blend"}, DIFFERENCE),
        Mistake("38", "the adapted parameters themselves", {"direction": "adapted"}, DIFFERENCE),
        Mistake("39", query, {"direction": "query"}, DIFFERENCE),
        *chained_tasks(through=False),
        *optimizer(method),
        *inner_loop(method),
    ]


def optimizer(method):
    """Another inner optimiser, its state carried between tasks, or no mini-batches."""
    other = Adam(betas=(0.0, 0.999)) if method.optimizer == "sgd" else UpdateRule()
    not_this, use_this = f"the inner optimiser is not {method.optimizer}", f"use {method.optimizer}"
    usual = "Adam with its usual beta1 = 0.9 in the inner loop"
    fresh = fix("a fresh optimiser for every task")
    found = [
        Mistake("24", not_this, {"rule": other}, fix(use_this)),
        Mistake("24", usual, {"rule": Adam()}, fix("Reptile's Adam has beta1 = 0")),
    ]
    if method.optimizer == "adam":
        name = "Adam's state is carried from task to task"
        found.append(Mistake("25", name, {"carry": True}, fresh))
    return found + whole_support_set(method)
