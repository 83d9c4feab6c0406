"""Whether a replayed CUDA graph gives the bits of launch by launch, for the arrays it was captured with and for others.

python -m refmaml.bench.gpu.replay FILE.json
"""

import sys

import numpy as np

from refmaml.bench.gpu import engine
from refmaml.bench.gpu.part import finished
from refmaml.bench.workloads import TABLE

CASES = (
    ("tiny", "float32"),
    ("tiny", "float64"),
    ("strided-1", "float32"),
    ("strided-1", "float64"),
    ("strided-5", "float32"),
    ("max-pool-1", "float32"),
    ("sinusoid-1", "float32"),
    ("sinusoid-5", "float32"),
)
REPLAYS = 3


def same_bits(gpu, workload, dtype):
    """[whether each replay has the bits of launch by launch], from several starts; the first again at last."""
    kernels = gpu.kernel_set()
    launched, replayed = (
        engine.eager(workload, np.dtype(dtype), kernels),
        engine.graph(workload, np.dtype(dtype), kernels),
    )
    theta = workload.theta(np.dtype(dtype))
    rng, starts = np.random.default_rng(0), [theta]
    starts += [
        (theta + 0.01 * rng.standard_normal(theta.shape)).astype(dtype) for _ in range(REPLAYS)
    ]
    starts.append(theta)
    return [
        gpu.fetch(launched(start)).tobytes() == gpu.fetch(replayed(start)).tobytes()
        for start in starts
    ]


def main(path, gpu, cases):
    """Everything, into a file that grows."""
    record = {"replays": []}
    for name, dtype in cases:
        same = same_bits(gpu, TABLE[name], dtype)
        record["replays"].append(
            {"workload": name, "dtype": dtype, "starts": len(same), "same": all(same)}
        )
        print(
            f"{name} in {dtype}: {'the same bits' if all(same) else 'OTHER BITS'} from {len(same)} starts",
            flush=True,
        )
        finished(path, record, None)
    return finished(path, record, all(row["same"] for row in record["replays"]))


if __name__ == "__main__":
    from refmaml.bench.gpu.device import Gpu

    sys.exit(main(sys.argv[1], Gpu(), CASES))
