"""Which set a loss uses, and which tasks count."""

from refmaml.doctor.mistakes.mistake import ROLES, Mistake, fix

TASKS = fix(
    "add the loss of every task to the outer loss, then divide by their number",
    torch="losses = [...] for every task; torch.stack(losses).mean(), "
    "no losses[-1], no += loss.item()",
    jax="jax.vmap over tasks, then .mean(0)",
)

CHAINED = "each task starts where the last one ended"
DETACHED_CHAIN = {"start": "last task, detached"}
AFRESH = fix(
    "start every task from the meta-parameters themselves",
    torch="phi = theta at the start of every task; state_dict() and .data are references to "
    "the same storage: copy.deepcopy(module.state_dict()) or .clone() restores a copy",
)


def swapped_sets():
    """Support and query sets exchanged."""
    changes = {"support": "query", "query": "support"}
    return Mistake("7", "support and query sets are swapped", changes, ROLES, True)


def only_one_task():
    """A mean over tasks that holds a single task."""
    return [
        Mistake("8", "only the first task counts", {"tasks": "first"}, TASKS, True),
        Mistake("8", "only the last task counts", {"tasks": "last"}, TASKS, True),
    ]


def chained_tasks(through):
    """Each task starts where the last one ended.

    through   whether a method differentiates, so that both ways of doing it differ
    """
    found = [Mistake("25", f"{CHAINED}, not differentiated", DETACHED_CHAIN, AFRESH)]
    if through:
        return [Mistake("25", CHAINED, {"start": "last task"}, AFRESH), *found]
    return [Mistake("25", CHAINED, DETACHED_CHAIN, AFRESH)]


def sets_and_tasks():
    """All of them, for a method with an inner loop."""
    query, support, both = {"query": "support"}, {"support": "query"}, {"support": "both"}
    together = "the inner loop adapts on support and query together"
    return [
        Mistake("6", "the query loss is measured on the support set", query, ROLES, True),
        Mistake("6", "the inner loop adapts on the query set", support, ROLES, True),
        Mistake("6", together, both, ROLES),
        swapped_sets(),
        *only_one_task(),
        Mistake("8", "the first task is left out", {"tasks": "not first"}, TASKS),
        Mistake("8", "the last task is left out", {"tasks": "not last"}, TASKS),
    ]
