"""Every Numba CUDA kernel against the reference, as JSON; needs NUMBA_ENABLE_CUDASIM=1.

Kernels named as arguments get an error of a thousandth.
"""

import json
import sys

import numpy as np
from fused_layers import errors, unfused
from kernel_passes import REFERENCE, draws, far_from_zero, loss_passes, worst
from vector_passes import vectors_passes, worst_dot

from refmaml import kernels
from refmaml.execution.fused_layers import NormActPool
from refmaml.layers import (
    ELU,
    GELU,
    AvgPool2d,
    BatchNorm2d,
    Context,
    Conv2d,
    CrossEntropy,
    FiLM,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from refmaml.layers.losses import MSE
from refmaml.oracles.cases import LayerCase
from refmaml.oracles.tolerance import relative_error, tolerance

CASES = [
    LayerCase(Conv2d(2, 2, (2, 3), stride=(1, 2), padding=((0, 1), (2, 0))), (2, 3, 4)),
    LayerCase(Conv2d(1, 1, 1), (1, 1, 1)),
    LayerCase(Linear(3, 2), (3,)),
    LayerCase(BatchNorm2d(2), (2, 2, 1)),
    LayerCase(BatchNorm2d(2, gamma=False), (2,)),
    LayerCase(ReLU(), (2, 2, 1)),
    LayerCase(LeakyReLU(0.2), (3,)),
    LayerCase(Tanh(), (3,)),
    LayerCase(Softplus(), (3,)),
    LayerCase(MaxPool2d(2), (1, 3, 2)),
    LayerCase(MaxPool2d((3, 2), stride=(1, 2)), (1, 4, 4)),
    LayerCase(AvgPool2d((3, 2), stride=(1, 2)), (1, 4, 4)),
    LayerCase(FiLM(2, 1), (2,)),
    LayerCase(Context(1), (2,)),
    LayerCase(GroupNorm(2, 4), (4, 2, 1)),
    LayerCase(LayerNorm((2, 2, 1)), (2, 2, 1)),
    LayerCase(InstanceNorm2d(1), (1, 2, 2)),
    LayerCase(Sigmoid(), (3,)),
    LayerCase(SiLU(), (3,)),
    LayerCase(GELU(), (3,)),
    LayerCase(GELU("tanh"), (3,)),
    LayerCase(ELU(0.3), (3,)),
]
FUSED_CASES = [
    LayerCase(NormActPool(BatchNorm2d(2), 0.0, (2, 2)), (2, 3, 2)),
    LayerCase(NormActPool(BatchNorm2d(2), 0.2), (2,)),
]

MEAN = 1000


def watched(kernel_set, wrong):
    """(the set, the names of its kernels that were called).

    The results of the kernels in `wrong` are multiplied by 1.001.
    """
    launched = set()

    def watch(name, kernel):
        def call(out, *rest):
            launched.add(name)
            kernel(out, *rest)
            if name in wrong:
                out *= out.dtype.type(1.001)

        return call

    return kernel_set.replace(
        **{name: watch(name, kernel) for name, kernel in kernel_set.functions.items()}
    ), launched


def compare(k, chosen):
    """{what: its largest error as a fraction of its tolerance}.

    Of the layers in `chosen`, losses, vectors, and batch- and group-norm on inputs
    far from 0.
    """
    fractions = {}
    for case in chosen:
        for dtype, tasks, shared in ((np.float64, 2, False), (np.float32, 2, True)):
            fractions[f"{case}, {np.dtype(dtype).name}"] = float(
                worst(case, k, *draws(case, tasks, shared, dtype))[0]
            )
    for case in FUSED_CASES:
        for dtype in (np.float64, np.float32):
            fractions[f"{case}, {np.dtype(dtype).name}"] = max(
                errors(case, k, 2, dtype == np.float32, dtype).values()
            )
    rounding = MEAN * np.finfo(np.float32).eps  # test_11_far_from_zero.py says why
    far = ((CASES[3], None), (CASES[-3], None), (FUSED_CASES[0], unfused(FUSED_CASES[0])))
    for case, exact in far:
        largest = max(far_from_zero(case, k, MEAN, exact).values())
        fractions[f"{case}, far from 0"] = float(largest / (8 * rounding))
    for loss in (CrossEntropy("sum"), MSE(factor=0.5)):
        pairs = zip(
            loss_passes(loss, REFERENCE, np.float64), loss_passes(loss, k, np.float64), strict=True
        )
        fractions[str(loss)] = max(
            float(relative_error(b, a) / tolerance(float, 16)) for a, b in pairs
        )
    truth, values = (vectors_passes(s, np.float64, P=5) for s in (REFERENCE, k))
    fractions["sums over rows"] = max(
        worst_dot(k, dtype, P=5) for dtype in (np.float64, np.float32)
    )
    fractions["vectors"] = max(
        float(relative_error(values[name], truth[name]) / tolerance(float, 3)) for name in truth
    )
    return fractions


if __name__ == "__main__":
    k, launched = watched(kernels.numba_cuda(), sys.argv[1:])
    print(
        json.dumps(
            {
                "fractions": compare(k, CASES[:4] if sys.argv[1:] else CASES),
                "launched": sorted(launched),
            }
        )
    )
