"""Work whose numbers are looked at once, at its end. On a GPU every look waits until all that was launched is done.

work(net, *arrays) -> (kept, small): a list of arrays that stay where the kernels compute, and {name: small array} for the host. It calls
`net.require_finite` as it goes; on a GPU that takes a note, which comes back with the small arrays. Only where a note says that numbers
were not finite the work is done again, looking at every pass, which names the first layer, step and task.
"""

from refmaml.errors import NonFiniteError
from refmaml.kernels.cuda_runtime.graph import Graph

NOTE = "finite "  # what notes are called among the small arrays


def run_deferred(net, work, *arrays):
    """(kept, small) of the work, the small arrays as NumPy's: from a GPU in one copy, with one wait. Raises NonFiniteError."""
    if not net.kernels.on_device:
        return work(net, *arrays)
    kept, small = noted(net, work, *arrays)
    return kept, judged(
        net,
        work,
        arrays,
        dict(zip(small, net.kernels.to_host_batched(list(small.values())), strict=True)),
    )


def noted(net, work, *arrays):
    """(kept, small with the notes): nothing is looked at."""
    net = net.watched()
    kept, small = work(net, *arrays)
    return kept, small | {f"{NOTE}{i}": note for i, note in enumerate(net.seen)}


def judged(net, work, arrays, small):
    """The small arrays without the notes. Raises NonFiniteError."""
    if not all(note.all() for name, note in small.items() if name.startswith(NOTE)):
        work(net, *net.kernels.to_device(*arrays))
        raise NonFiniteError(
            "the GPU: expected finite numbers, got others, which a second run of the same work did not meet"
        )
    return {name: a for name, a in small.items() if not name.startswith(NOTE)}


class Recorded:
    """run_deferred(net, work, ...) as a CUDA graph, for arrays like `inputs` and for work whose launches do not depend on what it computes."""

    def __init__(self, net, work, inputs):
        self.net, self.work, self.names = net, work, None
        self.graph = Graph(net.kernels.xp, self.launches, inputs)

    def launches(self, *arrays):
        kept, small = noted(self.net, self.work, *arrays)
        self.names = list(small)
        return kept, list(small.values())

    def fits(self, inputs):
        return self.graph.fits(inputs)

    def __call__(self, *arrays):
        """(kept, small) for other contents of the arrays, NumPy's or the GPU's."""
        kept, small = self.graph(*arrays)
        return kept, judged(self.net, self.work, arrays, dict(zip(self.names, small, strict=True)))
