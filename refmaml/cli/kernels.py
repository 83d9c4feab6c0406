"""The kernel sets as --kernels names them."""
from refmaml import kernels
from refmaml.errors import ArgumentError

NAMES = ("auto", "cpu", "cuda", "numba_cuda", "reference")       # functions of refmaml.kernels


def kernel_set(name):
    """A kernel set by its name; ArgumentError in one line where this machine cannot run it."""
    try:
        return getattr(kernels, name)()
    except (ImportError, RuntimeError) as error:
        raise ArgumentError(f"kernels: {error}") from None
