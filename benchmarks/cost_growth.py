"""How do time and memory of one meta-gradient grow?

With inner steps, tasks, shots, image size, channels and CG iterations.

    OMP_WAIT_POLICY=passive python benchmarks/cost_growth.py --kernels cpu \\
        --out benchmarks/cost_growth

From a base point one quantity grows at a time, for MAML with stored and with recomputed
activations, first-order MAML, iMAML and Reptile. This measures the trade-off of
Rajeswaran et al. 2019 (iMAML), table 1 and figure 2. Writes cost_growth.json and
cost_growth.png. Linux with glibc only: memory is read from /proc.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from time import perf_counter

import numpy as np

import refmaml as rm
from refmaml.bench.memory import peak_memory
from refmaml.cli.kernels import NAMES as KERNELS
from refmaml.environment import circumstances
from refmaml.errors import expect

WAYS, CHUNK, REPEATS, MB = 5, 4, 5, 1e6
BASE = {"inner_steps": 4, "tasks": 8, "shots": 1, "image": 28, "channels": 32, "cg_steps": 5}
SWEEPS = {
    "inner_steps": [1, 2, 4, 8, 16],
    "tasks": [4, 8, 16, 32, 64],
    "shots": [1, 2, 5, 10, 20],
    "image": [28, 42, 56, 84],
    "channels": [16, 32, 64, 128],
    "cg_steps": [1, 2, 5, 10, 20],
}
QUICK_BASE, QUICK = BASE | {"tasks": 4, "channels": 4}, {"inner_steps": [4, 8], "cg_steps": [2, 5]}
TITLES = {
    "inner_steps": "inner steps",
    "tasks": f"tasks, {CHUNK} at a time",
    "shots": "support shots per class",
    "image": "height and width in pixels",
    "channels": "channels",
    "cg_steps": "CG iterations",
}

# The cost of a step or a CG iteration does not depend on step sizes, as long as numbers
# stay finite and no solve ends early. For that, I + H/lambda must be positive definite.
# On noise the curvature H of this net grows with its channels, so lambda grows, too.
METHODS = {
    "MAML, stored": lambda p: rm.MAML(0.01, p["inner_steps"]),
    "MAML, recomputed": lambda p: rm.MAML(0.01, p["inner_steps"], recompute=True),
    "first-order MAML": lambda p: rm.FirstOrderMAML(0.01, p["inner_steps"]),
    "iMAML": lambda p: rm.IMAML(
        32.0 * p["channels"],
        p["inner_steps"],
        1 / (32.0 * p["channels"]),
        cg_steps=p["cg_steps"],
        cg_tol=0.0,
    ),
    "Reptile": lambda p: rm.Reptile(0.01, p["inner_steps"]),
}

NET = {
    "net": "conv4, strided, mean over positions",
    "dtype": "float32",
    "ways": WAYS,
    "query_shots": 1,
    "chunk": CHUNK,
}
MEMORY = (
    "peak resident memory of a fresh process during one meta-gradient, less what was resident "
    "just before: imports done, parameters and tasks made, kernels loaded by another net's "
    "meta-gradient with one inner step on one chunk of them, freed memory returned to the "
    "system; 1 MB = 1e6 bytes, and Linux counts to within about 0.3 of them"
)
TIME = (
    f"wall-clock time of one meta-gradient, the median of {REPEATS} in one process that has "
    "run it before"
)
EXPONENT = "slope of the least-squares line through log(cost) over log(quantity), all points"


# ---- one point, in a process of its own ----


def random_tasks(point, rng):
    """Noise images, one query image a class. The cost does not depend on the pixels."""

    def draw(shots):
        labels = np.tile(np.repeat(np.arange(WAYS), shots), (point["tasks"], 1))
        return rng.standard_normal(
            (*labels.shape, 1, point["image"], point["image"]), dtype=np.float32
        ), labels

    return rm.Batch(*draw(point["shots"]), *draw(1))


def measure(name, point, kernels):
    """{"seconds", "peak_mb"} of one meta-gradient of a method at a point."""

    def make_net():
        return rm.conv4(
            WAYS,
            point["channels"],
            (1, point["image"], point["image"]),
            kernels=getattr(rm.kernels, kernels)(),
        )

    net, method, batch = (
        make_net(),
        METHODS[name](point),
        random_tasks(point, np.random.default_rng(0)),
    )
    theta = net.init(0)

    def run():
        return method.meta_gradient(net, theta, batch, chunk=CHUNK)

    # On another net: kernels may keep their working memory for the next run of the same
    # net, and that memory must be counted.
    replace(method, inner_steps=1).meta_gradient(make_net(), theta, batch[:CHUNK], chunk=CHUNK)
    memory = peak_memory(run)
    status = set(run().report.get("cg_status", ["maxiter"]))
    expect(status == {"maxiter"}, name, "every CG iteration to be run", ", ".join(sorted(status)))
    seconds = []
    for _ in range(REPEATS):
        started = perf_counter()
        run()
        seconds.append(perf_counter() - started)
    return {"seconds": float(np.median(seconds)), "peak_mb": memory / MB}


# ---- all points ----


def applies(name, quantity):
    """Only iMAML has CG iterations."""
    return quantity != "cg_steps" or name == "iMAML"


def measure_all(base, sweeps, kernels):
    """{quantity: {"values": [...], method: growth(...)}}, each in a new process."""
    from tqdm import tqdm

    points = {
        quantity: [base | {quantity: value} for value in values]
        for quantity, values in sweeps.items()
    }
    wanted = {
        key(name, point): (name, point)
        for quantity in sweeps
        for name in METHODS
        if applies(name, quantity)
        for point in points[quantity]
    }  # a point that several sweeps share is measured once
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        bar = tqdm(wanted.items(), unit="point", disable=not sys.stderr.isatty())
        found = {
            k: fresh.submit(measure, name, point, kernels).result() for k, (name, point) in bar
        }
    return {
        quantity: {"values": sweeps[quantity]}
        | {
            name: growth(sweeps[quantity], [found[key(name, p)] for p in points[quantity]])
            for name in METHODS
            if applies(name, quantity)
        }
        for quantity in sweeps
    }


def key(name, point):
    return name, *point.values()


def growth(values, results):
    """{"seconds", "peak_mb"} at each value, and the exponents a of cost ~ value^a."""
    series = {cost: [result[cost] for result in results] for cost in ("seconds", "peak_mb")}
    return {cost: [float(f"{x:.4g}") for x in xs] for cost, xs in series.items()} | {
        f"{cost}_exponent": round(exponent(values, xs), 2) + 0.0 for cost, xs in series.items()
    }


def exponent(values, costs):
    """a of the least-squares line log(cost) = a log(value) + b."""
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


# ---- the command ----


def main(argv=None):
    """Measure, write the JSON and the picture."""
    from cost_growth_picture import draw

    from refmaml.training.files import make_folder, write_json

    arguments = parse(argv)
    base, sweeps = (QUICK_BASE, QUICK) if arguments.quick else (BASE, SWEEPS)
    out, started = make_folder(arguments.out), perf_counter()
    found = measure_all(base, sweeps, arguments.kernels)
    duration = {"took_seconds": round(perf_counter() - started, 1)}
    settings = {"base": base, **NET, "kernels": arguments.kernels}
    units = {"seconds": TIME, "peak_mb": MEMORY, "exponents": EXPONENT}
    record = {**units, **settings, **duration, **circumstances(), "sweeps": found}
    write_json(out / "cost_growth.json", record)
    title = f"one {WAYS}-way meta-gradient: from {describe(base)} on, one quantity grows at a time"
    draw(out / "cost_growth.png", found, title, TITLES)


def parse(argv):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out",
        default="runs/cost_growth",
        metavar="DIR",
        help="where to write (default runs/cost_growth)",
    )
    parser.add_argument("--kernels", choices=KERNELS, default="auto", help="the kernel set")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a small net and few values of few quantities: to try the script",
    )
    return parser.parse_args(argv)


def describe(base):
    """The base point in words, for the title of the picture."""
    return (
        f"{base['inner_steps']} inner steps, {base['tasks']} tasks, {base['shots']} shot, "
        f"{base['image']} x {base['image']} pixels, {base['channels']} channels, "
        f"{base['cg_steps']} CG iterations"
    )


if __name__ == "__main__":
    main()
