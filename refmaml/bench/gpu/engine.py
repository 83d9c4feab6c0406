"""refmaml's meta-gradient on the GPU: eagerly, and as a CUDA graph.

Both give a function run(theta=None) that returns an array of the kernel set; theta
replaces the parameters of the workload.
"""

import numpy as np

from refmaml import kernels
from refmaml.batch import Batch
from refmaml.execution.recorded_gradient import RecordedGradient


def on_kernels(workload, dtype, kernel_set):
    """(net, theta, batch) of a workload as arrays of a kernel set."""
    net, asarray = workload.net().with_kernels(kernel_set), kernel_set.xp.asarray
    batch = Batch(*(asarray(a) for _, a in workload.batch(dtype).named))
    return net, asarray(workload.theta(dtype)), batch


def eager(workload, dtype, kernel_set=None):
    """The mean meta-gradient, one launch after the other."""
    net, theta, batch = on_kernels(workload, dtype, kernel_set or kernels.cuda())

    def run(other=None):
        start = theta if other is None else net.kernels.xp.asarray(other)
        return workload.method.meta_gradient(net, start, batch).grad

    return run


class Replay:
    """The mean meta-gradient by a graph that was captured once."""

    def __init__(self, recorded, theta, batch, xp):
        self.recorded, self.theta, self.batch, self.xp = recorded, theta, batch, xp

    def __call__(self, other=None):
        theta = self.theta if other is None else self.xp.asarray(other)
        return self.recorded(theta, self.batch).grad

    def launch(self):
        """Launch the graph alone on the current stream, without synchronization."""
        self.recorded.recorded.graph.graph.launch()

    def pool_bytes(self):
        """Bytes of the graph's own memory pool."""
        return self.recorded.recorded.graph.pool.total_bytes()


def graph(workload, dtype, kernel_set=None):
    """The mean meta-gradient, captured as a CUDA graph and replayed."""
    net, theta, batch = on_kernels(workload, dtype, kernel_set or kernels.cuda())
    recorded = RecordedGradient(workload.method, net, theta, batch)
    return Replay(recorded, theta, batch, net.kernels.xp)


def to_host(gradient):
    """A NumPy array of what a run returned."""
    return gradient.get() if hasattr(gradient, "get") else np.asarray(gradient)


def synchronize(gradient):
    """Return when the gradient is computed."""
    import cupy

    cupy.cuda.Device().synchronize()


def peak_memory(run):
    """Bytes of CuPy's pool, and of a graph's own pool.

    The pool returns nothing to the device, so its size is the largest use so far.
    """
    import cupy

    pool = cupy.get_default_memory_pool().total_bytes()
    return pool + (run.pool_bytes() if isinstance(run, Replay) else 0)
