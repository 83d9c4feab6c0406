"""The workloads that are timed, by name: a net, tasks and a number of inner steps.

Times do not depend on the pictures, so these are noise.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from refmaml.batch import Batch
from refmaml.bench import flops
from refmaml.errors import expect
from refmaml.methods import IMAML, MAML, Reptile
from refmaml.models import conv4, mlp, resnet12, two_layer_linear
from refmaml.tasks import Sinusoids, TwoLayerLinear
from refmaml.update_rules import SGD, Adam, UpdateRule


def maml(workload):
    """Second-order MAML with the workload's update rule."""
    return MAML(workload.inner_lr, workload.inner_steps, rule=workload.rule)


# The paper has lambda = 2 for a trained net. The nets here are not trained, and have
# more curvature: with this lambda CG meets no negative curvature, so that every
# implementation does the same work.
STRENGTH, STRENGTH_ON_SMALL, CG_STEPS = 30.0, 300.0, 5


def imaml(workload):
    """iMAML by gradient descent and CG, as many iterations as the paper's."""
    return IMAML(STRENGTH, workload.inner_steps, workload.inner_lr, cg_steps=CG_STEPS)


def imaml_on_small(workload):
    """The same on the small net, which has more curvature."""
    return IMAML(STRENGTH_ON_SMALL, workload.inner_steps, workload.inner_lr, cg_steps=CG_STEPS)


def reptile(workload):
    """Reptile with gradient descent on the whole support set."""
    return Reptile(workload.inner_lr, workload.inner_steps)


class Workload(NamedTuple):
    """A meta-gradient: of second-order MAML, iMAML or Reptile.

    net             () -> the net
    draw            (tasks, support, query, seed) -> a Batch in float32
    support, query  examples of a task in each set
    inner_lr        small enough that rounding does not grow along the inner steps
    rule            the update rule of the inner loop. Adam's eps is 1e-2: with a
                    smaller one, rounding of gradients near 0 would grow by 1 / eps. Its
                    eps_root is not 0: at a gradient of 0, autodiff of a root is NaN
    make_method     (workload) -> the method
    """

    name: str
    title: str
    net: Callable
    draw: Callable
    tasks: int
    support: int
    query: int
    inner_lr: float
    inner_steps: int
    rule: UpdateRule = UpdateRule()
    make_method: Callable = maml

    @property
    def gflop(self):
        """10^9 operations of convolutions and linear layers, as in flops.py."""
        count = flops.of(self.method, self.net(), self.support, self.query)
        return self.tasks * count / 1e9

    @property
    def method(self):
        return self.make_method(self)

    def theta(self, dtype):
        """The initial parameters (P,), the same numbers in every precision."""
        return self.net().init(0, np.float32).astype(dtype)

    def batch(self, dtype):
        """The tasks, the same numbers in every precision."""
        return self.draw(self.tasks, self.support, self.query, 0).astype(dtype)

    def with_tasks(self, tasks):
        return self._replace(tasks=tasks)


def noise_images(ways, image, tasks, support, query, seed):
    """Images of uniform noise, with the labels 0 .. ways - 1 in turn."""
    rng = np.random.default_rng(seed)

    def draw_set(examples):
        x = rng.random((tasks, examples, *image), np.float32)
        return x, np.tile(np.arange(examples) % ways, (tasks, 1))

    return Batch(*draw_set(support), *draw_set(query))


def sinusoids(tasks, support, query, seed):
    """The sinusoid regression of the MAML paper."""
    return Sinusoids().sample(tasks, support, query, seed=seed)


def subspace_tasks(tasks, support, query, seed):
    """Linear tasks that share a subspace of 3 dimensions, as in `--data linear`."""
    return TwoLayerLinear(20, 3).sample(tasks, support, query, seed=seed, dtype=np.float32)


def strided():
    return conv4()


def max_pool():
    return conv4(downsample="max_pool")


def small_max_pool():
    return conv4(n_way=3, channels=4, image=(1, 16, 16), downsample="max_pool")


def resnet():
    """ResNet-12 at a width and an image size that a laptop trains."""
    return resnet12(32, image=(1, 28, 28))


two_layer = partial(two_layer_linear, 20, 3)
noise_28x28 = partial(noise_images, 5, (1, 28, 28))
noise_16x16 = partial(noise_images, 3, (1, 16, 16))
MOMENTUM_TITLE = "strided net, 5 steps with momentum 0.9"
ADAM_TITLE = "strided net, 5 steps of Adam"
RESNET_TITLE = "ResNet-12 of width 32, 1 step, 25 queries"
LINEAR_TITLE = "two-layer linear net, 1 step"
POOL_TITLE, SMALL_TITLE = "max-pool net, 1 step, 15 queries", "a small net, for trying the bench"
IMAML_TITLE = "iMAML on the strided net, 16 steps, 5 iterations of CG"
REPTILE_TITLE = "Reptile on the strided net, 16 steps"
TABLE = {
    w.name: w
    for w in (
        Workload("strided-1", "strided net, 1 step", strided, noise_28x28, 32, 5, 5, 0.01, 1),
        Workload("strided-5", "strided net, 5 steps", strided, noise_28x28, 32, 5, 5, 0.002, 5),
        Workload(
            "strided-5-momentum", MOMENTUM_TITLE, strided, noise_28x28, 32, 5, 5, 5e-4, 5, SGD(0.9)
        ),
        Workload(
            "strided-5-adam",
            ADAM_TITLE,
            strided,
            noise_28x28,
            32,
            5,
            5,
            5e-4,
            5,
            Adam(eps=1e-2, eps_root=1e-8),
        ),
        Workload(
            "strided-imaml", IMAML_TITLE, strided, noise_28x28, 16, 5, 5, 0.005, 16,
            make_method=imaml,
        ),
        Workload(
            "strided-reptile", REPTILE_TITLE, strided, noise_28x28, 32, 5, 5, 0.002, 16,
            make_method=reptile,
        ),
        Workload("max-pool-1", POOL_TITLE, max_pool, noise_28x28, 32, 5, 75, 0.01, 1),
        Workload("resnet-1", RESNET_TITLE, resnet, noise_28x28, 4, 5, 25, 0.01, 1),
        Workload("sinusoid-1", "sinusoid, 1 step", mlp, sinusoids, 25, 10, 10, 0.01, 1),
        Workload("sinusoid-5", "sinusoid, 5 steps", mlp, sinusoids, 25, 10, 10, 0.01, 5),
        Workload("sinusoid-1-one", "sinusoid, 1 step, 1 task", mlp, sinusoids, 1, 10, 10, 0.01, 1),
        Workload("sinusoid-5-one", "sinusoid, 5 steps, 1 task", mlp, sinusoids, 1, 10, 10, 0.01, 5),
        Workload("linear-1", LINEAR_TITLE, two_layer, subspace_tasks, 25, 10, 10, 0.1, 1),
        Workload(
            "linear-5",
            "two-layer linear net, 5 steps",
            two_layer,
            subspace_tasks,
            25,
            10,
            10,
            0.1,
            5,
        ),
        Workload(
            "linear-1-one", f"{LINEAR_TITLE}, 1 task", two_layer, subspace_tasks, 1, 10, 10, 0.1, 1
        ),
        Workload("tiny", SMALL_TITLE, small_max_pool, noise_16x16, 4, 3, 6, 0.01, 2),
        Workload(
            "tiny-imaml", "iMAML on the small net", small_max_pool, noise_16x16, 4, 3, 6, 2e-4, 2,
            make_method=imaml_on_small,
        ),
        Workload(
            "tiny-reptile", "Reptile on the small net", small_max_pool, noise_16x16, 4, 3, 6,
            0.01, 2, make_method=reptile,
        ),
    )
}  # fmt: skip
DEFAULT = tuple(name for name in TABLE if not name.startswith("tiny"))
# On a GPU, where a session is short: plain steps of MAML, on the smaller nets.
DEFAULT_ON_GPU = ("strided-1", "strided-5", "max-pool-1", "sinusoid-1", "sinusoid-5")


def by_name(names):
    """The workloads of those names. Raises ArgumentError for an unknown name."""
    for name in names:
        expect(name in TABLE, "--workloads", f"some of {', '.join(TABLE)}", name)
    return [TABLE[name] for name in names]
