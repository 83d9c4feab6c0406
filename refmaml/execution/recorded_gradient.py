"""A method's meta-gradient as a CUDA graph: recorded once, then replayed."""

from refmaml.errors import NonFiniteError, expect
from refmaml.execution.deferred_checks import Recorded
from refmaml.execution.device_transfer import checked
from refmaml.methods.meta_gradient import MeanOverTasks, check_meta, finalize
from refmaml.ragged import RaggedBatch


class RecordedGradient:
    """recorded(meta, batch) is method.meta_gradient(net, meta, batch), to the bit.

        recorded = RecordedGradient(method, net, meta, batch)
        out = recorded(meta, batch)

    net is on the CUDA kernels; of meta and batch (NumPy's arrays or CuPy's) shapes and
    dtypes count. A NumPy batch is sent in one copy; losses, accuracies and the
    finiteness flags come back in one; grad is an array of meta's kind. Labels that are
    on the GPU already are checked only where the loss then is not finite.
    Raises ArgumentError for a method whose operations depend on numbers (iMAML with
    newton_cg or inner_tol), and as meta_gradient does.
    """

    def __init__(self, method, net, meta, batch, chunk=None):
        expect(
            net.kernels.on_device,
            "net",
            "one that computes on a GPU, net.with_kernels(rm.kernels.cuda())",
            repr(net.kernels),
        )
        expect(
            method.data_independent,
            "method",
            "one whose operations do not depend on what it computes",
            repr(method),
        )
        self.method, self.net = method, net
        work = MeanOverTasks(method, method.task_gradients, chunk)
        self.recorded = Recorded(net, work, self.arrays(meta, batch))

    def arrays(self, meta, batch, device_labels=True):
        """meta and the batch's arrays, checked."""
        batch = check_meta(self.method, self.net, meta, batch, None)
        one_size = not isinstance(batch, RaggedBatch)
        expect(one_size, "batch", "tasks of one size for a graph", "a RaggedBatch")
        support, query = checked(self.net, *batch.sets, device_labels=device_labels)
        return meta, *support, *query, *batch.all_arrays[4:]

    def __call__(self, meta, batch):
        arrays = self.arrays(meta, batch, device_labels=False)
        expect(
            self.recorded.fits(arrays),
            "batch",
            "the shapes and dtypes that were recorded",
            lambda: [(a.shape, str(a.dtype)) for a in arrays],
        )
        try:
            (grad,), figures = self.recorded(*arrays)
        except NonFiniteError:
            self.arrays(meta, batch)  # a label out of range is the better error
            raise
        grad = self.net.kernels.match_input(grad, meta)
        weights = self.net.kernels.to_host_batched(batch.all_arrays[4:])  # one array or none
        return finalize(self.method, grad, figures, None, *weights)
