"""learn2learn: algorithms.MAML and algorithms.MetaSGD.

Its data sets for images import torchvision, which PyPI has for PyTorch with CUDA only;
no algorithm uses them, so an empty module takes their place.
"""

import sys
from types import ModuleType

sys.modules.setdefault("learn2learn.vision", ModuleType("learn2learn.vision"))

import learn2learn  # noqa: E402 (after its vision data sets are out of the way)
import torch  # noqa: E402

from adapters.library import Library, rate  # noqa: E402
from adapters.torch_common import Probe, by_task, gradient  # noqa: E402


def adapted_loss(problem, learner, x, y, x_query, y_query):
    for _ in range(problem.method.inner_steps):
        learner.adapt(learner(x, y))
    return learner(x_query, y_query)


def maml(first_order):
    def one_task(problem, params, *task):
        module = Probe(problem, params)
        algorithm = learn2learn.algorithms.MAML(
            module, lr=problem.method.inner_lr, first_order=first_order
        )
        return gradient(adapted_loss(problem, algorithm.clone(), *task), module.start)

    return by_task(one_task)


@by_task
def meta_sgd(problem, params, *task):
    module = Probe(problem, params)
    lrs = torch.nn.ParameterList(
        [torch.nn.Parameter(params[rate(name)].detach().clone()) for name in module.own]
    )
    algorithm = learn2learn.algorithms.MetaSGD(module, lrs=lrs)
    start = {
        **module.start,
        **{rate(name): lr for name, lr in zip(module.own, algorithm.lrs, strict=True)},
    }
    return gradient(adapted_loss(problem, algorithm.clone(), *task), start)


LIBRARY = Library(
    "learn2learn",
    "learn2learn",
    ("learn2learn", "torch"),
    "torch",
    {
        "MAML": maml(False),
        "first-order MAML": maml(True),
        "ANIL": maml(False),
        "Meta-SGD": meta_sgd,
    },
    {
        "Reptile": "no class of its own (an example that steps a torch optimiser)",
        "iMAML": "no implicit differentiation",
    },
)
