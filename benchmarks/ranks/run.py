"""How much faster are two ranks of one thread than one rank of one thread, and what
does adding up their gradients cost?

    python benchmarks/ranks/run.py --out benchmarks/ranks

One meta-step of the strided Omniglot net, 5-way 1-shot MAML on glyphs. Contestants take
turns, each turn a process (or an mpiexec) of its own; parameters after each must have
the same bits. Writes ranks.json. Nothing else should run on the machine meanwhile: a
rank that waits for another does so in a spin. Needs pip install 'refmaml[mpi]'.
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
CONTESTANTS = {
    "1 rank, 1 thread": (1, 1),
    "2 ranks, 1 thread each": (2, 1),
    "1 rank, 2 threads": (1, 2),
}
EXCHANGES = {"of 2 ranks": 2, "of 4 ranks": 4}
NUMBERS = 112_000  # in the strided net, about


def answer(ranks, script, *arguments):
    """What a script printed as JSON, run on so many ranks."""
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
    """{implementation: seconds of its steps}, after checking that all came to the same
    bits.
    """
    times, digests = {name: [] for name in CONTESTANTS}, set()
    for number in range(rounds):
        for name, (ranks, threads) in CONTESTANTS.items():
            said = answer(ranks, "worker.py", threads, tasks, steps)
            times[name] += said["seconds"]
            digests.add(said["sha256"])
            print(
                f"round {number + 1}: {name:<24} {1e3 * spread(said['seconds']).median:8.1f} ms",
                flush=True,
            )
    if len(digests) != 1:
        raise SystemExit("expected the same parameters from every implementation, got others")
    return times


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", default="runs/ranks", metavar="DIR")
    p.add_argument("--tasks", type=int, default=32)
    p.add_argument("--steps", type=int, default=30, help="in a turn")
    p.add_argument("--rounds", type=int, default=5)
    arguments = p.parse_args()
    out = make_folder(arguments.out)
    times = steps_of_all(arguments.tasks, arguments.steps, arguments.rounds)
    steps = {name: spread(seconds) for name, seconds in times.items()}
    one, two = (steps[name].median for name in list(CONTESTANTS)[:2])
    adding = {
        name: {
            way: spread(seconds)
            for way, seconds in answer(ranks, "exchange.py", arguments.tasks, NUMBERS, 30).items()
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
