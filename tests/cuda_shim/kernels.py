"""The CUDA kernels of the project on the shim.

`python kernels.py FOLDER` runs them under AddressSanitizer, whose library is preloaded.
"""

import re
import sys

import numpy as np
from fused_layers import SMALL, unfused
from kernel_passes import PRECISIONS, TINY, draws, loss_passes, passes
from vector_passes import dots, vectors_passes

from cuda_shim.build import build, load
from cuda_shim.device import SCHEDULES, ShimDevice
from cuda_shim.strict import Cupy
from refmaml import kernels
from refmaml.kernels.cuda_runtime.launcher import VERSIONS
from refmaml.kernels.cuda_runtime.source import common, own
from refmaml.kernels.discovery import folders
from refmaml.layers import Conv2d, Linear
from refmaml.oracles import cases


def texts():
    """{operation: its CUDA text}."""
    return {operation: own(operation) for operation in folders()}


def shim_device(folder, sanitize=False):
    """A device that runs every CUDA file of the project, built into `folder`."""
    schedules = ("shuffled",) if sanitize else tuple(SCHEDULES)
    return ShimDevice(libraries(folder, sanitize), schedules)


def libraries(folder, sanitize=False, team=None):
    """{precision: the project's kernels}, built into `folder`.

    team  threads of a team; None: as on a GPU. Small teams run faster.
    """
    text = common()
    if team is not None:
        text, replaced = re.subn(r"\bTEAM = \d+", f"TEAM = {team}", text)
        assert replaced == 1
    return {
        dtype: load(build(text, texts(), dtype, folder, sanitize))
        for dtype in ("float32", "float64")
    }


def stand_in(device):
    """A stand-in for the module cupy that runs kernels on the shim, in one schedule."""

    def kernel(name, dtype, grid, threads, arguments, shared=0):
        device.run(name, dtype, grid, threads, arguments, shared, SCHEDULES["forward"])

    return Cupy(kernel)


def max_pool_passes(k, winner_dtype, x, window, stride):
    """(y, winner, ry, dx) of max-pooling with winners of an integer type."""
    extents = zip(x.shape[3:], window, stride, strict=True)
    shape = (*x.shape[:3], *((n - side) // step + 1 for n, side, step in extents))
    y, winner = np.empty(shape, x.dtype), np.empty(shape, winner_dtype)
    ry, dx = np.empty_like(y), np.empty_like(x)
    k.max_pool2d_forward(y, winner, x, window, stride)
    k.max_pool2d_gather(ry, winner, x * x, window, stride)
    k.max_pool2d_backward(dx, winner, y + 1, window, stride)
    return y, winner, ry, dx


def run_everything(device):
    """Every kernel in both precisions."""
    k = kernels.cuda(device)
    for dtype in PRECISIONS:
        for case in [*cases.LAYERS, *TINY]:
            for version in VERSIONS if isinstance(case.layer, Conv2d | Linear) else VERSIONS[-1:]:
                passes(case, kernels.cuda(device, version), *draws(case, 2, False, dtype))
        for case in SMALL:
            passes(case, k, *draws(unfused(case), 2, False, dtype))
        for loss in cases.LOSSES:
            loss_passes(loss, k, dtype)
        x = np.random.default_rng(0).standard_normal((2, 2, 3, 5, 6)).astype(dtype)
        max_pool_passes(k, np.int32, x, (2, 3), (1, 2))
        vectors_passes(k, dtype, P=300)
        dots(k, dtype, P=1500)


if __name__ == "__main__":
    # Ends the process at the first access out of bounds.
    sanitized = shim_device(sys.argv[1], sanitize=True)
    run_everything(sanitized)
    print(len(sanitized.launched), "kernels ran")
