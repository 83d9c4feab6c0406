"""The device, and the versions of the installed libraries, in a file.

    python -m refmaml.bench.gpu.device_info FILE.json

Without a GPU it prints one line and exits with status 2.
"""

import sys

from refmaml.bench.gpu.device import open_gpu
from refmaml.bench.gpu.result_file import write_result
from refmaml.bench.machine import installed_versions
from refmaml.environment import circumstances
from refmaml.errors import ArgumentError

LIBRARIES = (
    "numpy",
    "scipy",
    "torch",
    "triton",
    "jax",
    "jaxlib",
    "jax-cuda13-plugin",
    "nvidia-cudnn-cu13",
    "nvidia-cublas",
)


def device_info(gpu):
    """{"versions", "machine", "device"} of a measurement on this GPU."""
    info = circumstances()
    info["versions"] |= installed_versions(LIBRARIES)
    return {**info, "device": gpu.properties()}


def main(path):
    """Write the file, print one line, return the exit status."""
    try:
        gpu = open_gpu()
    except ArgumentError as reason:
        print(f"refmaml: {reason}")
        return 2
    record = device_info(gpu)
    device = record["device"]
    capability = ".".join(map(str, device["compute_capability"]))
    print(
        f"{device['name']}, compute capability {capability}, "
        f"driver {device.get('driver', 'unknown')}, CUDA {device['cuda_runtime']}, "
        f"CuPy {device['cupy']}"
    )
    return write_result(path, record, True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
