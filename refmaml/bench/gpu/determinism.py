"""Whether the GPU gives the same bits at every run: every kernel, and whole meta-gradients.

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
    FEW,
    attempt,
    bits,
    grown,
    nets_on_gpu,
    on_device,
    recorded,
    versions,
)
from refmaml.bench.gpu.part import finished
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
    """different: how many of the runs gave other bits than the first; -1 where it failed, and `reason` says why."""

    net: str
    kernel: str
    version: int | None
    dtype: str
    runs: int
    different: int
    reason: str = ""


class GradientBits(NamedTuple):
    """digests: the sha256 of the different gradients; none where it failed."""

    workload: str
    dtype: str
    runs: int
    digests: list
    reason: str = ""


def small_nets():
    """The bench's nets with no more than 5 examples: 100 runs of the largest would take minutes."""
    return {
        name: (net, tasks, min(count, 5))
        for name, (net, tasks, count) in nets_on_gpu().items()
        if name != "max-pool, query"
    }


def kernel_bits(gpu, call, version, dtype, runs=RUNS, tasks=FEW):
    """Run one kernel on the same arguments again and again, and compare on the device; of `tasks`, so that many blocks run at once."""
    kernel, xp = gpu.kernel_set(version).functions[call.kernel], gpu.xp
    given = [grown(xp, a, tasks) for a in on_device(gpu, call, dtype)]
    kept = [a.copy() if isinstance(a, xp.ndarray) else a for a in given]
    first, different = None, None
    for _ in range(runs):
        for a, old in zip(given, kept, strict=True):
            if isinstance(a, xp.ndarray):
                a[...] = old  # some kernels add to what is there
        kernel(*given)
        now = [bits(xp, a) for a in given if isinstance(a, xp.ndarray)]
        if first is None:
            first, different = [a.copy() for a in now], xp.zeros((), np.int64)
            continue
        other = reduce(or_, [(a != b).any() for a, b in zip(now, first, strict=True)])
        different = different + other  # on the device: nobody waits
    return KernelBits(call.net, call.kernel, version, dtype, runs, int(different))


def gradient_bits(gpu, workload, dtype, runs=RUNS):
    """Compute one meta-gradient again and again."""
    run = engine.eager(workload, np.dtype(dtype), gpu.kernel_set())
    digests = {sha256(gpu.fetch(run()).tobytes()).hexdigest() for _ in range(runs)}
    return GradientBits(workload.name, dtype, runs, sorted(digests))


def main(path, gpu, nets, gradients, runs=RUNS):
    """Everything, into a file that grows."""
    record = {"kernels": [], "gradients": []}
    for call, tasks in recorded(nets):
        for dtype in DTYPES:
            for version in versions(call.kernel):
                failed = KernelBits(call.net, call.kernel, version, dtype, 0, -1)
                row = attempt(partial(kernel_bits, gpu, call, version, dtype, runs, tasks), failed)
                record["kernels"].append(row._asdict())
        finished(path, record, None)
    for name, dtype in gradients:
        row = attempt(
            partial(gradient_bits, gpu, TABLE[name], dtype, runs), GradientBits(name, dtype, 0, [])
        )
        record["gradients"].append(row._asdict())
        finished(path, record, None)
    bad = [row for row in record["kernels"] if row["different"]] + [
        row for row in record["gradients"] if len(row["digests"]) != 1
    ]
    for row in bad:
        print("FAILED:" if row["reason"] else "OTHER BITS:", row)
    print(
        f"{len(record['kernels'])} kernels and {len(record['gradients'])} meta-gradients, {runs} times each: {len(bad)} with other bits"
    )
    return finished(path, record, not bad)


if __name__ == "__main__":
    from refmaml.bench.gpu.device import Gpu

    sys.exit(main(sys.argv[1], Gpu(), small_nets(), GRADIENTS))
