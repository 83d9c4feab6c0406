"""The engine on arrays of a GPU, tried on the stand-in for CuPy with the CUDA kernels compiled by g++: nothing goes over or comes back, and
nobody waits, but where it is said; the numbers are those of the reference kernels."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from gpu_cases import IMPLICIT, METHODS, STEPS, case, counted, looks, name_of

import refmaml as rm
from refmaml.execution.recorded_gradient import RecordedGradient
from refmaml.oracles.method_checks import method_terms
from refmaml.oracles.tolerance import relative_error, tolerance

pytestmark = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))


# ---- meta-gradients -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(cupy, on_cupy, method):
    net, meta, batch = case(method)
    exact, far = method.meta_gradient(net, meta, batch), net.with_kernels(on_cupy)
    (there,) = on_cupy.to_device(meta)
    method.meta_gradient(far, there, batch)  # which parameters adapt goes over once and stays
    counted(cupy)
    out = method.meta_gradient(far, there, batch)
    seen, (more, sent) = counted(cupy), looks(method)
    assert (
        1 <= seen["to the GPU"] <= 1 + sent
        and 1 <= seen["to the host"] <= 1 + more
        and "wait" not in seen
    ), seen
    assert isinstance(out.grad, cupy.ndarray)
    limit = tolerance(np.float64, method_terms(method, net, batch))
    assert relative_error(out.grad.get(), exact.grad) <= limit and abs(
        out.loss - exact.loss
    ) <= limit * abs(exact.loss)
    assert out.accuracy == exact.accuracy and list(out.report) == list(exact.report)
    assert out.task_losses.dtype == exact.task_losses.dtype and type(out.task_losses) is np.ndarray
    for name, value in exact.report.items():
        texts = (
            value.dtype.kind == "U"
        )  # a residual is a difference of what agrees to 1e-13: six digits are left
        assert (
            np.array_equal(out.report[name], value)
            if texts
            else relative_error(out.report[name], value) <= 1e-6
        ), name


@pytest.mark.parametrize(
    "method", [rm.MAML(**STEPS), rm.MetaSGD(**STEPS), rm.CAVIA(**STEPS)], ids=name_of
)
def test_numpy_in_is_numpy_out_with_the_same_bits_and_traces_too(cupy, on_cupy, method):
    net, meta, batch = case(method)
    far, (there, *arrays) = (
        net.with_kernels(on_cupy),
        on_cupy.to_device(meta, *(a for part in batch.sets for a in part)),
    )
    here = method.meta_gradient(far, meta, batch, trace=True)
    on_gpu = method.meta_gradient(far, there, rm.Batch(*arrays), trace=True)
    assert type(here.grad) is np.ndarray and np.array_equal(here.grad, on_gpu.grad.get())
    exact = method.meta_gradient(net, meta, batch, trace=True)
    for name, steps in exact.trace.items():
        for a, b, c in zip(steps, here.trace[name], on_gpu.trace[name], strict=True):
            assert (
                type(b) is np.ndarray
                and np.array_equal(b, c.get())
                and relative_error(b, a) <= 1e-12
            )
    counted(cupy)
    method.meta_gradient(far, meta, batch)
    assert counted(cupy) == {
        "to the GPU": 1,
        "to the host": 2,
    }  # theta with the batch; the gradient, and the rest
    method.meta_gradient(far, there, rm.Batch(*arrays))
    assert counted(cupy) == {"to the host": 2}  # which labels there are, and the rest


def test_the_chunk_changes_no_bit(cupy, on_cupy):
    method = rm.MAMLPlusPlus(**STEPS)
    net, meta, batch = case(method)
    batch = rm.Batch(*(np.repeat(a, 2, axis=0) for part in batch.sets for a in part))
    grads = [
        method.meta_gradient(net.with_kernels(on_cupy), meta, batch, chunk=chunk).grad
        for chunk in (None, 3, 1)
    ]
    assert all(np.array_equal(grads[0], g) for g in grads)


def test_a_look_too_many_is_noticed(cupy, on_cupy):
    """Planted: a kernel that looks at a number of its own."""

    def linear_forward(y, x, w):
        on_cupy.linear_forward(y, x, w)
        assert float(y[0, 0, 0]) < 1e9

    with pytest.raises(AssertionError):
        test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(
            cupy, on_cupy.replace(linear_forward=linear_forward), METHODS[0]
        )


def test_a_copy_too_many_is_noticed(cupy, on_cupy):
    """Planted: a kernel that fetches its weights."""

    def linear_forward(y, x, w):
        on_cupy.linear_forward(y, x, cupy.asarray(w.get()))

    with pytest.raises(AssertionError):
        test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(
            cupy, on_cupy.replace(linear_forward=linear_forward), METHODS[0]
        )


def test_an_implicit_conversion_is_noticed(cupy, on_cupy):
    """Planted: a method that takes a NumPy function."""

    @dataclass(frozen=True)
    class Careless(rm.MAML):
        def start(self, net, meta):
            phi, rates = super().start(net, meta)
            return phi, [np.multiply(1, A) for A in rates]

    with pytest.raises(TypeError):
        test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(
            cupy, on_cupy, Careless(**STEPS)
        )


# ---- what people call beside it -----------------------------------------------------------------------------------------------------


def test_adaptation_losses_and_products_come_back_as_they_came(cupy, on_cupy):
    method = rm.MAML(**STEPS)
    net, theta, batch = case(method)
    far, (x, y), rng = net.with_kernels(on_cupy), batch.sets[0], np.random.default_rng(0)
    v = rng.standard_normal((len(x), net.num_params))
    w = np.repeat(theta[None], len(x), axis=0)
    there, there_w, there_v, there_x, there_y = on_cupy.to_device(theta, w, v, x, y)
    calls = {
        "adapt": lambda net, theta, w, v, x, y: method.adapt(net, theta, x, y),
        "loss": lambda net, theta, w, v, x, y: net.loss(w, x, y),
        "gradient": lambda net, theta, w, v, x, y: net.gradient(w, x, y),
        "hvp": lambda net, theta, w, v, x, y: net.hvp(net.primal(w, x, y), v),
        "G v": lambda net, theta, w, v, x, y: net.gauss_newton_product(net.primal(w, x, y), v),
    }
    for name, call in calls.items():
        exact, here = call(net, theta, w, v, x, y), call(far, theta, w, v, x, y)
        on_gpu = call(far, there, there_w, there_v, there_x, there_y)
        assert type(here) is np.ndarray and isinstance(on_gpu, cupy.ndarray), name
        assert np.array_equal(here, on_gpu.get()) and relative_error(here, exact) <= 1e-13, name
    for operator in ("hessian", "gauss_newton"):
        H = getattr(net, operator)(theta, x, y)
        for start in (theta, there):  # a scipy operator's vectors are NumPy's, wherever theta is
            assert relative_error(getattr(far, operator)(start, x, y) @ v[0], H @ v[0]) <= 1e-13


def test_every_solver_adapts_as_the_reference_does(cupy, on_cupy):
    for method in (rm.IMAML(**IMPLICIT), rm.Reptile(**STEPS), rm.ERM(), rm.CAVIA(**STEPS)):
        net, meta, batch = case(method)
        x, y = batch.sets[0]
        assert (
            relative_error(
                method.adapt(net.with_kernels(on_cupy), meta, x, y), method.adapt(net, meta, x, y)
            )
            <= 1e-13
        )


def test_labels_beyond_the_outputs_are_refused_before_a_kernel_reads_there(cupy, on_cupy):
    method = rm.MAML(**STEPS)
    net, theta, batch = case(method)
    far, bad = net.with_kernels(on_cupy), batch.y_query.copy()
    bad[1, 0] = 3
    for query in (bad, cupy.asarray(bad)):
        wrong = rm.Batch(batch.x_support, batch.y_support, batch.x_query, query)
        for call in (
            lambda wrong=wrong: method.meta_gradient(far, theta, wrong),
            lambda wrong=wrong: RecordedGradient(method, far, theta, wrong),
            lambda wrong=wrong: far.loss(theta[None], wrong.x_query, wrong.y_query),
        ):
            with pytest.raises(
                rm.ArgumentError, match=r"^y: expected labels in 0..2, got a label 3$"
            ):
                call()


def test_lists_and_other_libraries_arrays_are_refused_by_name(cupy, on_cupy):
    method = rm.MAML(**STEPS)
    net, theta, batch = case(method)
    with pytest.raises(
        rm.ArgumentError, match=r"^theta: expected an array of shape \(\d+,\), got list"
    ):
        method.meta_gradient(net.with_kernels(on_cupy), list(theta), batch)
    with pytest.raises(
        rm.ArgumentError, match=r"^theta: expected an array of shape \(\d+,\), got Array"
    ):
        method.meta_gradient(
            net, cupy.asarray(theta), batch
        )  # the GPU's on a net that computes with NumPy's


def non_finite_cases():
    net, theta, batch = case(METHODS[0])
    x = batch.x_support.copy()
    x[1, 2] = np.inf
    huge = theta.copy()
    huge[: net.num_params] *= 1e200
    nan = theta.copy()
    nan[3] = np.nan
    return net, {
        "theta": (nan, batch),
        "inputs": (theta, replace(batch, x_support=x)),
        "weights": (huge, batch),
    }


@pytest.mark.parametrize("where", ["theta", "inputs", "weights"])
def test_what_is_not_finite_is_named_as_the_reference_names_it(cupy, on_cupy, where):
    net, trouble = non_finite_cases()
    meta, batch = trouble[where]
    method = replace(METHODS[0], adapts=("5.*",)) if where == "weights" else METHODS[0]
    said = []
    far = net.with_kernels(on_cupy)
    for act in (
        lambda: method.meta_gradient(net, meta, batch, chunk=1),
        lambda: method.meta_gradient(far, meta, batch, chunk=1),
        lambda: RecordedGradient(method, far, np.zeros(len(meta)), batch, chunk=1)(meta, batch),
    ):
        try:
            act()
            said.append("nothing")
        except rm.NonFiniteError as error:
            said.append(str(error))
    assert len(set(said)) == 1, said
    assert said[0] != "nothing" or where == "weights"


# ---- graphs -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in METHODS if m.data_independent], ids=name_of)
def test_a_replayed_gradient_has_the_bits_of_the_launched_one(cupy, on_cupy, method):
    net, meta, batch = case(method)
    far, (_, other, tasks) = net.with_kernels(on_cupy), case(method, seed=1)
    recorded = RecordedGradient(method, far, meta, batch, chunk=1)
    assert cupy.gpu.counts["malloc while capturing"] == 0
    (there,) = on_cupy.to_device(meta)
    for at, some in ((other, tasks), (there, batch), (other, tasks)):
        counted(cupy)
        out = recorded(at, some)
        assert counted(cupy) == {"to the GPU": 1, "to the host": 1 + isinstance(at, np.ndarray)}
        eager = method.meta_gradient(far, at, some)
        assert np.array_equal(
            on_cupy.to_host(out.grad) if at is there else out.grad,
            on_cupy.to_host(eager.grad) if at is there else eager.grad,
        )
        assert (
            out.loss == eager.loss
            and out.accuracy == eager.accuracy
            and np.array_equal(out.task_losses, eager.task_losses)
        )


def test_a_replay_looks_at_labels_on_the_gpu_only_where_the_loss_is_not_finite(cupy, on_cupy):
    method = rm.MAML(**STEPS)
    net, theta, batch = case(method)
    recorded = RecordedGradient(method, net.with_kernels(on_cupy), theta, batch)
    there = rm.Batch(*on_cupy.to_device(*(a for pair in batch.sets for a in pair)))
    counted(cupy)
    recorded(theta, there)
    assert counted(cupy) == {
        "to the GPU": 1,
        "to the host": 2,
    }  # theta over; the gradient and the small arrays back
    for bad in (3, -1):
        labels = batch.y_query.copy()
        labels[1, 0] = bad
        with pytest.raises(
            rm.ArgumentError, match=rf"^y: expected labels in 0..2, got a label {bad}$"
        ):
            recorded(
                theta,
                rm.Batch(there.x_support, there.y_support, there.x_query, cupy.asarray(labels)),
            )


def test_methods_that_go_on_by_what_they_find_are_not_recorded(cupy, on_cupy):
    for method in METHODS:
        if not method.data_independent:
            net, meta, batch = case(method)
            with pytest.raises(
                rm.ArgumentError,
                match="method: expected one whose launches do not depend on what it computes",
            ):
                RecordedGradient(method, net.with_kernels(on_cupy), meta, batch)
