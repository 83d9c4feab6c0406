"""What the device is, and what is installed.

    python -m refmaml.bench.gpu.about FILE.json

Without a GPU it says so in one line, and its exit status is 2.
"""

import sys

from refmaml.bench.gpu.part import finished
from refmaml.cli.bench_gpu import about_device, open_gpu
from refmaml.errors import ArgumentError


def main(path):
    """Into the file."""
    try:
        gpu = open_gpu()
    except ArgumentError as reason:
        print(f"refmaml: {reason}")
        return 2
    record = about_device(gpu)
    print(
        f"{record['device']['name']}, compute capability {'.'.join(map(str, record['device']['compute_capability']))}, "
        f"driver {record['device'].get('driver', 'unknown')}, CUDA {record['device']['cuda_runtime']}, CuPy {record['device']['cupy']}"
    )
    return finished(path, record, True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
