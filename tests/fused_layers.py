"""Fused layers and the layers they replace, for tests of fused kernels."""

from dataclasses import dataclass

from kernel_passes import REFERENCE, draws, passes

from refmaml import kernels
from refmaml.execution import Sequential
from refmaml.execution.fused_layers import NormActPool
from refmaml.execution.fusion import fused_layers
from refmaml.kernels.discovery import collect, fusions
from refmaml.layers import BatchNorm2d, LeakyReLU, MaxPool2d, ReLU
from refmaml.oracles.cases import LayerCase
from refmaml.oracles.tolerance import relative_error, tolerance

FUSED_REFERENCE = kernels.KernelSet(
    "reference", {**REFERENCE.functions, **collect("reference", fusions())[0]}
)
SMALL = [
    LayerCase(NormActPool(BatchNorm2d(3), 0.0, (2, 2)), (3, 5, 7)),
    LayerCase(NormActPool(BatchNorm2d(2, gamma=False), 0.2), (2, 5, 3)),
    LayerCase(NormActPool(BatchNorm2d(2, gamma=False, beta=False), 0.0), (2, 3, 4)),
    LayerCase(NormActPool(BatchNorm2d(4), 1.0, (2, 3)), (4, 5, 7)),
    LayerCase(NormActPool(BatchNorm2d(2, eps=0.1), 0.1, (3, 1)), (2, 8, 2)),
    LayerCase(NormActPool(BatchNorm2d(4), 0.0), (4,)),
    LayerCase(NormActPool(BatchNorm2d(1), 0.0, (2, 2)), (1, 2, 2)),
    LayerCase(NormActPool(BatchNorm2d(1), 0.0, (1, 1)), (1, 1, 2)),
]
# More numbers than one round of a block's threads, and than its shared memory holds.
LARGE = [
    LayerCase(NormActPool(BatchNorm2d(2), 0.0, (2, 2)), (2, 19, 18)),
    LayerCase(NormActPool(BatchNorm2d(1), 0.0, (2, 2)), (1, 57, 60)),
]


@dataclass(frozen=True)
class Unfused:
    """The layers that a NormActPool replaces, on the reference kernels."""

    layer: NormActPool

    def replaced_layers(self):
        activation = (
            []
            if self.layer.slope == 1
            else [LeakyReLU(self.layer.slope) if self.layer.slope else ReLU()]
        )
        return [
            self.layer.norm,
            *activation,
            *([] if self.layer.window == (1, 1) else [MaxPool2d(self.layer.window)]),
        ]

    def shapes(self):
        return self.layer.shapes()

    def forward(self, k, w, x):
        kept = []
        for layer in self.replaced_layers():
            x, saved = layer.forward(REFERENCE, w, x)
            kept.append(saved)
        return x, kept

    def backward(self, k, dw, w, kept, dy):
        dys = []
        for layer, saved in zip(reversed(self.replaced_layers()), reversed(kept), strict=True):
            dys.append(dy)
            dy = layer.backward(REFERENCE, dw, w, saved, dy)
        kept.append(dys[::-1])
        return dy

    def r_forward(self, k, w, rw, kept, rx):
        rkept = []
        for layer, saved in zip(self.replaced_layers(), kept, strict=False):
            rx, rsaved = layer.r_forward(REFERENCE, w, rw, saved, rx)
            rkept.append(rsaved)
        return rx, rkept

    def r_backward(self, k, rdw, w, rw, kept, rkept, dy, rdy):
        *saved, dys = kept
        for layer, *of in list(zip(self.replaced_layers(), saved, rkept, dys, strict=True))[::-1]:
            rdy = layer.r_backward(REFERENCE, rdw, w, rw, *of, rdy)
        return rdy


def unfused(case):
    """The case of the layers that a fused layer replaces."""
    return case._replace(layer=Unfused(case.layer))


def errors(case, candidate, *how):
    """{quantity: its error as a fraction of the tolerance}.

    A fused layer on a kernel set against the layers it replaces, on the inputs that
    `draws` gives for (tasks, shared, dtype).
    """
    inputs = draws(unfused(case), *how)
    truth, values = passes(unfused(case), REFERENCE, *inputs), passes(case, candidate, *inputs)
    limit = tolerance(inputs[2].dtype, inputs[2][0].size)
    return {name: relative_error(values[name], truth[name]) / limit for name in truth}


def fused(net, kernel_set):
    """`net` on a kernel set, with its fused layers."""
    return Sequential(
        fused_layers(net.layers, kernel_set), net.loss_function, net.input_shape, kernel_set
    )
