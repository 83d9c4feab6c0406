"""refmaml: a hand-written reference for gradient-based meta-learning.

Its meta-gradients are exact, and it uses no autodiff.

import refmaml as rm
net   = rm.conv4(n_way=5)
theta = net.init(seed=0)
batch = rm.Glyphs("train").sample(tasks=32, n_way=5, k_shot=1, k_query=15, seed=0)
out   = rm.MAML(inner_lr=0.4, inner_steps=1).meta_gradient(net, theta, batch)
out.loss, out.accuracy, out.grad
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from refmaml import kernels
from refmaml.batch import Batch
from refmaml.errors import (
    ArgumentError,
    DataError,
    NonFiniteError,
    NotDifferentiableError,
    RefmamlError,
)
from refmaml.evaluation_mode import evaluation_mode
from refmaml.execution import Sequential
from refmaml.layers import *  # noqa: F403 (its __all__ is the list of layers and losses)
from refmaml.layers import __all__ as _layers
from refmaml.methods import *  # noqa: F403 (its __all__ is made from the table of methods)
from refmaml.methods import __all__ as _methods
from refmaml.models import conv4, mlp, resnet12, two_layer_linear
from refmaml.quadratic import Quadratic
from refmaml.ragged import RaggedBatch
from refmaml.rl import *  # noqa: F403 (its __all__ is the list of policies and estimators)
from refmaml.rl import __all__ as _rl
from refmaml.scalar import ScalarFunction
from refmaml.tasks import *  # noqa: F403 (its __all__ is the list of task distributions)
from refmaml.tasks import __all__ as _tasks
from refmaml.torch_modules import from_torch
from refmaml.update_rules import *  # noqa: F403 (its __all__ is the list of update rules)
from refmaml.update_rules import __all__ as _rules
from refmaml.version import __version__

if TYPE_CHECKING:  # what type checkers and editors cannot find by running the code
    from refmaml.checks import (  # see __getattr__
        check_gradient,
        check_hvp,
        check_hypergradient,
        check_layer,
        check_rl_meta_gradient,
        check_solve,
    )
    from refmaml.doctor import check_meta_gradient
    from refmaml.methods.table import *  # noqa: F403 (methods.__all__ is computed)

__all__ = [
    "__version__",
    "kernels",
    "Batch",
    "Sequential",
    "Quadratic",
    "ScalarFunction",
    "conv4",
    "mlp",
    "two_layer_linear",
    "evaluation_mode",
    "resnet12",
    "RefmamlError",
    "ArgumentError",
    "NonFiniteError",
    "NotDifferentiableError",
    "DataError",
    *_layers,
    *_methods,
    *_tasks,
    *_rules,
    *_rl,
    "check_meta_gradient",
    "check_gradient",
    "check_hvp",
    "check_layer",
    "check_solve",
    "check_hypergradient",
    "check_rl_meta_gradient",
    "RaggedBatch",
    "from_torch",
]


CHECKED_IN = {
    "check_meta_gradient": "refmaml.doctor",
    "check_gradient": "refmaml.checks",
    "check_hvp": "refmaml.checks",
    "check_layer": "refmaml.checks",
    "check_solve": "refmaml.checks",
    "check_hypergradient": "refmaml.checks",
    "check_rl_meta_gradient": "refmaml.checks",
}


def __getattr__(name: str) -> Any:
    """rm.check_meta_gradient and others, whose modules are imported when first used."""
    if name in CHECKED_IN:
        return getattr(import_module(CHECKED_IN[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
