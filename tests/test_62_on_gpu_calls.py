"""Adaptation, operators and recorded graphs on arrays of a GPU.

On the stand-in for CuPy.
"""

from dataclasses import replace

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from gpu_cases import IMPLICIT, METHODS, STEPS, case, counted, name_of

import refmaml as rm
from refmaml.execution.recorded_gradient import RecordedGradient
from refmaml.oracles.tolerance import relative_error

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))]


def test_adaptation_losses_and_products_return_the_caller_s_type_of_array(cupy, on_cupy):
    method = rm.MAML(**STEPS)
    net, theta, batch = case(method)
    gpu_net, (x, y), rng = net.with_kernels(on_cupy), batch.sets[0], np.random.default_rng(0)
    v = rng.standard_normal((len(x), net.num_params))
    w = np.repeat(theta[None], len(x), axis=0)
    gpu_theta, gpu_w, gpu_v, gpu_x, gpu_y = on_cupy.to_device(theta, w, v, x, y)
    calls = {
        "adapt": lambda net, theta, w, v, x, y: method.adapt(net, theta, x, y),
        "loss": lambda net, theta, w, v, x, y: net.loss(w, x, y),
        "gradient": lambda net, theta, w, v, x, y: net.gradient(w, x, y),
        "hvp": lambda net, theta, w, v, x, y: net.hvp(net.primal(w, x, y), v),
        "G v": lambda net, theta, w, v, x, y: net.gauss_newton_product(net.primal(w, x, y), v),
    }
    for name, call in calls.items():
        exact, from_numpy = call(net, theta, w, v, x, y), call(gpu_net, theta, w, v, x, y)
        from_gpu = call(gpu_net, gpu_theta, gpu_w, gpu_v, gpu_x, gpu_y)
        assert type(from_numpy) is np.ndarray and isinstance(from_gpu, cupy.ndarray), name
        assert (
            np.array_equal(from_numpy, from_gpu.get())
            and relative_error(from_numpy, exact) <= 1e-13
        ), name
    for operator in ("hessian", "gauss_newton"):
        H = getattr(net, operator)(theta, x, y)
        # An operator of SciPy multiplies NumPy's vectors, wherever theta is.
        for start in (theta, gpu_theta):
            assert relative_error(getattr(gpu_net, operator)(start, x, y) @ v[0], H @ v[0]) <= 1e-13


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
    gpu_net, bad = net.with_kernels(on_cupy), batch.y_query.copy()
    bad[1, 0] = 3
    for query in (bad, cupy.asarray(bad)):
        wrong = rm.Batch(batch.x_support, batch.y_support, batch.x_query, query)
        for call in (
            lambda wrong=wrong: method.meta_gradient(gpu_net, theta, wrong),
            lambda wrong=wrong: RecordedGradient(method, gpu_net, theta, wrong),
            lambda wrong=wrong: gpu_net.loss(theta[None], wrong.x_query, wrong.y_query),
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
        rm.ArgumentError, match=r"^theta: expected an array of shape \(\d+,\), got cuda_shim.Array"
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
    net, non_finite = non_finite_cases()
    meta, batch = non_finite[where]
    method = replace(METHODS[0], adapts=("5.*",)) if where == "weights" else METHODS[0]
    errors = []
    gpu_net = net.with_kernels(on_cupy)
    for act in (
        lambda: method.meta_gradient(net, meta, batch, chunk=1),
        lambda: method.meta_gradient(gpu_net, meta, batch, chunk=1),
        lambda: RecordedGradient(method, gpu_net, np.zeros(len(meta)), batch, chunk=1)(meta, batch),
    ):
        try:
            act()
            errors.append("nothing")
        except rm.NonFiniteError as error:
            errors.append(str(error))
    assert len(set(errors)) == 1, errors
    assert errors[0] != "nothing" or where == "weights"


@pytest.mark.parametrize("method", [m for m in METHODS if m.data_independent], ids=name_of)
def test_a_replayed_gradient_has_the_bits_of_the_launched_one(cupy, on_cupy, method):
    net, meta, batch = case(method)
    gpu_net, (_, other, tasks) = net.with_kernels(on_cupy), case(method, seed=1)
    recorded = RecordedGradient(method, gpu_net, meta, batch, chunk=1)
    assert cupy.gpu.counts["malloc while capturing"] == 0
    (gpu_meta,) = on_cupy.to_device(meta)
    for at, given in ((other, tasks), (gpu_meta, batch), (other, tasks)):
        counted(cupy)
        out = recorded(at, given)
        assert counted(cupy) == {"to the GPU": 1, "to the host": 1 + isinstance(at, np.ndarray)}
        eager = method.meta_gradient(gpu_net, at, given)
        assert np.array_equal(
            on_cupy.to_host(out.grad) if at is gpu_meta else out.grad,
            on_cupy.to_host(eager.grad) if at is gpu_meta else eager.grad,
        )
        assert (
            out.loss == eager.loss
            and out.accuracy == eager.accuracy
            and np.array_equal(out.task_losses, eager.task_losses)
        )


def test_a_replay_reads_labels_on_the_gpu_only_if_the_loss_is_not_finite(cupy, on_cupy):
    method = rm.MAML(**STEPS)
    net, theta, batch = case(method)
    recorded = RecordedGradient(method, net.with_kernels(on_cupy), theta, batch)
    gpu_batch = rm.Batch(*on_cupy.to_device(*(a for pair in batch.sets for a in pair)))
    counted(cupy)
    recorded(theta, gpu_batch)
    assert counted(cupy) == {
        "to the GPU": 1,
        "to the host": 2,
    }  # theta; the gradient and the small arrays
    for bad in (3, -1):
        labels = batch.y_query.copy()
        labels[1, 0] = bad
        with pytest.raises(
            rm.ArgumentError, match=rf"^y: expected labels in 0..2, got a label {bad}$"
        ):
            recorded(
                theta,
                rm.Batch(
                    gpu_batch.x_support,
                    gpu_batch.y_support,
                    gpu_batch.x_query,
                    cupy.asarray(labels),
                ),
            )


def test_methods_whose_control_flow_depends_on_data_are_not_recorded(cupy, on_cupy):
    for method in METHODS:
        if not method.data_independent:
            net, meta, batch = case(method)
            with pytest.raises(
                rm.ArgumentError,
                match="method: expected one whose operations do not depend on what it computes",
            ):
                RecordedGradient(method, net.with_kernels(on_cupy), meta, batch)
