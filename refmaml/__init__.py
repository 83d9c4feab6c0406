"""refmaml: a hand-written reference for gradient-based meta-learning.

Its meta-gradients are exact, and it uses no autodiff.

import refmaml as rm
net   = rm.conv4(n_way=5)
theta = net.init(seed=0)
batch = rm.Glyphs("train").sample(tasks=32, n_way=5, k_shot=1, k_query=15, seed=0)
out   = rm.MAML(inner_lr=0.4, inner_steps=1).meta_gradient(net, theta, batch)
out.loss, out.accuracy, out.grad
"""

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
from refmaml.scalar import ScalarFunction
from refmaml.tasks import *  # noqa: F403 (its __all__ is the list of task distributions)
from refmaml.tasks import __all__ as _tasks
from refmaml.torch_modules import from_torch
from refmaml.update_rules import *  # noqa: F403 (its __all__ is the list of update rules)
from refmaml.update_rules import __all__ as _rules
from refmaml.version import __version__

if TYPE_CHECKING:  # what type checkers and editors cannot find by running the code
    from refmaml.doctor import check_meta_gradient  # see __getattr__
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
    "check_meta_gradient",
    "RaggedBatch",
    "from_torch",
]


def __getattr__(name: str) -> Any:
    """rm.check_meta_gradient, whose module is imported when it is first used."""
    if name == "check_meta_gradient":
        from refmaml.doctor import check_meta_gradient

        return check_meta_gradient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
