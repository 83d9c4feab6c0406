"""refmaml itself on the GPU: launch by launch, and as a CUDA graph. Both return run(theta=None), from other parameters than the workload's
where they are given; what it returns is an array of the kernel set's."""

import numpy as np

from refmaml import kernels
from refmaml.batch import Batch
from refmaml.execution.recorded_gradient import RecordedGradient


def laid_out(workload, dtype, kernel_set):
    """(net, theta, batch) on a kernel set, the arrays where it computes."""
    net, asarray, batch = (
        workload.net().with_kernels(kernel_set),
        kernel_set.xp.asarray,
        workload.batch(dtype),
    )
    return net, asarray(workload.theta(dtype)), Batch(*(asarray(a) for _, a in batch.named))


def eager(workload, dtype, kernel_set=None):
    """The mean meta-gradient, launch by launch."""
    net, theta, batch = laid_out(workload, dtype, kernel_set or kernels.cuda())

    def run(other=None):
        return workload.method.meta_gradient(
            net, theta if other is None else net.kernels.xp.asarray(other), batch
        ).grad

    return run


class Replayed:
    """The same by a graph that was recorded once."""

    def __init__(self, recorded, theta, batch, xp):
        self.recorded, self.theta, self.batch, self.xp = recorded, theta, batch, xp

    def __call__(self, other=None):
        return self.recorded(
            self.theta if other is None else self.xp.asarray(other), self.batch
        ).grad

    def launch(self):
        """The graph alone, on the current stream: nothing goes there or back, nobody waits."""
        self.recorded.recorded.graph.graph.launch()

    def held(self):
        """Bytes of the graph's own memory."""
        return self.recorded.recorded.graph.pool.total_bytes()


def graph(workload, dtype, kernel_set=None):
    """The meta-gradient, recorded as a CUDA graph and replayed."""
    net, theta, batch = laid_out(workload, dtype, kernel_set or kernels.cuda())
    return Replayed(
        RecordedGradient(workload.method, net, theta, batch), theta, batch, net.kernels.xp
    )


def fetch(gradient):
    """A NumPy array of what a run returned."""
    return gradient.get() if hasattr(gradient, "get") else np.asarray(gradient)


def finish(gradient):
    """Return once it is computed."""
    import cupy

    cupy.cuda.Device().synchronize()


def peak(run):
    """Bytes CuPy's pool holds, which is the most that was needed at once, and those of a graph's own."""
    import cupy

    return cupy.get_default_memory_pool().total_bytes() + (
        run.held() if isinstance(run, Replayed) else 0
    )
