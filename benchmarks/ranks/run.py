"""How much faster are two ranks than one, and what does summing their gradients cost?

    python benchmarks/ranks/run.py --out benchmarks/ranks

One meta-step of the strided Omniglot net, 5-way 1-shot MAML on glyphs, with one thread
a rank. The settings run in turns, each turn in a new process (or mpiexec); the
parameters after each must have the same bits. Writes ranks.json. Nothing else should
run on the machine meanwhile: a rank that waits for another one spins. Needs pip install
'refmaml[mpi]'.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from refmaml.bench.record import to_json
from refmaml.bench.timing import spread
from refmaml.environment import circumstances
from refmaml.errors import expect
from refmaml.training.files import make_folder, write_json

HERE = Path(__file__).parent
SETTINGS = {
    "1 rank, 1 thread": (1, 1),
    "2 ranks, 1 thread each": (2, 1),
    "1 rank, 2 threads": (1, 2),
}
EXCHANGES = {"of 2 ranks": 2, "of 4 ranks": 4}
NUMBERS = 112_000  # about as many as the strided net has


def run_script(ranks, script, *arguments):
    """The JSON that a script prints on that many ranks."""
    mpiexec = shutil.which(
        "mpiexec",
        path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    )
    expect(
        mpiexec is not None,
        "mpiexec",
        "to be installed (pip install 'refmaml[mpi]')",
        "nothing of that name",
    )
    start = (
        [mpiexec, "-n", str(ranks), sys.executable, "-m", "mpi4py"]
        if ranks > 1
        else [sys.executable]
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
    done = subprocess.run(
        [*start, str(HERE / script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    return json.loads(done.stdout)


def steps_of_all(tasks, steps, rounds):
    """{setting: seconds of its steps}; checks that all give the same bits."""
    times, digests = {name: [] for name in SETTINGS}, set()
    for number in range(rounds):
        for name, (ranks, threads) in SETTINGS.items():
            result = run_script(ranks, "worker.py", threads, tasks, steps)
            times[name] += result["seconds"]
            digests.add(result["sha256"])
            print(
                f"round {number + 1}: {name:<24} {1e3 * spread(result['seconds']).median:8.1f} ms",
                flush=True,
            )
    if len(digests) != 1:
        raise SystemExit("expected the same parameters in every setting, got others")
    return times


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", default="runs/ranks", metavar="DIR", help="a folder for ranks.json")
    p.add_argument("--tasks", type=int, default=32, help="tasks of a meta-step")
    p.add_argument("--steps", type=int, default=30, help="meta-steps of a turn")
    p.add_argument("--rounds", type=int, default=5, help="turns of each setting")
    arguments = p.parse_args()
    out = make_folder(arguments.out)
    times = steps_of_all(arguments.tasks, arguments.steps, arguments.rounds)
    steps = {name: spread(seconds) for name, seconds in times.items()}
    one, two = (steps[name].median for name in list(SETTINGS)[:2])
    adding = {
        name: {
            way: spread(seconds)
            for way, seconds in run_script(
                ranks, "exchange.py", arguments.tasks, NUMBERS, 30
            ).items()
        }
        for name, ranks in EXCHANGES.items()
    }
    print(f"2 ranks over 1: {one / two:.2f} times as fast, {1e3 * one:.1f} over {1e3 * two:.1f} ms")
    for name, ways in adding.items():
        print(
            f"adding up {name}: "
            + ", ".join(f"{way} {1e3 * s.median:.2f} ms" for way, s in ways.items())
        )
    write_json(
        out / "ranks.json",
        {
            "tasks": arguments.tasks,
            "seconds_of_a_step": to_json(steps),
            "two_ranks_over_one": one / two,
            "numbers_added": NUMBERS,
            "seconds_of_adding": to_json(adding),
            "same_bits": True,
            **circumstances(),
        },
    )


if __name__ == "__main__":
    main()
