"""Whole nets as one kernel, against the reference kernels.

Threads, chunks and reused memory change no bit.
"""

import gc
from functools import partial

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.execution.fusion import plan
from refmaml.oracles import cases
from refmaml.oracles.net_checks import net_terms
from refmaml.oracles.tolerance import relative_error, tolerance
from refmaml.oracles.whole_net_checks import nets, probe, quantities, whole_net_check

numba = pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")

from refmaml.kernels.numba_runtime.memory import Memory  # noqa: E402
from refmaml.kernels.numba_runtime.threads import parallel_for  # noqa: E402
from refmaml.kernels.numba_runtime.transpose import transpose  # noqa: E402
from refmaml.kernels.whole_net import operations as op  # noqa: E402 (needs numba)
from refmaml.kernels.whole_net.program import supported  # noqa: E402
from refmaml.kernels.whole_net.whole_net import WholeNet, whole_net  # noqa: E402

CPU = kernels.cpu(threads=1)
NETS = nets()


def cpu_with_whole_net(made):
    """The cpu kernels with another function `made`: (operations, loss) -> whole net."""
    return kernels.KernelSet("cpu", CPU.functions, empty=CPU.empty, whole_net=made)


@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.slow), np.float64])
@pytest.mark.parametrize("name", NETS)
def test_every_net_agrees_with_the_reference_kernels(name, dtype):
    assert (
        NETS[name].with_kernels(CPU).whole_net(NETS[name].input_shape, np.dtype(dtype)) is not None
    )
    for shared in (False, True):
        for check in whole_net_check(name, NETS[name], CPU, dtype, shared):
            assert check.passed, check


def changed(kind, **fields):
    """A planted error: new fields of all operations of a kind.

    fields  {name: function(old value) -> new value}
    """

    def plant(operation):
        if not isinstance(operation, kind):
            return operation
        return operation._replace(
            **{name: value(getattr(operation, name)) for name, value in fields.items()}
        )

    return plant


PLANTED = {
    "eps a tenth larger": ("strided conv4", changed(op.NormActPool, eps=lambda eps: 1.1 * eps)),
    "no gamma": ("strided conv4", changed(op.NormActPool, gamma=lambda gamma: op.ABSENT)),
    "gamma for beta": ("strided conv4", changed(op.NormActPool, beta=lambda beta: beta - 6)),
    "a leak in the ReLU": ("strided conv4", changed(op.NormActPool, slope=lambda slope: 0.01)),
    "no ReLU": ("strided conv4", changed(op.NormActPool, slope=lambda slope: 1.0)),
    "padding at the other end": (
        "strided conv4",
        changed(op.Convolution, start=lambda start: (1, 1)),
    ),
    "no bias in the head": ("strided conv4", changed(op.Matrix, bias=lambda bias: op.ABSENT)),
    "another layer's weights": ("mlp", changed(op.Matrix, weight=lambda weight: 0)),
    "another leak": (
        "wide, leaky, odd windows",
        changed(op.NormActPool, slope=lambda slope: slope * 1.01),
    ),
    "tanh for softplus": (
        "smooth, overlapping windows",
        changed(op.Activate, function=lambda function: 1),
    ),
    "kink for smooth": (
        "smooth, overlapping windows",
        changed(op.Activate, function=lambda function: 0),
    ),
    "windows side by side": (
        "smooth, overlapping windows",
        changed(op.MaxPool, stride=lambda stride: (1, 1)),
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_caught(error):
    name, plant = PLANTED[error]

    def planted(operations, loss, **rest):
        return whole_net([plant(o) for o in operations], loss, **rest)

    wrong = cpu_with_whole_net(partial(planted, memory=Memory(), threads=1))
    assert not all(
        check.passed for check in whole_net_check(name, NETS[name], wrong, np.float64, False)
    )


class FirstOrder(WholeNet):
    def unrolled(self, w, rates, support, query, order, slots):
        return super().unrolled(w, rates, support, query, 1, slots)


class LastStepOnly(WholeNet):
    def unrolled(self, w, rates, support, query, order, slots):
        return super().unrolled(w, rates[:-1], support, query, order, min(slots, len(rates) - 1))


class FirstRateThroughout(WholeNet):
    def unrolled(self, w, rates, *rest):
        return super().unrolled(w, rates[:1] * len(rates), *rest)


class LossOfTheSupportSet(WholeNet):
    def unrolled(self, w, rates, support, query, *rest):
        return super().unrolled(w, rates, support, support, *rest)


@pytest.mark.parametrize(
    "kind", [FirstOrder, LastStepOnly, FirstRateThroughout, LossOfTheSupportSet]
)
def test_an_error_planted_in_the_inner_loop_is_caught(kind):
    wrong = cpu_with_whole_net(lambda operations, loss: kind(operations, loss, Memory(), 1))
    bad = [
        check.quantity
        for check in whole_net_check("mlp", NETS["mlp"], wrong, np.float64, True)
        if not check.passed
    ]
    assert "lam_0" in bad and all(
        "lam_0" in quantity or "inner steps" in quantity for quantity in bad
    )


def test_an_external_function_accepts_only_its_own_types():
    @numba.njit
    def wrong(a, rows):
        transpose((a, rows, a, a))

    with pytest.raises(TypeError, match="transpose: expected"):
        wrong(np.zeros(4), np.zeros(1, np.int64))


def test_with_an_exchanged_kernel_a_net_runs_kernel_by_kernel():
    net = NETS["mlp"]
    w, x, y, _, _ = probe(net, np.float64, False)

    def doubled(y, x, w):
        CPU.linear_forward(y, x, w)
        y *= 2

    other = net.with_kernels(CPU.replace(linear_forward=doubled))
    assert other.whole_net(net.input_shape, np.dtype(float)) is None
    assert not np.allclose(other.primal(w, x, y).outputs, net.primal(w, x, y).outputs)


def test_layers_and_orders_that_one_kernel_cannot_run_are_run_layer_by_layer():
    context = cases.conv_net(context=True)
    assert plan(context, context.input_shape) is None
    twice = rm.Sequential(
        [rm.Linear(3, 4), rm.Tanh(), rm.BatchNorm2d(4), rm.Linear(4, 2)], rm.MSE(), (3,)
    )
    assert (
        plan(twice, (3,)) is not None
        and twice.with_kernels(CPU).whole_net((3,), np.dtype(float)) is None
    )
    assert NETS["mlp"].with_kernels(CPU).whole_net((3,), np.dtype(complex)) is None
    theta, batch = (
        cases.start(twice, np.random.default_rng(0)),
        np.random.default_rng(1).standard_normal((2, 5, 3)),
    )
    y = np.random.default_rng(2).standard_normal((2, 5, 2))
    error = relative_error(
        twice.with_kernels(CPU).gradient(theta[None], batch, y),
        twice.gradient(theta[None], batch, y),
    )
    assert error <= tolerance(float, net_terms(twice, 5))


def test_a_window_of_more_pixels_than_a_winner_can_count_is_run_layer_by_layer():
    def operations(window):
        return [
            op.Convolution(1, 200, 200, 2, 200, 200, (1, 1), (1, 1), (0, 0), 0),
            op.MaxPool(2, 200, 200, 1, 1, window, window),
            op.Flatten(2, 1, 1),
            op.Matrix(2, 3, 2),
        ]

    assert supported(operations((181, 181))) and not supported(operations((182, 182)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["strided conv4", "max-pool conv4", "mlp"])
def test_the_bits_depend_neither_on_threads_nor_on_chunks_nor_on_the_run(name):
    net = NETS[name]
    w, x, y, v, _ = probe(net, np.float32, False)
    w, x, y, v = (np.concatenate([a, a[::-1]]) for a in (w, x, y, v))
    several = kernels.KernelSet(
        "cpu", CPU.functions, empty=CPU.empty, whole_net=lambda *made: Always(*made, Memory(), 4)
    )
    first = quantities(net.with_kernels(CPU), w, x, y, v)
    for other in (several, CPU, kernels.cpu(threads=2)):
        for quantity, value in quantities(net.with_kernels(other), w, x, y, v).items():
            assert np.array_equal(value, first[quantity]), quantity
    alone = [
        quantities(net.with_kernels(CPU), w[t : t + 1], x[t : t + 1], y[t : t + 1], v[t : t + 1])
        for t in range(len(w))
    ]
    for quantity, value in first.items():
        assert np.array_equal(np.concatenate([a[quantity] for a in alone]), value), quantity


@pytest.mark.parametrize("name", ["strided conv4", "mlp"])
def test_read_only_arrays_give_the_same_bits(name):
    """NumPy's views of JAX's arrays are read-only."""
    net, given = NETS[name].with_kernels(CPU), probe(NETS[name], np.float64, False)[:4]
    writable = quantities(net, *given)
    for a in given:
        a.flags.writeable = False
    for quantity, value in quantities(net, *given).items():
        assert np.array_equal(value, writable[quantity]), quantity


def Always(operations, loss, memory, threads):
    """A whole net that runs on several threads whatever its size."""
    made = whole_net(operations, loss, memory, threads)
    made.serial_below = 0
    return made


def test_a_kept_pass_is_not_overwritten_by_the_passes_after_it():
    net = NETS["strided conv4"].with_kernels(CPU)
    w, x, y, v, _ = probe(net, np.float64, False)
    primal = net.primal(w, x, y)
    before = net.hvp(primal, v)
    for _ in range(3):
        net.primal(w + 1, x, y)
        net.hvp(net.primal(w - 1, x, y, keep=True), v)
    assert np.array_equal(net.hvp(primal, v), before)


def test_memory_is_reused_only_after_its_last_view_is_gone():
    memory = Memory()
    a = memory.empty((1000, 500), np.float32)
    part = a[3:7].reshape(-1)
    address = a.__array_interface__["data"][0]
    part[:] = 5
    del a
    gc.collect()
    b = memory.empty((1000, 500), np.float32)
    b[:] = 1
    assert b.__array_interface__["data"][0] != address and (part == 5).all()
    del part
    gc.collect()
    assert memory.empty((500, 1000), np.float32).__array_interface__["data"][0] == address


def test_a_parallel_loop_covers_its_range_once_and_raises_errors():
    done = np.zeros(11, int)

    def run(lo, hi):
        done[lo:hi] += 1

    parallel_for(11, run, threads=4)
    assert (done == 1).all()

    def fails(lo, hi):
        if lo > 0:
            raise ValueError("in a thread")

    with pytest.raises(ValueError, match="in a thread"):
        parallel_for(11, fails, threads=4)


def test_a_non_finite_gradient_is_named_by_layer_and_task():
    net = rm.conv4(5, channels=4, image=(1, 14, 14), kernels=CPU)
    batch = cases.tasks_for(net, np.random.default_rng(0))
    batch.x_support[1, 2, 0, 3, 3] = 3e38
    with (
        np.errstate(all="ignore"),
        pytest.raises(rm.NonFiniteError, match="inner step 0.*layer 0 .Conv2d.*task 1"),
    ):
        rm.MAML(0.4, 1).meta_gradient(net, 100 * net.init(0), batch.astype(np.float32))
