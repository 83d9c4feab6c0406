"""All mistakes of ERM: sets, tasks and layers, as there is no inner loop."""

from refmaml.doctor.mistakes.layer_kernels import MODES, batch_norm_everywhere, other_formulas
from refmaml.doctor.mistakes.mistake import ROLES, Mistake
from refmaml.doctor.mistakes.sets_and_tasks import TASKS


def erm(method):
    """The wrong set, one task alone, or wrong batch-norm."""
    return [
        Mistake("6", "the loss is measured on the support set", {"query": "support"}, ROLES),
        Mistake("8", "only the first task counts", {"tasks": "first"}, TASKS),
        Mistake("8", "only the last task counts", {"tasks": "last"}, TASKS),
        *map(batch_norm_everywhere, MODES),
        *other_formulas(),
    ]
