"""What tests of methods on arrays of a GPU share: methods, a small net, counts."""

import refmaml as rm
from refmaml.execution import Sequential
from refmaml.layers import BatchNorm2d, Conv2d, CrossEntropy, FiLM, Flatten, Linear, MaxPool2d, ReLU
from refmaml.methods.newton_cg import HALVINGS
from refmaml.oracles import cases
from refmaml.oracles.meta_objectives import fixed_rates

STEPS = {"inner_lr": 0.1, "inner_steps": 2}
IMPLICIT = {"regularization": 2.0, "inner_steps": 2, "inner_lr": 0.1, "cg_steps": 3}
METHODS = [
    rm.MAML(**STEPS),
    rm.MAML(**STEPS, recompute=True),
    rm.FirstOrderMAML(**STEPS),
    rm.ANIL(**STEPS),
    rm.FirstOrderANIL(**STEPS),
    rm.MetaSGD(**STEPS),
    rm.MAMLPlusPlus(**STEPS),
    rm.CAVIA(**STEPS),
    rm.ERM(),
    rm.Reptile(**STEPS),
    rm.Reptile(**STEPS, inner_batch=4, optimizer="adam"),
    rm.IMAML(**IMPLICIT),
    rm.IMAML(**IMPLICIT, frozen=("BatchNorm2d",)),
    rm.IMAML(**IMPLICIT, solver="newton_cg"),
    rm.IMAML(**IMPLICIT, solver="controlled_descent"),
    rm.ReleasedIMAML(inner_steps=2, cg_steps=3),
    rm.R2D2(intercept=True),
    rm.LRD2(newton_steps=3),
    rm.MetaOptNet(solver_steps=3),
    rm.LRD2(newton_steps=2, differentiate="iterations"),
]
COUNTED = ("to the GPU", "to the host", "wait")


def name_of(method):
    return type(method).__name__ + "".join(
        f", {f}"
        for f in ("recompute", "inner_batch", "solver", "frozen", "differentiate")
        if getattr(method, f, None)
    )


def tiny(context=False):
    """A small net with every kind of layer that a second-order method meets.

    There is no bias before batch-norm: its gradient would be rounding errors, which
    Adam enlarges to full steps.
    """
    film = [FiLM(2, 2)] if context else []
    return Sequential(
        [
            Conv2d(1, 2, 3, padding=1, bias=False),
            BatchNorm2d(2),
            *film,
            ReLU(),
            MaxPool2d(2),
            Flatten(),
            Linear(8, 3),
        ],
        CrossEntropy(),
        (1, 4, 5),
    )


def case(method, seed=0):
    """(net, meta, batch) away from kinks, in float64."""
    net = tiny(isinstance(method, rm.CAVIA))
    theta, batch, _ = cases.method_case(net, fixed_rates(net, method), seed)
    return net, method.init(net, theta), batch


def counted(cupy):
    """{what: how often} since the last call, for waits and copies."""
    seen = {name: cupy.gpu.counts[name] for name in COUNTED if cupy.gpu.counts[name]}
    cupy.gpu.counts.clear()
    return seen


def reads_and_sends(method):
    """(reads, sends): how many numbers a method may read and send in its loop, at most.

    Only the line searches of iMAML's Newton steps read or send any.
    """
    searches = method.inner_steps if getattr(method, "solver", None) == "newton_cg" else 0
    return searches * HALVINGS, searches * (HALVINGS + 1)
