"""Where the microseconds of a small net's meta-gradient go: Python, or the arithmetic.

    python benchmarks/small_nets.py --out benchmarks/small_nets.json

For each small workload of the bench, in float32 on one thread: the time of a
meta-gradient, and that of the compiled function on the same arrays. Python's share is
the difference. The compiled function called for no tasks shows how much of Python's
share that call is. The three are timed in turns; each figure is from medians.
"""

import argparse
import json
from pathlib import Path
from time import perf_counter

import numpy as np

from refmaml.bench.implementations.refmaml_kernels import kernel_set_by_name
from refmaml.bench.workloads import TABLE
from refmaml.environment import circumstances
from refmaml.storage.atomic import atomic_write

NAMES = ("sinusoid-1-one", "sinusoid-5-one", "linear-1-one", "sinusoid-1", "sinusoid-5",
         "linear-1", "linear-5")  # fmt: skip
SECONDS = 2.0  # for each workload


def gradient_and_compiled(workload):
    """(the meta-gradient, the compiled function for so many tasks): two functions."""
    net = workload.net().with_kernels(kernel_set_by_name("cpu", threads=1))
    method, theta = workload.method, workload.theta(np.float32)
    batch, calls = workload.batch(np.float32), []

    def gradient():
        return method.meta_gradient(net, theta, batch)

    for _ in range(2):  # the second one prepares the call
        gradient()
    (prepared,) = net.calls.values()
    kernel, compiled = prepared.kernel, prepared.kernel.run
    kernel.run = lambda *arguments: (calls.append(arguments), compiled(*arguments))
    gradient()
    kernel.run, (_, _, *arrays) = compiled, calls[0]
    return gradient, lambda tasks: compiled(0, tasks, *arrays)


def seconds(function):
    """The time of one call."""
    started = perf_counter()
    function()
    return perf_counter() - started


def measured(workload):
    """{"call", "python", "of these, calling the compiled function", "a task"}."""
    gradient, compiled = gradient_and_compiled(workload)
    functions = gradient, lambda: compiled(workload.tasks), lambda: compiled(0)
    turns, end = [], perf_counter() + SECONDS
    while perf_counter() < end:
        turns.append([seconds(f) for f in functions])
    call, whole, empty = (1e6 * float(np.median(times)) for times in zip(*turns, strict=True))
    parts = {
        "call": call,
        "python": call - whole + empty,
        "of these, calling the compiled function": empty,
        "a task": (whole - empty) / workload.tasks,
    }
    return {name: round(value, 2) for name, value in parts.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    args = parser.parse_args()
    record = {
        "command": "python benchmarks/small_nets.py",
        **circumstances(),
        "microseconds": {name: measured(TABLE[name]) for name in NAMES},
    }
    with atomic_write(args.out) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
    for name, parts in record["microseconds"].items():
        print(f"{name:16} {parts}")


if __name__ == "__main__":
    main()
