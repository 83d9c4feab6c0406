"""How this process was started: alone, or as an MPI rank.

Ranks are started by `mpiexec -n R python -m mpi4py -m refmaml ...`. `python -m mpi4py`
ends all ranks when one raises an exception; without it the others would wait for ever.
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
from refmaml.environment import available_cores
from refmaml.errors import ArgumentError, expect
from refmaml.log import is_terminal
from refmaml.training.distributed import SINGLE_PROCESS, Ranks

# Environment variables of mpiexec (MPICH, Open MPI) and srun: (number of ranks, this
# rank).
SIZE, RANK = 0, 1
ENVIRONMENT = (
    ("PMI_SIZE", "PMI_RANK"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)
LAUNCHERS = ("hydra_pmi_proxy", "mpiexec", "mpiexec.hydra", "mpirun", "orterun", "prterun")
USAGE = "mpiexec -n R python -m mpi4py -m refmaml ..."


def detect_ranks():
    """SINGLE_PROCESS, or the Ranks of which this process is one.

    mpi4py is imported only under `python -m mpi4py`. Raises ArgumentError where the
    launcher and mpi4py do not fit together.
    """
    size = env_int(SIZE)
    if "mpi4py.run" not in sys.modules:
        expect(
            size < 2,
            "mpiexec",
            f"{USAGE}, after pip install 'refmaml[mpi]'",
            f"{size} processes without -m mpi4py",
        )
        return SINGLE_PROCESS
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    expect(
        world.size == size or size < 2,
        "mpiexec",
        f"the one of mpi4py's own MPI, {MPI.Get_library_version().split(',')[0].strip()!r}",
        f"{size} processes that do not find each other",
    )
    if world.size == 1:
        return SINGLE_PROCESS
    return Ranks(world, world.Split_type(MPI.COMM_TYPE_SHARED))


def env_int(which):
    """SIZE or RANK as the launcher's environment variables state it; 0 without them."""
    values = [os.environ.get(names[which], "") for names in ENVIRONMENT]
    return next((int(value) for value in values if value.isdigit()), 0)


@contextmanager
def silence_other_ranks(ranks):
    """A block in which only rank 0 prints.

    Exceptions that leave the block are shown.
    """
    with ExitStack() as stack:
        if ranks.rank > 0:
            null = stack.enter_context(open(os.devnull, "w", errors="backslashreplace"))
            stack.enter_context(redirect_stdout(null))
            stack.enter_context(redirect_stderr(null))
        yield


@contextmanager
def watched_ranks(ranks):
    """A block in which a watchdog process reports it if this rank is killed.

    See rank_watchdog.py. Where no watchdog can be started, the block does nothing.
    """
    if ranks.size == 1 or not hasattr(socket, "AF_UNIX"):
        yield
        return
    address = start_watchdog(ranks.local.size) if ranks.local.rank == 0 else None
    address = ranks.local.bcast(address)
    with ExitStack() as stack:
        if address is not None:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(address)
            process = f"process {os.getpid()} on {socket.gethostname()}"
            name = f"rank {ranks.rank} of {ranks.size} ({process})"
            connection.sendall(f"{name}\n".encode())
            stack.callback(send_normal_end, connection)
        ranks.local.barrier()  # all ranks are connected: the address is not needed any more
        if address is not None and ranks.local.rank == 0:
            rmtree(os.path.dirname(address))
        yield


def send_normal_end(connection):
    """Tell the watchdog that this rank ends by itself.

    The watchdog may have ended already.
    """
    with suppress(OSError):
        connection.sendall(rank_watchdog.NORMAL_END)


def start_watchdog(count):
    """The address of a new watchdog for `count` ranks; None where none can start."""
    folder = mkdtemp(prefix="refmaml-")
    address = os.path.join(folder, "watchdog")
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(address)
            server.listen(count)
            command = [sys.executable, "-I", "-S", rank_watchdog.__file__]
            subprocess.Popen(
                [*command, str(server.fileno()), str(count)],
                pass_fds=[server.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        return address
    except OSError:  # the path is too long for a socket, or there are too many processes
        rmtree(folder)
        return None


def shown_on_terminal(processes=Path("/proc")):
    """Whether stderr is shown on a terminal: this process's, or mpiexec's, which
    forwards it.
    """
    if is_terminal(sys.stderr) or env_int(SIZE) < 2:
        return is_terminal(sys.stderr)
    parent, target = os.getppid(), ""
    try:
        while (processes / str(parent) / "comm").read_text().strip() in LAUNCHERS:
            target = os.readlink(processes / str(parent) / "fd" / "2")
            stat = (processes / str(parent) / "stat").read_text()
            parent = int(stat.rpartition(")")[2].split()[1])
    except OSError:  # not Linux, or a process of another user
        pass
    return target.startswith(("/dev/pts/", "/dev/tty"))


def refuse_ranks(ranks, command, shared):
    """Raise ArgumentError if several ranks run a command that is not in `shared`."""
    if ranks.size > 1 and command not in shared:
        raise ArgumentError(
            f"mpiexec: expected refmaml {' or '.join(shared)} on several ranks, got {command}"
        )


def finalize(ranks, status):
    """The exit status, unchanged.

    Where all ranks stop by agreement, MPI is finalised here: mpi4py would take a status
    other than 0 for an accident and abort.
    """
    if ranks.size > 1 and status and ranks.all_stop:
        from mpi4py import MPI

        MPI.Finalize()
    return status


def launch_command(ranks):
    """The command that starts `refmaml` on as many ranks."""
    if ranks.size == 1:
        return "refmaml"
    return f"mpiexec -n {ranks.size} python -m mpi4py -m refmaml"


def assign_resources(ranks, kernels, threads=None):
    """Select this rank's GPU if `kernels` run on one; return the threads of the cpu
    kernels.

    threads  as given by the user; None: as many as Numba is set to (NUMBA_NUM_THREADS
             too), or, of several ranks, each an equal share of the cores
    """
    with ranks.shared_errors():
        if ranks.size > 1 and kernels.endswith("cuda"):
            select_gpu(ranks, gpu_library(kernels))
    if threads is None and ranks.size > 1 and "NUMBA_NUM_THREADS" not in os.environ:
        return threads_per_rank(ranks, available_cores())
    return threads


def threads_per_rank(ranks, cores):
    """A rank's share of `cores`, among the ranks of its machine that may use the same
    cores.
    """
    sharing = sum(other == cores for other in ranks.local.allgather(cores))
    return max(1, len(cores) // sharing)


def select_gpu(ranks, gpus):
    """Select GPU number (local rank modulo number of GPUs) for this process.

    gpus  an object with getDeviceCount() and setDevice(number)
    """
    count = gpus.getDeviceCount()
    if count > 0:
        gpus.setDevice(ranks.local.rank % count)


def gpu_library(kernels):
    """getDeviceCount and setDevice of the kernel set's library.

    Raises ArgumentError without the library or a GPU.
    """
    try:
        if kernels == "cuda":
            from refmaml.kernels.cuda_runtime.cupy_device import cupy_with_gpu

            return cupy_with_gpu().cuda.runtime
        from numba import cuda

        return SimpleNamespace(getDeviceCount=lambda: len(cuda.gpus), setDevice=cuda.select_device)
    except (ImportError, RuntimeError) as error:
        raise ArgumentError(f"kernels: {error}") from None
