"""A method's meta-gradient as a CUDA graph: recorded once, replayed for other meta-parameters and tasks of the same shapes."""

from refmaml.errors import NonFiniteError, expect
from refmaml.execution.deferred_checks import Recorded
from refmaml.execution.device_transfer import checked
from refmaml.methods.meta_gradient import GradientWork, check_meta, finalize


class RecordedGradient:
    """recorded = RecordedGradient(method, net, meta, batch);  recorded(meta, batch) is method.meta_gradient(net, meta, batch), to the bit.

    net with the CUDA kernels; meta and batch NumPy's arrays or CuPy's, of which shapes and dtypes count. A batch of NumPy's goes over in
    one copy; losses, accuracies and whether all was finite come back in one; grad comes as meta came. Labels that are on the GPU already
    are looked at only where the loss then is not finite.
    Raises ArgumentError for a method that goes on or not by what it finds (iMAML with newton_cg or inner_tol), and as meta_gradient does.
    """

    def __init__(self, method, net, meta, batch, chunk=None):
        expect(
            net.kernels.on_device,
            "net",
            "one that computes on a GPU, net.with_kernels(rm.kernels.cuda())",
            repr(net.kernels),
        )
        expect(
            method.graph_capturable,
            "method",
            "one whose launches do not depend on what it computes",
            repr(method),
        )
        self.method, self.net = method, net
        self.recorded = Recorded(net, GradientWork(method, chunk), self.arrays(meta, batch))

    def arrays(self, meta, batch, look=True):
        batch = check_meta(self.method, self.net, meta, batch, None)
        support, query = checked(self.net, *batch.sets, look=look)
        return meta, *support, *query

    def __call__(self, meta, batch):
        arrays = self.arrays(meta, batch, look=False)
        expect(
            self.recorded.fits(arrays),
            "batch",
            "the shapes and dtypes that were recorded",
            [(a.shape, str(a.dtype)) for a in arrays],
        )
        try:
            kept, small = self.recorded(*arrays)
        except NonFiniteError:
            self.arrays(meta, batch)  # where it was a label, that is what there is to say
            raise
        return finalize(self.method, self.net, meta, kept, small)
