"""Small external functions, which compile in a tenth of a second each."""

from refmaml.kernels.numba_runtime.external_functions import external


@external("F[::1], F")
def fill(a, value):
    for i in range(len(a)):
        a[i] = value


@external("F[::1], F")
def scale(a, value):
    for i in range(len(a)):
        a[i] *= value


@external("F[::1], F", on_demand=True)
def shift(a, value):
    for i in range(len(a)):
        a[i] += value


@external("F[::1], F", from_python=True)
def run(a, value):
    """a = 2 value + value where `shift` is called, else 2 value."""
    fill(a, value)
    scale(a, a.dtype.type(2))
    if value > 0:
        shift(a, value)


ALL = [function.external for function in (run, fill, scale, shift)]
