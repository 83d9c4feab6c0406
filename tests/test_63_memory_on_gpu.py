"""Too little memory on a GPU, and the checks of `verify` there.

On the stand-in for CuPy.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from cuda_shim.memory import MemoryPool
from cuda_shim.memory import OutOfMemoryError as MemoryPoolIsFull
from gpu_cases import METHODS, STEPS, case, tiny
from gpu_recipes import recipe, theta_of

import refmaml as rm
from refmaml import kernels
from refmaml.errors import OutOfMemoryError
from refmaml.oracles import cases, kernel_checks, whole_net_checks
from refmaml.oracles.meta_objectives import fixed_rates
from refmaml.training import evaluate, train

pytestmark = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))


def needed(cupy, act):
    """The most bytes that are allocated during act()."""
    most, empty = [0], cupy.gpu.empty

    def watching(shape, dtype):
        out = empty(shape, dtype)
        most[0] = max(most[0], cupy.gpu.held)
        return out

    cupy.gpu.empty = watching
    act()
    cupy.gpu.empty = empty
    return most[0]


def many(tasks=8):
    """A case whose activations take most of its memory."""
    net, theta, batch = case(METHODS[0])
    return (
        net,
        theta,
        rm.Batch(*(np.concatenate([a] * (tasks // 2)) for part in batch.sets for a in part)),
    )


def test_with_too_little_memory_fewer_tasks_are_taken_at_once_and_the_bits_are_the_same(
    cupy, on_cupy
):
    net, theta, batch = many()
    gpu_net, method, sizes = net.with_kernels(on_cupy), METHODS[0], []
    enough = method.meta_gradient(gpu_net, theta, batch)
    whole = needed(cupy, lambda: method.meta_gradient(gpu_net, theta, batch))

    @dataclass(frozen=True)
    class Noting(rm.MAML):
        def task_gradients(self, net, theta, batch, trace):
            sizes.append(len(batch))
            return super().task_gradients(net, theta, batch, trace)

    cupy.gpu.limit = whole * 2 // 5
    out = Noting(**STEPS).meta_gradient(gpu_net, theta, batch)
    assert np.array_equal(out.grad, enough.grad) and np.array_equal(
        out.task_losses, enough.task_losses
    )
    assert sizes == [8, 4, 2, 2, 2, 2] and cupy.gpu.counts["free_all_blocks"] == 2


def test_where_not_one_task_fits_it_is_one_clear_line(cupy, on_cupy):
    net, theta, batch = many()
    cupy.gpu.limit = 10_000
    with pytest.raises(
        OutOfMemoryError,
        match=r"^the GPU's memory: expected room for the tasks themselves, got Out of memory "
        r"[^\n]*$",
    ):
        METHODS[0].meta_gradient(net.with_kernels(on_cupy), theta, batch)
    cupy.gpu.limit = 40_000
    with pytest.raises(
        OutOfMemoryError,
        match=r"^the GPU's memory: expected room for one task, got Out of memory allocating "
        r"[\d,]+ bytes "
        r"\(allocated so far: [\d,]+ bytes\) \(recompute=True, [^\n]*\)$",
    ):
        METHODS[0].meta_gradient(net.with_kernels(on_cupy), theta, batch)


def test_evaluation_with_too_little_memory_gives_the_same_values(cupy, on_cupy):
    net, theta, batch = many()
    gpu_net = net.with_kernels(on_cupy)

    def held_out(tasks):
        return batch[tasks.start : tasks.stop]

    values = evaluate(gpu_net, METHODS[0], theta, held_out, 8, chunk=8).values
    done = []
    cupy.gpu.limit = (
        needed(cupy, lambda: evaluate(gpu_net, METHODS[0], theta, held_out, 8, chunk=8)) * 2 // 3
    )
    assert np.array_equal(
        evaluate(gpu_net, METHODS[0], theta, held_out, 8, chunk=8, show=done.append).values, values
    ) and done == [4, 8]


def test_a_graph_that_does_not_fit_beside_the_rest_is_done_without(cupy, on_cupy):
    r, one, other = recipe(on_cupy), [], []
    right = train(
        r, r.start(theta_of(r)), steps=4, show=lambda now: one.append(cupy.gpu.counts["graph"])
    )
    cupy.gpu.counts.clear()

    class Full(MemoryPool):
        def malloc(self, size):
            raise MemoryPoolIsFull(
                "Out of memory allocating 512 bytes (allocated so far: 512 bytes)."
            )

    cupy.cuda.MemoryPool = lambda: Full(cupy.gpu)
    now = train(
        r, r.start(theta_of(r)), steps=4, show=lambda now: other.append(cupy.gpu.counts["graph"])
    )
    assert one == [0, 1, 2, 3] and other == [0, 0, 0, 0] and np.array_equal(now.meta, right.meta)


def test_the_checks_of_verify_pass_on_the_gpu_s_arrays_and_refuse_a_wrong_kernel(cupy, on_cupy):
    reference = kernels.reference()

    def wrong(y, x, w):
        on_cupy.linear_forward(y, x, w)
        y *= 1.001

    net = tiny().with_kernels(reference)
    theta, batch, _ = cases.method_case(net, fixed_rates(net, METHODS[0]))
    for k, right in ((on_cupy, True), (on_cupy.replace(linear_forward=wrong), False)):
        rows = kernel_checks.layer_kernel_checks(
            cases.LAYERS[5], k, reference, np.float32, shared=True
        )
        rows += whole_net_checks.whole_net_check(
            "mlp", whole_net_checks.nets()["two-layer linear"], k, np.float64, shared=False
        )
        rows.append(kernel_checks.method_kernel_check(METHODS[0], net, theta, batch, k, np.float64))
        assert all(row.passed for row in rows) == right
    assert (
        kernel_checks.recorded_check(METHODS[0], net, theta, batch, on_cupy, np.float32).error == 0
    )
