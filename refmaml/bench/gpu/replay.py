"""Does a replayed CUDA graph give the same bits as eager launches?

    python -m refmaml.bench.gpu.replay FILE.json

For the parameters that it was captured with, and for others.
"""

import sys

import numpy as np

from refmaml.bench.gpu import engine
from refmaml.bench.gpu.result_file import write_result
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
    """[whether a replay has the bits of eager launches] for several thetas.

    The first theta is that of the capture; it comes again at the end.
    """
    kernels, theta = gpu.kernel_set(), workload.theta(np.dtype(dtype))
    eager = engine.eager(workload, np.dtype(dtype), kernels)
    graph = engine.graph(workload, np.dtype(dtype), kernels)
    rng = np.random.default_rng(0)
    others = [
        (theta + 0.01 * rng.standard_normal(theta.shape)).astype(dtype) for _ in range(REPLAYS)
    ]
    return [
        gpu.to_host(eager(start)).tobytes() == gpu.to_host(graph(start)).tobytes()
        for start in (theta, *others, theta)
    ]


def main(path, gpu, cases):
    """Check all cases; the file is written after each. Returns the exit status."""
    record = {"replays": []}
    for name, dtype in cases:
        same = same_bits(gpu, TABLE[name], dtype)
        row = {"workload": name, "dtype": dtype, "starts": len(same), "same": all(same)}
        record["replays"].append(row)
        verdict = "the same bits" if all(same) else "OTHER BITS"
        print(f"{name} in {dtype}: {verdict} from {len(same)} starts", flush=True)
        write_result(path, record, None)
    return write_result(path, record, all(row["same"] for row in record["replays"]))


if __name__ == "__main__":
    from refmaml.bench.gpu.device import Gpu

    sys.exit(main(sys.argv[1], Gpu(), CASES))
