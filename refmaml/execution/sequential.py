"""Sequential: a Network on any kernel set, wherever its arrays are."""

from math import prod

import numpy as np

from refmaml.batch import Batch
from refmaml.execution.chunks import tasks_at_once, with_fewer_tasks
from refmaml.execution.deferred_checks import run_deferred
from refmaml.execution.device_transfer import pass_to_device, to_device
from refmaml.execution.fusion import fused_layers, plan
from refmaml.execution.groups import rows_in_groups, run_in_groups
from refmaml.execution.interoperability import Interoperability
from refmaml.execution.kernel_choice import by_name, expect_real, mention_faster_kernels
from refmaml.execution.one_call import KernelMean, kind_of, one_call
from refmaml.execution.one_kernel import KernelPrimal, as_one_kernel
from refmaml.layers.dropout import evaluated, expect_own_seeds, has_dropout, reseeded
from refmaml.layers.walk import outputs, walk
from refmaml.methods.meta_gradient import MeanOverTasks
from refmaml.network import Network
from refmaml.ragged import is_list


class Sequential(Interoperability, Network):
    """Layers, then a loss. num_params is P; shapes names the parameters as torch does.

    layers       layers of refmaml.layers, in order; or {name: layer}, where the names
                 take the place of "0", "1", ...
    loss         CrossEntropy(...), MSE(...) or another loss of refmaml.layers
    input_shape  the shape of one input, (C, H, W) or (F,); where given, the layers'
                 shapes are checked at once
    kernels      a kernel set of refmaml.kernels, or its name: "auto", "cpu", "cuda",
                 "numba_cuda", "reference" (the default)

    On a GPU all of the work stays there. NumPy's arrays are sent there, and what
    depends on a NumPy w, theta or v is returned as one; a pass (Primal) holds arrays of
    the GPU. Labels are checked on the way there, and not a second time: reading them
    would be a wait.
    Raises ArgumentError where layers, loss or shapes do not fit each other.
    """

    def __init__(self, layers, loss=None, input_shape=None, kernels=None):
        super().__init__(layers, loss, input_shape, by_name(kernels))
        expect_own_seeds(self.layers)
        self.has_dropout = has_dropout(self.layers)
        self.passes = fused_layers(self.layers, self.kernels)
        self.whole_nets, self.masks = {}, {}  # cached, by shape and by choice of parameters
        self.output_sizes, self.checked, self.calls = {}, set(), {}  # cached, by shape
        self.deferred = None

    def evaluation(self):
        """The net for evaluation: without dropout; the same parameters."""
        return self.with_layers(evaluated(self.layers)) if self.has_dropout else self

    def with_dropout_seed(self, seed):
        """The net with other masks in each Dropout, all from one seed.

        A seed for each meta-step: net.with_dropout_seed(step). Raises ArgumentError
        unless it is an integer in [0, 2^64).
        """
        return self.with_layers(reseeded(self.layers, seed))

    def with_layers(self, layers):
        """A net of as many other layers, with the same names, loss and kernels."""
        named = dict(zip(self.names, layers, strict=True))
        return type(self)(named, self.loss_function, self.input_shape, self.kernels)

    @property
    def early_stop(self):
        """False on a GPU, where a loop that reads its numbers waits at each step."""
        return not self.kernels.on_device

    # ---- how work runs ---------------------------------------------------------------

    def run(self, work, *arrays):
        """(vectors, figures) of work(net, *arrays): vectors of the kind of arrays[0].

        A mean over tasks goes some tasks at a time, and as one kernel if it exists: for
        a small net in one call.
        Tasks of different sizes, arrays in lists, go in groups of equal sizes.
        """
        if len(arrays) > 1 and is_list(arrays[1]):
            return run_in_groups(self, work, *arrays)
        if isinstance(work, MeanOverTasks):
            if (found := one_call(self, work, *arrays)) is not None:
                return found
            work = self.scheduled(work, Batch.unchecked(*arrays[1:]))
        if not self.kernels.on_device:
            mention_faster_kernels(self, work, arrays)
            with np.errstate(all="ignore"):
                return work(self, *arrays)
        pairs = zip(arrays[1::2], arrays[2::2], strict=False)
        vectors = arrays[:1] if len(arrays) % 2 else (arrays[0], arrays[-1])  # weights come last
        (first, *weights), sets = to_device(self, vectors, *pairs)
        moved = first, *(a for part in sets for a in part), *weights
        (vectors, figures), _ = with_fewer_tasks(
            self.kernels, lambda work: run_deferred(self, work, *moved), work, len(moved[-1])
        )
        return [self.match_input(a, arrays[0]) for a in vectors], figures

    def scheduled(self, work, batch):
        """The work with its number of tasks at a time, as one kernel if it exists."""
        whole = self.kernels.whole_net and work.task_gradients == work.method.task_gradients
        one_kernel = as_one_kernel(work.method) if whole else None
        chunk = work.chunk or tasks_at_once(work.method, self, batch, one_kernel is not None)
        run = one_kernel or work.task_gradients
        kind = KernelMean if one_kernel and type(work) is MeanOverTasks else type(work)
        return kind(work.method, run, chunk, work.trace)

    def match_input(self, a, like):
        """An array, or each array of a dict of lists, as NumPy's where `like` is."""
        if isinstance(a, dict):
            return {name: [self.match_input(b, like) for b in steps] for name, steps in a.items()}
        return self.kernels.match_input(a, like)

    def with_deferred_checks(self):
        """This net for one call; its `require` stores flags in `deferred`."""
        net = copy_of(self)
        net.deferred = []
        return net

    def require(self, ok, refuse):
        """Call refuse(), which raises, unless ok; or store ok for a deferred check."""
        if self.deferred is not None:
            self.deferred.append(ok)
        else:
            super().require(ok, refuse)

    def finite(self, primal):
        """Whether loss and gradient are finite in every task."""
        known = getattr(primal, "gradient_is_finite", None)
        if known is None:
            return super().finite(primal)
        return self.kernels.xp.isfinite(primal.loss).all() & known.all()

    def adapt_mask(self, adapts, frozen=()):
        """(P,) of bools as an array of the kernels; computed once for each choice."""
        key = tuple(adapts), tuple(frozen)
        if key not in self.masks:
            (self.masks[key],) = self.kernels.to_device(super().adapt_mask(adapts, frozen))
        return self.masks[key]

    def activations(self, shape):
        """How many numbers all layers put out for inputs of `shape` (examples, ...)."""
        examples, shape = shape[0], tuple(shape[1:])
        if shape not in self.output_sizes:
            self.output_sizes[shape] = sum(prod(v.after) for v in walk(self.layers, shape))
        return examples * self.output_sizes[shape]

    def layer_outputs(self, w, x):
        """(name, layer, its outputs) in a forward pass; of layers inside layers too."""
        return outputs(self.kernels, self.named_layers, self.parameters.views(w), x)

    def check(self, w, x, y):
        """See Network; complex numbers are for the reference kernels.

        Of arrays with the kinds and shapes of earlier ones, only the labels are read.
        """
        kinds = kind_of(w), kind_of(x), kind_of(y)
        if kinds not in self.checked:
            super().check(w, x, y)
            expect_real(self.kernels, w=w, x=x)
            self.checked.add(kinds)
        elif not self.kernels.on_device:
            loss = self.loss_function
            loss.check_values(self.output_shape(x.shape[2:]), loss.extremes(y))

    def check_set(self, x, y, values=True):
        """See Network; device_transfer checks labels before they go to a GPU."""
        super().check_set(x, y, values and not self.kernels.on_device)

    # ---- passes and products ---------------------------------------------------------

    def loss(self, w, x, y):
        """L(w; x, y) for each task, (T,), as NumPy's where w is.

        x, y: arrays, or lists of the tasks' arrays, which may differ in size.
        """
        if is_list(x):
            return rows_in_groups(self.loss, self.kernels, w, x, y)
        moved = pass_to_device(self, w, x, y)
        return self.kernels.match_input(super().loss(*moved), w)

    def primal(self, w, x, y, keep=True):
        """Loss and gradient for each task; keep=False drops what only R-passes need."""
        w, x, y = pass_to_device(self, w, x, y)
        kernel = self.whole_net(x.shape[2:], np.result_type(w.dtype, x.dtype))
        if kernel is None:
            return super().primal(w, x, y, keep)
        self.check(w, x, y)
        scale = self.loss_function.scale(x.shape[1], self.output_shape(x.shape[2:])[0])
        return self.kernel_primal(kernel, kernel.primal(w, x, y, scale, keep), y)

    def gradient(self, w, x, y):
        """dL/dw for each task, (T, P), as NumPy's where w is; x, y as for `loss`."""
        if is_list(x):
            return rows_in_groups(self.gradient, self.kernels, w, x, y)
        return self.kernels.match_input(super().gradient(w, x, y), w)

    def hvp(self, primal, v):
        """H v for each task, as NumPy's where v is; see Network.hvp."""
        (moved,) = self.kernels.to_device(v)
        return self.kernels.match_input(super().hvp(primal, moved), v)

    def real_hvp(self, primal, v):
        """`hvp` along v of the primal's own kind of numbers."""
        if isinstance(primal, KernelPrimal):
            return primal.kernel.product(primal.kept, v)
        return super().real_hvp(primal, v)

    def gauss_newton_product(self, primal, v):
        """J' H_L J v for each task, as NumPy's where v is; see Network."""
        (moved,) = self.kernels.to_device(v)
        return self.kernels.match_input(super().gauss_newton_product(primal, moved), v)

    def real_gauss_newton_product(self, primal, v):
        """`gauss_newton_product` along v of the primal's own kind of numbers."""
        if isinstance(primal, KernelPrimal):
            return primal.kernel.product(primal.kept, v, gauss_newton=True)
        return super().real_gauss_newton_product(primal, v)

    # ---- the whole net as one kernel -------------------------------------------------

    def whole_net(self, shape, dtype):
        """The net on inputs of `shape` as one kernel, or None where there is none.

        There is none where the kernel set has none, for complex numbers, and for a net
        with a layer that fusion.py has no operation for.
        """
        if self.kernels.whole_net is None or dtype.kind == "c":
            return None
        if shape not in self.whole_nets:
            planned = plan(self, shape)
            self.whole_nets[shape] = planned and self.kernels.whole_net(*planned)
        return self.whole_nets[shape]

    def kernel_primal(self, kernel, out, y):
        """What a whole-net kernel returned, as a pass."""
        accuracy = self.loss_function.accuracy(out.z, y)
        return KernelPrimal(kernel, out.kept, out.z, out.loss, accuracy, out.grad, out.finite)

    def unrolled(self, phi, rates, batch, order=2, recompute=False, rule=None):
        """The inner loop from phi (1 or T, P) with step sizes A_k (P,); its adjoint.

        One kernel computes both. Returns a pass on the query set with lam_0 for its
        gradient, or lam_K for order 1. None where there is no such kernel, or where
        numbers overflowed.

        recompute  compute the pass of each step again in the adjoint; do not keep it
        rule       the update rule of kernel_rules.py; None: plain gradient descent
        """
        shape = batch.x_support.shape[2:]
        kernel = self.whole_net(shape, np.result_type(phi.dtype, batch.x_support.dtype))
        if kernel is None or shape != batch.x_query.shape[2:]:
            return None
        for x, y in batch.sets:
            self.check(phi, x, y)
        D = self.output_shape(shape)[0]
        support, query = ((x, y, self.loss_function.scale(x.shape[1], D)) for x, y in batch.sets)
        slots = len(rates) if order > 1 and not recompute else 1
        given = (rule,) if rule else ()
        after = kernel.unrolled(phi, rates, support, query, order, slots, *given)
        after = self.kernel_primal(kernel, after, batch.y_query)
        return after if self.finite(after) else None


def copy_of(net):
    """A shallow copy, with the same cached kernels and masks."""
    twin = object.__new__(type(net))
    twin.__dict__.update(net.__dict__)
    return twin
