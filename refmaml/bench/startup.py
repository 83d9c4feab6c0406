"""The cost of the first use, each measured in a new process.

Measured are `import refmaml`, and the first meta-gradient with Numba's cache empty and
with it filled.
"""

import os
import subprocess
import sys
from tempfile import TemporaryDirectory

from refmaml.bench.timing import spread
from refmaml.bench.worker import WorkerError

IMPORT = "from time import perf_counter as now\nstart = now()\nimport refmaml\nprint(now() - start)"
FIRST_CALL = """import numpy as np, refmaml
from time import perf_counter as now
from refmaml.bench.implementations.refmaml_kernels import implementation
from refmaml.bench.workloads import TABLE
start = now()
implementation({kernels!r}).prepare(TABLE[{workload!r}], np.float32)()
print(now() - start)"""


def printed_seconds(code, environment=()):
    """The number that a new Python process prints last, or WorkerError."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise WorkerError(f"start-up: expected a time, got {last_line}")
    return float(done.stdout.split()[-1])


def startup(workload, kernels, repeats=5):
    """{"workload": name, "import": Spread, "cold": seconds, "warm": Spread}.

    import  of `import refmaml`, after one import that fills the operating system's
            cache
    cold    of the first meta-gradient after the imports, with Numba's cache empty
    warm    of the same with the cache that `cold` has filled
    """
    code = FIRST_CALL.format(kernels=kernels, workload=workload.name)
    printed_seconds(IMPORT)
    imports = [printed_seconds(IMPORT) for _ in range(repeats)]
    with TemporaryDirectory() as folder:
        cache = {"NUMBA_CACHE_DIR": folder}
        cold = printed_seconds(code, cache)
        warm = [printed_seconds(code, cache) for _ in range(repeats)]
    return {
        "workload": workload.name,
        "import": spread(imports),
        "cold": cold,
        "warm": spread(warm),
    }
