"""The mean over tasks of a small net by one call of the kernel.

It has the bits, and the errors, of the ordinary way: one pass over all tasks, then sums
in NumPy. The first meta-gradient of a net goes the ordinary way.
"""

import threading
from dataclasses import dataclass

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.execution import one_call
from refmaml.oracles import cases
from refmaml.training import Adam, Recipe, Schedule, train

pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")

from refmaml.kernels.whole_net import whole_net

CPU = kernels.cpu(threads=1)
NETS = {
    "sinusoid": rm.mlp((1, 12, 9, 1)),
    "two-layer linear": rm.two_layer_linear(6, 2),
    "classifier": rm.Sequential([rm.Linear(4, 9), rm.Tanh(), rm.Linear(9, 3)], None, (4,)),
}
METHODS = {
    "1 step": rm.MAML(0.05),
    "3 steps": rm.MAML(0.05, 3),
    "other step sizes": rm.MAML([0.05, 0.02], 2),
    "recomputed": rm.MAML(0.05, 3, recompute=True),
    "head alone": rm.ANIL(0.05, 2),
    "first order": rm.FirstOrderMAML(0.05, 4),
    "Adam": rm.MAML(0.05, 2, rule=rm.Adam(eps_root=1e-8)),
    "clipped momentum": rm.MAML(0.05, 2, rule=rm.Clip(rm.SGD(momentum=0.9), norm=0.5)),
}


def problem(name, dtype=np.float64, tasks=3, seed=0):
    """(net on the CPU kernels, theta, batch); 4 support and 6 query examples."""
    rng = np.random.default_rng(seed)
    net = NETS[name].with_kernels(CPU)
    outputs = net.output_shape(net.input_shape)[0]
    sets = []
    for examples in (4, 6):
        sets.append(rng.standard_normal((tasks, examples, *net.input_shape)))
        sets.append(cases.random_targets(net.loss_function, rng, (tasks, examples, outputs)))
    return net, cases.start(net, rng).astype(dtype), rm.Batch(*sets).astype(dtype)


def prepared(net):
    """How many calls the net keeps prepared."""
    return sum(call.kernel is not None for call in net.calls.values())


def same(a, b):
    """Whether two MetaGradients have the same bits, signs of zeros included."""
    names = ("grad", "task_losses", "loss", "task_accuracies", "accuracy")
    return all(np.array(getattr(a, n)).tobytes() == np.array(getattr(b, n)).tobytes()
               for n in names)  # fmt: skip


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_it_has_the_bits_of_the_ordinary_way(name, method):
    method = METHODS[method]
    for tasks in (3, 1):
        net, theta, batch = problem(name, tasks=tasks)
        ordinary = method.meta_gradient(net, theta, batch)
        assert prepared(net) == 0
        first, second = (method.meta_gradient(net, theta, batch) for _ in range(2))
        assert prepared(net) == 1
        assert same(first, ordinary) and same(second, ordinary)
        assert not np.shares_memory(first.grad, second.grad)
        assert not np.shares_memory(first.task_losses, second.task_losses)


def test_float32_has_the_bits_of_the_ordinary_way_too():
    net, theta, batch = problem("sinusoid", np.float32, tasks=5)
    ordinary, found = (rm.MAML(0.05, 2).meta_gradient(net, theta, batch) for _ in range(2))
    assert prepared(net) == 1 and same(found, ordinary)


def test_other_numbers_give_other_results_and_leave_earlier_ones_alone():
    net, theta, batch = problem("classifier")
    _, _, other = problem("classifier", seed=1)
    method, fresh = rm.MAML(0.05, 2), NETS["classifier"].with_kernels(CPU)
    for _ in range(2):
        results = [method.meta_gradient(net, t, b) for t, b in ((theta, batch), (2 * theta, other))]
    assert prepared(net) == 1
    assert same(results[0], method.meta_gradient(fresh, theta, batch))
    fresh = NETS["classifier"].with_kernels(CPU)
    assert same(results[1], method.meta_gradient(fresh, 2 * theta, other))


def test_a_changed_method_or_another_one_is_noticed(monkeypatch):
    net, theta, batch = problem("sinusoid")
    small, large = rm.MAML(0.01), rm.MAML(0.1)
    wanted = [m.meta_gradient(NETS["sinusoid"].with_kernels(CPU), theta, batch)
              for m in (small, large)]  # fmt: skip
    for _ in range(2):
        for method, result in zip((small, large), wanted, strict=True):
            assert same(method.meta_gradient(net, theta, batch), result)
    assert prepared(net) == 1
    monkeypatch.setattr(rm.MAML, "task_gradients", rm.FirstOrderMAML.task_gradients)
    first_order = rm.FirstOrderMAML(0.1).meta_gradient(net, theta, batch)
    assert np.array_equal(large.meta_gradient(net, theta, batch).grad, first_order.grad)


@dataclass(frozen=True)
class FromHalf(rm.MAML):
    """An inner loop that starts elsewhere."""

    def start(self, net, meta):
        phi, rates = super().start(net, meta)
        return phi / 2, rates


@pytest.mark.parametrize(
    "method, options, weights",
    [
        (rm.MAML(0.05), {"chunk": 2}, None),
        (rm.MAML(0.05), {"trace": True}, None),
        (rm.MAML(0.05), {"hyper": True}, None),
        (rm.MAML(0.05), {}, np.array([1.0, 2.0, 0.0])),
        (rm.MAML(0.05, anchor=0.3), {}, None),
        (rm.MetaSGD(0.05), {}, None),
        (FromHalf(0.05), {}, None),
    ],
    ids=["chunks", "trace", "hyper", "weights", "anchor", "Meta-SGD", "another start"],
)
def test_what_one_call_cannot_do_goes_the_ordinary_way(method, options, weights):
    net, theta, batch = problem("sinusoid")
    meta, batch = method.init(net, theta), rm.Batch(*batch.arrays, weights)
    found = [method.meta_gradient(net, meta, batch, **options) for _ in range(3)]
    assert prepared(net) == 0 and all(same(a, found[0]) for a in found)
    reference = method.meta_gradient(net.with_kernels(kernels.reference()), meta, batch)
    # Rounding is 2e-16 of numbers near 1, and grows over the layers.
    assert np.abs(found[0].grad - reference.grad).max() < 1e-12


def test_a_chunk_that_holds_all_tasks_is_no_limit():
    net, theta, batch = problem("sinusoid")
    for _ in range(2):
        rm.MAML(0.05).meta_gradient(net, theta, batch, chunk=3)
    assert prepared(net) == 1
    rm.MAML(0.05).meta_gradient(net, theta, batch)
    assert len(net.calls) == 1


def on_two_threads(net):
    """Lets the net's kernel run on two threads, whatever its size."""
    kernel = net.whole_net(net.input_shape, np.dtype(np.float32))
    kernel.serial_below, kernel.threads = 0, 2


@pytest.mark.parametrize("tasks", [1, 2, 7])
def test_several_threads_have_the_bits_of_one(tasks):
    net, theta, batch = problem("sinusoid", np.float32, tasks)
    wanted = rm.MAML(0.05, 2).meta_gradient(net, theta, batch)
    on_two_threads(net)
    found = [rm.MAML(0.05, 2).meta_gradient(net, theta, batch) for _ in range(2)]
    assert prepared(net) == 1 and all(same(a, wanted) for a in found)


def test_several_threads_notice_a_sum_that_is_not_finite():
    net, theta, batch = problem("two-layer linear")
    on_two_threads(net)
    method = rm.MAML(1e-3)
    for _ in range(2):
        method.meta_gradient(net, theta, batch)
    large_sum(net, theta, batch)
    with pytest.raises(rm.NonFiniteError, match="meta-gradient"):
        method.meta_gradient(net, theta, batch)


def test_a_net_with_much_arithmetic_is_not_prepared(monkeypatch):
    monkeypatch.setattr(whole_net, "ONE_CALL_BELOW", 0)
    net, theta, batch = problem("sinusoid")
    for _ in range(2):
        rm.MAML(0.05).meta_gradient(net, theta, batch)
    assert len(net.calls) == 1 and prepared(net) == 0


def error_of(net, theta, batch, method):
    with pytest.raises((rm.NonFiniteError, rm.ArgumentError)) as caught:
        method.meta_gradient(net, theta, batch)
    return type(caught.value), str(caught.value)


def infinite_bias(net, theta, batch):
    theta[net.parameters.slices["0.bias"].start] = -np.inf  # ReLU turns it into 0


def not_a_number(net, theta, batch):
    theta[-1] = np.nan


def large_input(net, theta, batch):
    batch.x_support[1] = 1e200  # an inner gradient overflows


def large_query(net, theta, batch):
    batch.x_query[2] = 1e200


def large_sum(net, theta, batch):
    """Each task's gradient is finite, their sum is not: z = 1, dz x = 1e308."""
    theta[:] = 0
    theta[0], theta[12] = 1e-155, 1  # an entry of either matrix
    batch.x_support[:], batch.x_query[:], batch.y_query[:] = 0, 0, -1e153
    batch.x_query[..., 0] = 1e155


def wrong_label(net, theta, batch):
    batch.y_query[1, 2] = 3


@pytest.mark.parametrize(
    "name, spoil",
    [
        *(("sinusoid", f) for f in (infinite_bias, not_a_number, large_input, large_query)),
        ("two-layer linear", large_sum),
        ("classifier", wrong_label),
    ],
)
def test_the_errors_are_those_of_the_ordinary_way(name, spoil):
    net, theta, batch = problem(name)
    method = rm.MAML(1e-3)
    for _ in range(2):
        method.meta_gradient(net, theta, batch)
    assert prepared(net) == 1
    spoil(net, theta, batch)
    fresh = NETS[name].with_kernels(CPU)
    assert error_of(net, theta, batch, method) == error_of(fresh, theta, batch, method)


@pytest.mark.parametrize("order", ["read-only", "gaps"])
def test_arrays_of_any_order_in_memory(order):
    net, theta, batch = problem("classifier")
    method = rm.MAML(0.05)
    wanted = [method.meta_gradient(net, theta, batch) for _ in range(2)][-1]
    arrays = [np.repeat(a, 2, axis=-1)[..., ::2] if order == "gaps" else a.copy()
              for a in (theta, *batch.arrays)]  # fmt: skip
    for a in arrays:
        a.flags.writeable = order != "read-only"
    assert same(method.meta_gradient(net, arrays[0], rm.Batch(*arrays[1:])), wanted)
    assert prepared(net) == 1


def test_calls_at_the_same_time_have_memory_of_their_own():
    net, theta, batch = problem("sinusoid", np.float32, tasks=20)
    method = rm.MAML(0.05, 3)
    wanted = [method.meta_gradient(net, theta, batch) for _ in range(2)][-1]
    wrong, ready = [], threading.Barrier(4)

    def repeat():
        ready.wait()
        wrong.extend(r for r in (method.meta_gradient(net, theta, batch) for _ in range(50))
                     if not same(r, wanted))  # fmt: skip

    threads = [threading.Thread(target=repeat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (call,) = net.calls.values()
    assert not wrong and 1 <= len(call.kernel.idle) <= 4


def test_a_net_keeps_few_calls_prepared():
    net, theta, batch = problem("sinusoid")
    method = rm.MAML(0.05)
    for examples in (*range(1, 5), *range(1, 5)):
        for tasks in (1, 2, 3):
            part = rm.Batch(*(a[:tasks, :examples] for a in batch.arrays))
            for _ in range(2):
                method.meta_gradient(net, theta, part)
    assert 1 <= len(net.calls) <= one_call.MOST


def waves(step):
    return rm.Sinusoids().sample(4, 5, 5, seed=1, step=step)


def test_a_training_run_uses_it_and_has_the_same_bits():
    ends = []
    for chunk in (None, 3):
        net = rm.mlp((1, 12, 9, 1), kernels=CPU)
        recipe = Recipe(net, rm.MAML(0.01), Adam(), Schedule(1e-2), waves, chunk)
        ends.append(train(recipe, recipe.start(net.init(0)), steps=4).meta)
        assert prepared(net) == (chunk is None)
    assert np.array_equal(*ends)
