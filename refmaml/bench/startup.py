"""What the first use costs: importing refmaml, and the first meta-gradient with Numba's cache empty and filled, each in a new process."""

import os
import subprocess
import sys
from tempfile import TemporaryDirectory

from refmaml.bench.timing import spread
from refmaml.bench.worker import WorkerError

IMPORT = "from time import perf_counter as now\nstart = now()\nimport refmaml\nprint(now() - start)"
FIRST_CALL = """import numpy as np, refmaml
from time import perf_counter as now
from refmaml.bench.contestants.ours import contestant
from refmaml.bench.workloads import TABLE
start = now()
contestant({kernels!r}).prepare(TABLE[{workload!r}], np.float32)()
print(now() - start)"""


def seconds_of(code, environment=()):
    """What a new Python prints at the end of `code`. Raises WorkerError where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise WorkerError(
            f"start-up: expected a time, got {(done.stderr.strip().splitlines() or ['nothing'])[-1]}"
        )
    return float(done.stdout.split()[-1])


def startup(workload, kernels, repeats=5):
    """{"import": Spread, "cold": seconds, "warm": Spread}: of `import refmaml`, after one that fills the disk's caches; of the first
    meta-gradient of a process after its imports, with Numba's cache empty, and then as that left it."""
    code = FIRST_CALL.format(kernels=kernels, workload=workload.name)
    seconds_of(IMPORT)
    imports = [seconds_of(IMPORT) for _ in range(repeats)]
    with TemporaryDirectory() as folder:
        cache = {"NUMBA_CACHE_DIR": folder}
        cold = seconds_of(code, cache)
        warm = [seconds_of(code, cache) for _ in range(repeats)]
    return {
        "workload": workload.name,
        "import": spread(imports),
        "cold": cold,
        "warm": spread(warm),
    }
