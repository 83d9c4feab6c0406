"""Work on a GPU whose numbers are checked once, at its end.

The host waits whenever it reads a number of the GPU, so it reads once.

work(net, *arrays) -> (vectors, figures): a list of arrays that stay on the GPU, and
{name: small array} for the host. The work calls `net.require` as it goes. On a GPU that
stores a flag, which comes back with the figures. Only where a flag says that numbers
were not finite, the work runs a second time with immediate checks, which name the first
layer, step and task.
"""

from refmaml.errors import NonFiniteError
from refmaml.kernels.cuda_runtime.graph import Graph

FLAG = "finite "  # the prefix of a flag's name among the figures


def run_deferred(net, work, *arrays):
    """(vectors, figures) of the work; figures as NumPy's.

    From a GPU they come in one copy, for which the host waits once.
    Raises NonFiniteError.
    """
    if not net.kernels.on_device:
        return work(net, *arrays)
    vectors, figures = defer_checks(net, work, *arrays)
    host = net.kernels.to_host_batched(list(figures.values()))
    return vectors, raise_deferred(net, work, arrays, dict(zip(figures, host, strict=True)))


def defer_checks(net, work, *arrays):
    """(vectors, figures with the flags), without a wait."""
    net = net.with_deferred_checks()
    vectors, figures = work(net, *arrays)
    flags = {f"{FLAG}{i}": flag for i, flag in enumerate(net.deferred)}
    return vectors, {**figures, **flags}


def raise_deferred(net, work, arrays, figures):
    """The figures without the flags. Raises NonFiniteError where a flag is false."""
    if not all(flag.all() for name, flag in figures.items() if name.startswith(FLAG)):
        work(net, *net.kernels.to_device(*arrays))
        raise NonFiniteError(
            "the GPU: expected finite numbers, got others, and a second run of the same work "
            "got finite ones"
        )
    return {name: a for name, a in figures.items() if not name.startswith(FLAG)}


class Recorded:
    """run_deferred(net, work, ...) as a CUDA graph, for arrays shaped as `inputs`.

    Which operations the work runs must depend on shapes alone, not on numbers.
    """

    def __init__(self, net, work, inputs):
        self.net, self.work, self.names = net, work, None
        self.graph = Graph(net.kernels.xp, self.launch_all, inputs)

    def launch_all(self, *arrays):
        """What the graph records."""
        vectors, figures = defer_checks(self.net, self.work, *arrays)
        self.names = list(figures)
        return vectors, list(figures.values())

    def fits(self, inputs):
        """Whether the graph was recorded for arrays of these shapes and dtypes."""
        return self.graph.fits(inputs)

    def __call__(self, *arrays):
        """(vectors, figures) for other contents of the arrays, NumPy's or the GPU's."""
        vectors, figures = self.graph(*arrays)
        figures = dict(zip(self.names, figures, strict=True))
        return vectors, raise_deferred(self.net, self.work, arrays, figures)
