"""Does a run survive kill -9? Runs are killed at random moments, gone on with, and held
against one that never was, bit for bit.

    python benchmarks/reliability/kill.py [--kills 100] [--kernels reference|cpu]
    [--naive] [--out benchmarks/reliability]

Half of the runs are killed from outside at a random time, while their checkpoint is
read again and again; the others die of themselves just before, or in the middle of, a
random one of their file operations, which a random time would seldom meet. What goes on
has another chunk size and, with --kernels cpu, another number of threads. --naive saves
as if nobody could ever be killed, and has to be found out (the file operations to die
at are then its writes). Processes are forked, so that starting one takes no time. Exit
status 1 if anything differs.
"""

import argparse
import csv
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from refmaml.cli import main as refmaml
from refmaml.errors import DataError
from refmaml.storage import atomic
from refmaml.training import Row, checkpoint

SCHEMA = "refmaml-kill-1"
RUN = [
    "train",
    "--data",
    "sinusoid",
    "--hidden",
    "4",
    "--tasks",
    "3",
    "--eval-tasks",
    "4",
    "--steps",
    "40",
    "--save-every",
    "0.001",
    "--quiet",
]
OPERATIONS = (
    "open",
    "fsync",
    "replace",
    "unlink",
    "pwrite",
    "ftruncate",
)  # of os; and each write to a file


class Clock:
    """Counts a process's file operations, and kills it at one of them."""

    def __init__(self, fatal=None):
        self.done, self.fatal = [], fatal

    def tick(self, what, before_dying=lambda: None):
        self.done.append(what)
        if len(self.done) == self.fatal:
            before_dying()
            os.kill(os.getpid(), signal.SIGKILL)

    def wind(self):
        """From now on, every file operation of this process counts."""
        for name in OPERATIONS:
            real = getattr(os, name)
            setattr(
                os,
                name,
                lambda *a, real=real, name=name, **options: (self.tick(name), real(*a, **options))[
                    1
                ],
            )
        atomic.open = lambda path, mode: io.BufferedWriter(Torn(self, path, mode))


class Torn(io.FileIO):
    """A file whose writer may die half way through a write."""

    def __init__(self, clock, path, mode):
        super().__init__(path, mode)
        self.clock, self.what = clock, "write" if mode == "xb" else "naive write"

    def write(self, data):
        data = memoryview(data)
        self.clock.tick(self.what, lambda: super(Torn, self).write(data[: len(data) // 2]))
        return super().write(data)


@contextmanager
def naive_write(path):
    """How a checkpoint must not be written."""
    with atomic.open(path, "wb") as file:
        yield file


def start(argv, clock=None, threads=None, naive=False):
    """The number of a forked process that runs a command and writes, if it lives to,
    how many file operations it took.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ.update({"NUMBA_NUM_THREADS": str(threads)} if threads else {})
        clock = clock or Clock()
        clock.wind()
        if naive:
            checkpoint.durable_write = naive_write
        status = refmaml(argv)
        Path(argv[argv.index("--out") + 1] + ".operations").write_text(json.dumps(clock.done))
        os._exit(status)
    finally:
        os._exit(70)


def finish(child, how=0):
    """How a process ended: its exit status, negative the signal that killed it; with
    os.WNOHANG None where it goes on.
    """
    ended, status = os.waitpid(child, how)
    return os.waitstatus_to_exitcode(status) if ended else None


def visible(folder):
    """What lies under the checkpoint's name: "none", "whole" or what is wrong with it."""
    try:
        checkpoint.load(folder / "checkpoint.npz")
        return "whole"
    except DataError as error:
        return "none" if str(error).endswith("no such file") else str(error).partition(": ")[2]


def left(folder):
    """All a run leaves but for its times: parameters, optimiser, curve, table,
    configuration, result.
    """
    now, config = checkpoint.load(folder / "checkpoint.npz")
    with open(folder / "curve.csv", newline="") as file:
        table = [row[:-1] for row in csv.reader(file)]
    result = json.loads((folder / "result.json").read_text())
    for moving in (
        config,
        result.pop("configuration"),
        written := json.loads((folder / "config.json").read_text()),
    ):
        moving.pop("chunk")
    return {
        "parameters": now.meta.tobytes(),
        "optimiser": {k: a.tobytes() for k, a in now.state.items()},
        "curve": [now.rows.column(name).tobytes() for name in Row._fields if name != "seconds"],
        "table": table,
        "configuration": [config, written],
        "result": {k: v for k, v in result.items() if k != "seconds"},
    }


def trial(folder, whole, choose, extent, options):
    """One run killed and gone on with: what happened, as a dict, "wrong" what should
    not have.
    """
    seconds, operations = extent
    timed, wrong = choose.random() < 0.5, []
    run = [*RUN, "--kernels", options.kernels, "--out", str(folder)]
    threads = choose.choice((1, 2, 4)) if options.kernels == "cpu" else None
    child = start(run, None if timed else Clock(choose.choice(operations)), threads, options.naive)
    if timed:
        end, status = time.monotonic() + choose.uniform(0, 1.1 * seconds), None
        while time.monotonic() < end and status is None:
            wrong += [state for state in [visible(folder)] if state not in ("none", "whole")]
            status = finish(child, os.WNOHANG)
            time.sleep(0.002)
        if status is None:
            os.kill(child, signal.SIGKILL)
            status = finish(child)
    else:
        status = finish(child)
    wrong += [] if status in (0, -signal.SIGKILL) else [f"ended by itself with status {status}"]
    found = visible(folder)
    wrong += [f"after the kill: {found}"] if found not in ("none", "whole") else []
    parts = len(list(folder.glob(".*.part"))) if folder.exists() else 0
    again = [*run, "--chunk", str(choose.choice((1, 2, 3, 8)))]
    status_again = finish(
        start(
            again + ["--resume"] * (found != "none"),
            None,
            choose.choice((1, 2, 4)) if threads else None,
        )
    )
    if status_again:
        wrong.append(f"going on ended with status {status_again}")
    else:
        wrong += [f"{what} differ" for what, value in left(folder).items() if value != whole[what]]
        wrong += [
            f"{path.name} left behind" for path in folder.iterdir() if path.name.startswith(".")
        ]
    return {
        "timed": timed,
        "killed": status == -signal.SIGKILL,
        "found": found if found in ("none", "whole") else "corrupt",
        "parts": parts,
        "wrong": wrong,
    }


def campaign(options, folder):
    """The unbroken run, then all the others; the record."""
    run = [*RUN, "--kernels", options.kernels, "--out"]
    finish(start([*run, str(folder / "first")]))  # kernels are compiled, files are in memory
    started = time.monotonic()
    if finish(start([*run, str(folder / "whole")], naive=options.naive)):
        raise SystemExit("the unbroken run failed")
    seconds, done = (
        time.monotonic() - started,
        json.loads((folder / "whole.operations").read_text()),
    )
    places = [i for i, what in enumerate(done, 1) if what == "naive write" or not options.naive]
    whole, choose, trials = left(folder / "whole"), random.Random(options.seed), []
    while sum(t["killed"] for t in trials) < options.kills:
        trials.append(trial(folder / "run", whole, choose, (seconds, places), options))
        shutil.rmtree(folder / "run", ignore_errors=True)
    killed = [t for t in trials if t["killed"]]
    return {
        "kills": len(killed),
        "at_a_random_time": sum(t["timed"] for t in killed),
        "at_a_file_operation": sum(not t["timed"] for t in killed),
        "before_any_checkpoint": sum(t["found"] == "none" for t in killed),
        "half_written_files_left": sum(t["parts"] for t in killed),
        "runs_that_ended_first": len(trials) - len(killed),
        "corrupt": sum(t["found"] == "corrupt" for t in trials),
        "wrong": sorted({line for t in trials for line in t["wrong"]}),
        "runs_with_something_wrong": sum(bool(t["wrong"]) for t in trials),
        "unbroken_run": {"seconds": round(seconds, 3), "file_operations": len(done)},
    }


def main(argv=None):
    """Returns the exit status."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401 (loaded once, for all that are forked)

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kernels", choices=("reference", "cpu"), default="reference")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--naive", action="store_true")
    parser.add_argument(
        "--out", default=None, help="a folder for kill.json (default: print it only)"
    )
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        record = campaign(options, Path(folder))
    from refmaml.environment import circumstances
    from refmaml.training.files import make_folder, write_json

    command = (
        f"python benchmarks/reliability/kill.py --kills {options.kills} --kernels {options.kernels}"
        + " --naive" * options.naive
    )
    record = {
        "schema": SCHEMA,
        "command": command,
        **record,
        "seconds": round(time.monotonic() - started, 1),
        **circumstances(),
    }
    print(json.dumps(record, indent=2))
    if options.out:
        write_json(make_folder(options.out) / "kill.json", record)
    return 1 if record["runs_with_something_wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
