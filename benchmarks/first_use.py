"""Where the seconds of the first use of the CPU kernels go.

    python benchmarks/first_use.py --out benchmarks/first_use.json

Each time is that of a new process, on conv4 in float32: until the first meta-gradient
with Numba's cache empty (a helper process compiles too where there is a second core,
or one core does everything), until the first with the cache full, and of the second
meta-gradient. `functions` are the processor seconds of each compiled function, on one
core. Processor seconds depend less than the others on what else the machine does.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from refmaml.environment import circumstances
from refmaml.storage.atomic import atomic_write

CODE = """import json, os, sys
if sys.argv[1] == "one core":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from time import perf_counter as now, process_time
import numpy as np
from refmaml.bench.implementations.refmaml_kernels import implementation
from refmaml.bench.workloads import TABLE
from refmaml.kernels.numba_runtime.external_functions import External

compile, functions = External.compile, {}

def timed(self, precision, number, total, effort):
    started = process_time()
    if compiled := compile(self, precision, number, total, effort):
        functions[self.name.removeprefix("refmaml.kernels.")] = round(process_time() - started, 2)
    return compiled

External.compile = timed
gradient = implementation("cpu").prepare(TABLE["strided-1"].with_tasks(4), np.float32)
times, cpu = [now()], os.times()
for _ in range(2):
    gradient()
    times.append(now())
after = os.times()
used = sum(after[:4]) - sum(cpu[:4])  # user and system, with the helper process
first, second = (round(end - start, 4) for start, end in zip(times, times[1:]))
times = {"first": first, "second": second, "cpu": round(used, 1)}
print(json.dumps({**times, "functions": functions}))"""


def measured(cores, folder):
    """{first, second, cpu, functions} of a new process, in seconds."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, cores],
        env={**os.environ, "NUMBA_CACHE_DIR": folder, "REFMAML_QUIET": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    args = parser.parse_args()
    with TemporaryDirectory() as one, TemporaryDirectory() as all_cores:
        alone = measured("one core", one)
        cold, warm = (measured("all cores", all_cores) for _ in range(2))
    record = {
        "command": "python benchmarks/first_use.py",
        **circumstances(),
        "cores": len(os.sched_getaffinity(0)),
        "seconds": {
            "first call, empty cache": cold["first"],
            "first call, empty cache, one core": alone["first"],
            "first call, next process": warm["first"],
            "second call": warm["second"],
        },
        "processor seconds": {"with the helper process": cold["cpu"], "one core": alone["cpu"]},
        "functions": dict(sorted(alone["functions"].items(), key=lambda item: -item[1])),
    }
    with atomic_write(args.out) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
    print(record["seconds"])


if __name__ == "__main__":
    main()
