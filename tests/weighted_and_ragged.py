"""What the tests of weighted tasks and of tasks of different sizes share."""

import numpy as np

import refmaml as rm

METHODS = [
    rm.MAML(0.3, 2),
    rm.MAML(0.3, 2, recompute=True),
    rm.FirstOrderMAML(0.3, 2),
    rm.ANIL(0.3, 2),
    rm.FirstOrderANIL(0.3, 2),
    rm.MetaSGD(0.3, 2),
    rm.MAMLPlusPlus(0.3, 2),
    rm.CAVIA(0.3, 2),
    rm.Reptile(0.3, 2),
    rm.Reptile(0.1, 3, optimizer="adam", moment="carried", inner_batch=2),
    rm.IMAML(2.0, 3, cg_steps=30, cg_tol=1e-4),
    rm.IMAML(2.0, 3, solver="newton_cg", inner_tol=1e-3),
    rm.IMAML(2.0, 3, solver="controlled_descent"),
    rm.ERM(),
    rm.MAML(0.05, 3, rule=rm.Adam()),
    rm.FirstOrderMAML(0.1, 2, rule=rm.SGD(momentum=0.9)),
]
SIZES = [(4, 6), (9, 3), (5, 5), (4, 6), (9, 3)]  # support and query examples of each task
WEIGHTS = np.array([1.0, -0.5, 2.0, 0.25, 3.0])


def name_of(method):
    return type(method).__name__


def context_net(kernel_set="reference"):
    """A net that every method fits, with a batch statistic over the examples."""
    layers = [rm.Context(2), rm.Linear(5, 6), rm.Tanh(), rm.Linear(6, 2)]
    return rm.Sequential(layers, rm.MSE(), kernels=kernel_set)


def image_net(kernel_set="reference"):
    layers = [rm.Conv2d(1, 3, 3, padding=1), rm.BatchNorm2d(3), rm.ReLU(), rm.SpatialMean()]
    return rm.Sequential([*layers, rm.Linear(3, 2)], rm.CrossEntropy(), kernels=kernel_set)


def lists(sizes=SIZES, dtype=np.float64, seed=0):
    """x_support, y_support, x_query, y_query as lists of arrays, for context_net."""
    rng = np.random.default_rng(seed)
    return [
        [rng.standard_normal((size[i], features)).astype(dtype) for size in sizes]
        for i, features in ((0, 3), (0, 2), (1, 3), (1, 2))
    ]


def images(sizes, sides, dtype=np.float64):
    """The same for image_net; sides: the images' (height, width) in each task."""
    rng = np.random.default_rng(1)
    out = []
    for i in (0, 1):
        shapes = [(size[i], 1, *side) for size, side in zip(sizes, sides, strict=True)]
        out += [
            [rng.standard_normal(shape).astype(dtype) for shape in shapes],
            [rng.integers(0, 2, shape[0]) for shape in shapes],
        ]
    return out


def alone(arrays, t):
    """Task t of four lists of arrays, as a Batch of one task."""
    return rm.Batch(*(a[t][None] for a in arrays))


def whole(tasks=4, weights=None):
    """A Batch of tasks of one size, for context_net."""
    return rm.Batch(*(np.stack(a) for a in lists([(5, 6)] * tasks)), weights)


def summed(outs, weights, dtype):
    """(1/T) sum_t w_t grad_t of single tasks' MetaGradients, added in task order."""
    total = np.zeros_like(outs[0].grad)
    for out, w in zip(outs, weights, strict=True):
        total += dtype(w) * out.grad
    return total / len(outs)
