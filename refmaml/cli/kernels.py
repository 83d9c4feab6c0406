"""Kernel sets by the names that --kernels takes."""

from refmaml import kernels
from refmaml.errors import ArgumentError, expect

NAMES = ("auto", "cpu", "cuda", "numba_cuda", "reference")  # functions of refmaml.kernels


def kernel_set(name, threads=None):
    """A kernel set by its name.

    threads  threads of the cpu kernels; None: as many as Numba is set to
    Raises ArgumentError where this machine cannot run the kernels, or Numba has fewer
    threads.
    """
    try:
        made = getattr(kernels, name)()
        if threads is None or made.name != "cpu":
            return made
        check_threads(threads)
        return kernels.cpu(threads)
    except (ImportError, RuntimeError) as error:
        raise ArgumentError(f"kernels: {error}") from None


def check_threads(threads):
    """Raise ArgumentError where Numba has fewer threads; it cannot start more later."""
    from numba import config

    expect(
        threads <= config.NUMBA_NUM_THREADS,
        "--threads",
        f"at most {config.NUMBA_NUM_THREADS}, as many as Numba starts here (one for each core, "
        "or NUMBA_NUM_THREADS)",
        threads,
    )
