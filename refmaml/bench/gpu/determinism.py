"""Does the GPU give the same bits in every run? Every kernel, and whole meta-gradients.

python -m refmaml.bench.gpu.determinism FILE.json
"""

import sys
from functools import partial, reduce
from hashlib import sha256
from operator import or_
from typing import NamedTuple

import numpy as np

from refmaml.bench.gpu import engine
from refmaml.bench.gpu.kernel_rows import (
    DTYPES,
    FEW_TASKS,
    arguments_on_device,
    bits,
    failed_on_error,
    nets_on_gpu,
    recorded_calls,
    repeat_tasks,
    versions,
)
from refmaml.bench.gpu.result_file import write_result
from refmaml.bench.workloads import TABLE

RUNS = 100
GRADIENTS = (
    ("tiny", "float32"),
    ("tiny", "float64"),
    ("strided-1", "float32"),
    ("strided-1", "float64"),
    ("strided-5", "float32"),
    ("max-pool-1", "float32"),
    ("sinusoid-5", "float32"),
)


class KernelBits(NamedTuple):
    """different: the number of runs with other bits than the first; -1 after an error.

    reason: the error.
    """

    net: str
    kernel: str
    version: int | None
    dtype: str
    runs: int
    different: int
    reason: str = ""


class GradientBits(NamedTuple):
    """digests: the sha256 of the different gradients; empty after an error."""

    workload: str
    dtype: str
    runs: int
    digests: list
    reason: str = ""


def small_nets():
    """The bench's nets with at most 5 examples: runs of the largest take minutes."""
    return {
        name: (net, tasks, min(count, 5))
        for name, (net, tasks, count) in nets_on_gpu().items()
        if name != "max-pool, query"
    }


def kernel_bits(gpu, call, version, dtype, runs=RUNS, tasks=FEW_TASKS):
    """Run one kernel many times on the same arguments and compare the bits.

    tasks  enough of them for many blocks to run at once
    The comparison is on the device.
    """
    kernel, xp = gpu.kernel_set(version).functions[call.kernel], gpu.xp
    arguments = [repeat_tasks(xp, a, tasks) for a in arguments_on_device(gpu, call, dtype)]
    originals = [a.copy() if isinstance(a, xp.ndarray) else a for a in arguments]
    first, different = None, xp.zeros((), np.int64)
    for _ in range(runs):
        for a, original in zip(arguments, originals, strict=True):
            if isinstance(a, xp.ndarray):
                a[...] = original  # some kernels add to their output
        kernel(*arguments)
        results = [bits(xp, a) for a in arguments if isinstance(a, xp.ndarray)]
        if first is None:
            first = [a.copy() for a in results]
            continue
        differs = reduce(or_, [(a != b).any() for a, b in zip(results, first, strict=True)])
        different = different + differs  # a sum on the device: no synchronization
    return KernelBits(call.net, call.kernel, version, dtype, runs, int(different))


def gradient_bits(gpu, workload, dtype, runs=RUNS):
    """Compute one meta-gradient many times."""
    run = engine.eager(workload, np.dtype(dtype), gpu.kernel_set())
    digests = {sha256(gpu.to_host(run()).tobytes()).hexdigest() for _ in range(runs)}
    return GradientBits(workload.name, dtype, runs, sorted(digests))


def main(path, gpu, nets, gradients, runs=RUNS):
    """Check all; the file is written after each call. Returns the exit status."""
    record = {"kernels": [], "gradients": []}
    for call, tasks in recorded_calls(nets):
        for dtype in DTYPES:
            for version in versions(call.kernel):
                failed = KernelBits(call.net, call.kernel, version, dtype, 0, -1)
                check = partial(kernel_bits, gpu, call, version, dtype, runs, tasks)
                record["kernels"].append(failed_on_error(check, failed)._asdict())
        write_result(path, record, None)
    for name, dtype in gradients:
        failed = GradientBits(name, dtype, 0, [])
        check = partial(gradient_bits, gpu, TABLE[name], dtype, runs)
        record["gradients"].append(failed_on_error(check, failed)._asdict())
        write_result(path, record, None)
    return write_result(path, record, report(record, runs))


def report(record, runs):
    """Print what differs and a summary; returns whether nothing differs."""
    bad = [row for row in record["kernels"] if row["different"]]
    bad += [row for row in record["gradients"] if len(row["digests"]) != 1]
    for row in bad:
        print("FAILED:" if row["reason"] else "OTHER BITS:", row)
    print(
        f"{len(record['kernels'])} kernels and {len(record['gradients'])} meta-gradients, "
        f"{runs} times each: {len(bad)} with other bits"
    )
    return not bad


if __name__ == "__main__":
    from refmaml.bench.gpu.device import Gpu

    sys.exit(main(sys.argv[1], Gpu(), small_nets(), GRADIENTS))
