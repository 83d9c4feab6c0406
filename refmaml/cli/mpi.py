"""As what this process was started: alone, or as one of the ranks of `mpiexec -n R python -m mpi4py -m refmaml ...`.

`python -m mpi4py` is what ends all ranks when one raises; without it the others would wait for ever.
"""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from types import SimpleNamespace

from refmaml.cli import rank_watchdog
from refmaml.errors import ArgumentError, expect
from refmaml.training.distributed import ALONE, Ranks

# What mpiexec of MPICH and Open MPI, and srun, tell the processes they start: (how many there are, which this is).
TOLD = (
    ("PMI_SIZE", "PMI_RANK"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)
LAUNCHERS = ("hydra_pmi_proxy", "mpiexec", "mpiexec.hydra", "mpirun", "orterun", "prterun")
USE = "mpiexec -n R python -m mpi4py -m refmaml ..."


def launched():
    """ALONE, or the Ranks this is one of. Imports mpi4py under `python -m mpi4py` only. Raises ArgumentError."""
    size = told(0)
    if "mpi4py.run" not in sys.modules:
        expect(
            size < 2,
            "mpiexec",
            f"{USE}, after pip install 'refmaml[mpi]'",
            f"{size} processes without -m mpi4py",
        )
        return ALONE
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    expect(
        world.size == size or size < 2,
        "mpiexec",
        f"the one of mpi4py's own MPI, {MPI.Get_library_version().split(',')[0].strip()!r}",
        f"{size} processes that do not find each other",
    )
    return Ranks(world, world.Split_type(MPI.COMM_TYPE_SHARED)) if world.size > 1 else ALONE


def told(which):
    """The number of processes (0) or of this process (1), as far as the environment tells."""
    values = [os.environ.get(names[which], "") for names in TOLD]
    return next((int(value) for value in values if value.isdigit()), 0)


@contextmanager
def first_speaks(ranks):
    """A block in which what ranks other than the first print is not shown. Exceptions that leave the block are."""
    with ExitStack() as stack:
        if ranks.rank > 0:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield


@contextmanager
def watched(ranks):
    """A block after which, should this rank be killed in it, a process on its machine says so (rank_watchdog.py); where it cannot, none does."""
    if ranks.size == 1 or not hasattr(socket, "AF_UNIX"):
        yield
        return
    place = ranks.local.bcast(start_watcher(ranks.local.size) if ranks.local.rank == 0 else None)
    with ExitStack() as stack:
        if place is not None:
            line = stack.enter_context(socket.socket(socket.AF_UNIX))
            line.connect(place)
            line.sendall(
                f"rank {ranks.rank} of {ranks.size} (process {os.getpid()} on {socket.gethostname()})\n".encode()
            )
            stack.callback(farewell, line)
        ranks.local.barrier()  # everybody is connected: the place may go
        if place is not None and ranks.local.rank == 0:
            rmtree(os.path.dirname(place))
        yield


def farewell(line):
    """The word, unless another rank has said it already and the watcher is gone."""
    with suppress(OSError):
        line.sendall(rank_watchdog.WORD)


def start_watcher(count):
    """The place where `count` ranks find a watcher that has just been started; None where there can be none."""
    folder = mkdtemp(prefix="refmaml-")
    place = os.path.join(folder, "watcher")
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(place)
            server.listen(count)
            subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    rank_watchdog.__file__,
                    str(server.fileno()),
                    str(count),
                ],
                pass_fds=[server.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        return place
    except OSError:  # a path too long for a socket, no more processes
        rmtree(folder)
        return None


def shown_on_terminal(processes=Path("/proc")):
    """Whether somebody sees on a terminal what this process writes to stderr: its own, or mpiexec's, which passes on what ranks write."""
    if sys.stderr.isatty() or told(0) < 2:
        return sys.stderr.isatty()
    above, target = os.getppid(), ""
    try:
        while (processes / str(above) / "comm").read_text().strip() in LAUNCHERS:
            target = os.readlink(processes / str(above) / "fd" / "2")
            above = int((processes / str(above) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # not Linux, or not our process
        pass
    return target.startswith(("/dev/pts/", "/dev/tty"))


def refuse_ranks(ranks, command, able):
    """Raise ArgumentError if several ranks run a command that does not share its work."""
    if ranks.size > 1 and command not in able:
        raise ArgumentError(
            f"mpiexec: expected refmaml {' or '.join(able)} on several ranks, got {command}"
        )


def leave(ranks, status):
    """The exit status. Where all ranks stop by agreement MPI ends before they do, or mpi4py would take it for an accident and abort."""
    if ranks.size > 1 and status and ranks.agreed:
        from mpi4py import MPI

        MPI.Finalize()
    return status


def program(ranks):
    """What to type for `refmaml` so that as many ranks start."""
    return f"mpiexec -n {ranks.size} python -m mpi4py -m refmaml" if ranks.size > 1 else "refmaml"


def share_of_machine(ranks, kernels, threads=None):
    """Take what this rank may use of its machine: its GPU if `kernels` run on one. Returns the number of threads of the cpu kernels.

    threads  what somebody asked for; None: as many as Numba is set to, by NUMBA_NUM_THREADS too; of several ranks each its share
    """
    with ranks.together():
        if ranks.size > 1 and kernels.endswith("cuda"):
            take_gpu(ranks, gpus_of(kernels))
    if threads is None and ranks.size > 1 and "NUMBA_NUM_THREADS" not in os.environ:
        return threads_of(ranks, cores())
    return threads


def cores():
    """The numbers of the cores that this process may use."""
    return (
        os.sched_getaffinity(0)
        if hasattr(os, "sched_getaffinity")
        else set(range(os.cpu_count() or 1))
    )


def threads_of(ranks, cores):
    """Each rank's share of `cores`, the set of those that it may use, among the ranks of its machine that may use the same."""
    sharing = sum(other == cores for other in ranks.local.allgather(cores))
    return max(1, len(cores) // sharing)


def take_gpu(ranks, gpus):
    """Make one of the machine's GPUs this process's own: its number on the machine modulo how many there are.

    gpus  what has getDeviceCount() and setDevice(number)
    """
    count = gpus.getDeviceCount()
    if count > 0:
        gpus.setDevice(ranks.local.rank % count)


def gpus_of(kernels):
    """The GPUs as the kernel set's library knows them. Raises ArgumentError without the library or a GPU."""
    try:
        if kernels == "cuda":
            from refmaml.kernels.cuda_runtime.cupy_device import cupy_with_gpu

            return cupy_with_gpu().cuda.runtime
        from numba import cuda

        return SimpleNamespace(getDeviceCount=lambda: len(cuda.gpus), setDevice=cuda.select_device)
    except (ImportError, RuntimeError) as error:
        raise ArgumentError(f"kernels: {error}") from None
