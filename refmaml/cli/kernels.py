"""The kernel sets as --kernels names them."""

from refmaml import kernels
from refmaml.errors import ArgumentError

NAMES = ("auto", "cpu", "cuda", "numba_cuda", "reference")  # functions of refmaml.kernels


def kernel_set(name, threads=None):
    """A kernel set by its name; ArgumentError in one line where this machine cannot run it.

    threads  of the cpu kernels; None: as many as Numba was set to
    """
    try:
        made = kernels.by_name(name)
        return kernels.cpu(threads) if threads is not None and made.name == "cpu" else made
    except (ImportError, RuntimeError) as error:
        raise ArgumentError(f"kernels: {error}") from None
