"""Does a run survive kill -9?

    python benchmarks/reliability/kill.py [--kills 100] [--kernels reference|cpu]
                                          [--naive] [--out benchmarks/reliability]

Runs are killed at random moments, resumed, and compared bit for bit with a run that was
not interrupted. Half of them are killed from outside at a random time, while their
checkpoint is read repeatedly. The others kill themselves just before, or in the middle
of, a random one of their file operations, which a random time would seldom hit. The
resumed run has another chunk size and, with --kernels cpu, another number of threads.
--naive writes the checkpoint in place, which the script must detect (the processes then
die in its writes). Processes are forked, which starts them quickly. Exit status 1 if
anything differs.
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
    *("train", "--data", "sinusoid", "--hidden", "4", "--tasks", "3", "--eval-tasks", "4"),
    *("--steps", "40", "--save-every", "0.001", "--quiet"),
]
# Functions of os. Each write to a file counts as well.
OPERATIONS = ("open", "fsync", "replace", "unlink", "pwrite", "ftruncate")


class OperationCounter:
    """Counts the file operations of a process, and kills it at number `fatal`."""

    def __init__(self, fatal=None):
        self.done, self.fatal = [], fatal

    def count(self, what, before_dying=lambda: None):
        self.done.append(what)
        if len(self.done) == self.fatal:
            before_dying()
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self):
        """Count every file operation of this process from now on."""
        for name in OPERATIONS:
            setattr(os, name, self.counted(name, getattr(os, name)))
        atomic.open = lambda path, mode: io.BufferedWriter(TornFile(self, path, mode))

    def counted(self, name, function):
        """A function that counts as a file operation."""

        def call(*arguments, **options):
            self.count(name)
            return function(*arguments, **options)

        return call


class TornFile(io.FileIO):
    """A file whose writer may die half way through a write."""

    def __init__(self, counter, path, mode):
        super().__init__(path, mode)
        self.counter, self.what = counter, "write" if mode == "xb" else "naive write"

    def write(self, data):
        data = memoryview(data)
        self.counter.count(self.what, lambda: super(TornFile, self).write(data[: len(data) // 2]))
        return super().write(data)


@contextmanager
def naive_write(path):
    """Write in place, as a checkpoint must not be written."""
    with atomic.open(path, "wb") as file:
        yield file


def start(argv, counter=None, threads=None, naive=False):
    """Fork a process that runs a command; returns its id.

    If it lives to its end, it writes the list of its file operations to a file.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ.update({"NUMBA_NUM_THREADS": str(threads)} if threads else {})
        counter = counter or OperationCounter()
        counter.install()
        if naive:
            checkpoint.durable_write = naive_write
        status = refmaml(argv)
        Path(argv[argv.index("--out") + 1] + ".operations").write_text(json.dumps(counter.done))
        os._exit(status)
    finally:
        os._exit(70)


def wait_for(child, options=0):
    """The exit status of a process, or minus the signal that killed it.

    With os.WNOHANG: None while it runs.
    """
    ended, status = os.waitpid(child, options)
    return os.waitstatus_to_exitcode(status) if ended else None


def checkpoint_state(folder):
    """The state of the checkpoint: "none", "whole", or what is wrong with it."""
    try:
        checkpoint.load(folder / "checkpoint.npz")
        return "whole"
    except DataError as error:
        return "none" if str(error).endswith("no such file") else str(error).partition(": ")[2]


def results(folder):
    """All results of a run except times.

    Parameters, optimiser, curve, table, configuration, result.
    """
    now, config = checkpoint.load(folder / "checkpoint.npz")
    with open(folder / "curve.csv", newline="") as file:
        table = [row[:-1] for row in csv.reader(file)]
    result = json.loads((folder / "result.json").read_text())
    for configuration in (
        config,
        result.pop("configuration"),
        written := json.loads((folder / "config.json").read_text()),
    ):
        configuration.pop("chunk")
    return {
        "parameters": now.meta.tobytes(),
        "optimiser": {k: a.tobytes() for k, a in now.state.items()},
        "curve": [now.rows.column(name).tobytes() for name in Row._fields if name != "seconds"],
        "table": table,
        "configuration": [config, written],
        "result": {k: v for k, v in result.items() if k != "seconds"},
    }


def trial(folder, expected, choose, extent, options):
    """One run, killed and resumed: a record of it; "wrong" lists what should not be.

    expected  the results of the uninterrupted run
    extent    (its seconds, numbers of the file operations to die at)
    """
    seconds, operations = extent
    timed = choose.random() < 0.5
    run = [*RUN, "--kernels", options.kernels, "--out", str(folder)]
    threads = choose.choice((1, 2, 4)) if options.kernels == "cpu" else None
    counter = None if timed else OperationCounter(choose.choice(operations))
    child = start(run, counter, threads, options.naive)
    if timed:
        status, wrong = kill_at_random_time(child, folder, choose.uniform(0, 1.1 * seconds))
    else:
        status, wrong = wait_for(child), []
    wrong += [] if status in (0, -signal.SIGKILL) else [f"ended by itself with status {status}"]
    found = checkpoint_state(folder)
    wrong += [f"after the kill: {found}"] if found not in ("none", "whole") else []
    parts = len(list(folder.glob(".*.part"))) if folder.exists() else 0
    resume = ["--resume"] * (found != "none")
    resumed = [*run, "--chunk", str(choose.choice((1, 2, 3, 8))), *resume]
    child = start(resumed, None, choose.choice((1, 2, 4)) if threads else None)
    wrong += differences(folder, wait_for(child), expected)
    return {
        "timed": timed,
        "killed": status == -signal.SIGKILL,
        "found": found if found in ("none", "whole") else "corrupt",
        "parts": parts,
        "wrong": wrong,
    }


def kill_at_random_time(child, folder, seconds):
    """(exit status, states of the checkpoint that should not be) of a process.

    The checkpoint is read until that many seconds are over; then the process is killed.
    """
    end, status, wrong = time.monotonic() + seconds, None, []
    while time.monotonic() < end and status is None:
        wrong += [state for state in [checkpoint_state(folder)] if state not in ("none", "whole")]
        status = wait_for(child, os.WNOHANG)
        time.sleep(0.002)
    if status is None:
        os.kill(child, signal.SIGKILL)
        status = wait_for(child)
    return status, wrong


def differences(folder, status, expected):
    """How a resumed run differs from the uninterrupted one."""
    if status:
        return [f"going on ended with status {status}"]
    found = results(folder)
    hidden = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    return [f"{what} differ" for what, value in found.items() if value != expected[what]] + [
        f"{name} left behind" for name in hidden
    ]


def campaign(options, folder):
    """The uninterrupted run, then all trials; returns the record."""
    run = [*RUN, "--kernels", options.kernels, "--out"]
    # The first run compiles kernels and brings files into memory.
    wait_for(start([*run, str(folder / "first")]))
    started = time.monotonic()
    if wait_for(start([*run, str(folder / "whole")], naive=options.naive)):
        raise SystemExit("the uninterrupted run failed")
    seconds = time.monotonic() - started
    done = json.loads((folder / "whole.operations").read_text())
    fatal = [i for i, what in enumerate(done, 1) if what == "naive write" or not options.naive]
    expected, choose, trials = results(folder / "whole"), random.Random(options.seed), []
    while sum(t["killed"] for t in trials) < options.kills:
        trials.append(trial(folder / "run", expected, choose, (seconds, fatal), options))
        shutil.rmtree(folder / "run", ignore_errors=True)
    unbroken = {"seconds": round(seconds, 3), "file_operations": len(done)}
    return summary(trials) | {"unbroken_run": unbroken}


def summary(trials):
    """Counts over all trials."""
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
    }


def main(argv=None):
    """Returns the exit status."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401 (loaded once, before the forks)

    options = parse(argv)
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


def parse(argv):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="the number of killed runs")
    parser.add_argument("--kernels", choices=("reference", "cpu"), default="reference")
    parser.add_argument("--seed", type=int, default=0, help="of the random kills")
    parser.add_argument("--naive", action="store_true", help="write the checkpoint in place")
    parser.add_argument("--out", help="a folder for kill.json (default: print it only)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
