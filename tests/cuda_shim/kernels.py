"""The project's kernels on the shim: `python kernels.py FOLDER` runs them under AddressSanitizer (with its library preloaded)."""

import re
import sys

from fused_layers import SMALL, unfused
from kernel_passes import PRECISIONS, TINY, dots, draws, loss_passes, passes, vectors_passes

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
    """A device that runs every kernel file of the project, built into `folder`."""
    return ShimDevice(libraries(folder, sanitize), ("shuffled",) if sanitize else tuple(SCHEDULES))


def libraries(folder, sanitize=False, team=None):
    """{precision: the project's kernels}, built into `folder`; with teams of so many threads, where they only have to be quick."""
    text = common()
    if team is not None:
        text, replaced = re.subn(r"\bTEAM = \d+", f"TEAM = {team}", text)
        assert replaced == 1
    return {
        dtype: load(build(text, texts(), dtype, folder, sanitize))
        for dtype in ("float32", "float64")
    }


def stand_in(device):
    """A stand-in for the module cupy whose kernels run on a device of the shim, in one order of threads."""

    def kernel(name, dtype, grid, threads, arguments, shared=0):
        device.run(name, dtype, grid, threads, arguments, shared, SCHEDULES["forward"])

    return Cupy(kernel)


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
        vectors_passes(k, dtype, P=300)
        dots(k, dtype, P=1500)


if __name__ == "__main__":
    sanitized = shim_device(
        sys.argv[1], sanitize=True
    )  # ends the process at the first access out of bounds
    run_everything(sanitized)
    print(len(sanitized.launched), "kernels ran")
