"""Kernel sets by their name, and one remark where slow ones have much to compute."""

from importlib.util import find_spec
from math import prod

from refmaml import kernels as kernel_sets
from refmaml.errors import expect
from refmaml.log import log
from refmaml.methods.meta_gradient import MeanOverTasks

COMPILED = ("cpu", "cuda", "numba_cuda")  # for float32 and float64
LARGE = 30_000_000  # layer outputs of one meta-gradient: seconds with the reference kernels
REMARK = (
    'refmaml: the reference kernels compute this net; kernels="cpu" has the same results '
    "many times faster, after a first use that compiles for some seconds"
)


def by_name(kernels):
    """A kernel set: itself, or the one of that name; None: the reference kernels.

    Raises ArgumentError for anything else, ImportError where a library is missing.
    """
    known = kernels is None or isinstance(kernels, kernel_sets.KernelSet)
    expect(
        known or kernels in kernel_sets.NAMES,
        "kernels",
        f"a kernel set or one of {', '.join(kernel_sets.NAMES)}",
        lambda: repr(kernels),
    )
    return kernel_sets.reference() if kernels is None else kernel_sets.by_name(kernels)


def expect_real(kernels, **arrays):
    """Raise ArgumentError for complex numbers if the kernels take only real ones."""
    for name, a in arrays.items():
        expect(
            kernels.name not in COMPILED or a.dtype.kind != "c",
            name,
            f"real numbers, as the {kernels.name} kernels take no others "
            "(the reference kernels do)",
            lambda a=a: f"dtype {a.dtype}",
        )


def mention_faster_kernels(net, work, arrays):
    """Print REMARK where the reference kernels will take seconds, once for each set."""
    if net.kernels.name != "reference" or not isinstance(work, MeanOverTasks):
        return
    steps = getattr(work.method, "inner_steps", 1)
    images = [a.shape for a in arrays[1:5:2]]
    outputs = sum(shape[0] * net.activations(shape[1:]) for shape in images)
    if steps * outputs >= LARGE and prod(images[0]) and find_spec("numba"):
        net.kernels.cached("faster kernels were mentioned", lambda: log(REMARK))
