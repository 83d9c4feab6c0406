"""Evaluation and training on a GPU's arrays, little memory, and what verify asks: on the stand-in for CuPy, as in test_62."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from cuda_shim.memory import MemoryPool
from cuda_shim.memory import OutOfMemoryError as MemoryPoolIsFull
from gpu_cases import IMPLICIT, METHODS, STEPS, case, counted, looks, name_of, tiny

import refmaml as rm
from refmaml import kernels
from refmaml.errors import OutOfMemoryError
from refmaml.models import mlp
from refmaml.oracles import cases, kernel_checks, whole_net_checks
from refmaml.oracles.meta_objectives import fixed_rates
from refmaml.oracles.tolerance import relative_error
from refmaml.training import SGD, Adam, Schedule, checkpoint, evaluate, train
from refmaml.training.meta_step import MetaStep
from refmaml.training.trainer import Recipe

pytestmark = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))


# ---- evaluation and training --------------------------------------------------------------------------------------------------------


def sinusoids(dtype=np.float64):
    return lambda step: rm.Sinusoids().sample(3, 4, 5, seed=0, step=step, dtype=dtype)


def recipe(k, method=METHODS[0], optimizer=None, dtype=np.float64, lr=1e-2):
    return Recipe(
        mlp((1, 3, 1), "tanh", kernels=k),
        method,
        optimizer or Adam(),
        Schedule(lr),
        sinusoids(dtype),
        chunk=2,
    )


def theta_of(recipe, dtype=np.float64):
    return recipe.net.init(0, dtype)


def test_evaluation_takes_a_copy_over_and_one_back_for_each_chunk(cupy, on_cupy):
    method, near, far = METHODS[0], mlp((1, 3, 1), "tanh"), mlp((1, 3, 1), "tanh", kernels=on_cupy)
    theta = near.init(0, np.float64)

    def held_out(tasks):
        return rm.Sinusoids().sample(tasks, 4, 5, seed=0, step=9, dtype=np.float64)

    exact = evaluate(near, method, theta, held_out, 5, chunk=2)
    evaluate(far, method, theta, held_out, 2)
    counted(cupy)
    result = evaluate(far, method, on_cupy.to_device(theta)[0], held_out, 5, chunk=2)
    assert counted(cupy) == {"to the GPU": 4, "to the host": 3}  # theta, and three chunks
    assert (
        result.quantity == exact.quantity and relative_error(result.values, exact.values) <= 1e-13
    )


def test_a_step_of_one_s_own_is_taken_on_a_gpu_too(on_cupy):
    plain, steps, calls = recipe(on_cupy), MetaStep(), []

    def watched(recipe, now):
        calls.append(now.step)
        return steps(recipe, now)

    start = plain.start(theta_of(plain))
    assert (
        train(replace(plain, take=watched), start, steps=4).meta.tobytes()
        == train(plain, start, steps=4).meta.tobytes()
    )
    assert calls == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "method", [rm.MAML(**STEPS), rm.MAMLPlusPlus(**STEPS), rm.IMAML(**IMPLICIT)], ids=name_of
)
@pytest.mark.parametrize("optimizer", [Adam(), SGD()], ids=["adam", "sgd"])
def test_training_is_a_copy_over_and_one_back_a_step_and_agrees_with_the_reference(
    cupy, on_cupy, method, optimizer
):
    seen, near, far = (
        [],
        recipe(kernels.reference(), method, optimizer),
        recipe(on_cupy, method, optimizer),
    )
    start = far.start(theta_of(far))
    counted(cupy)
    exact = train(near, near.start(theta_of(near)), steps=5)
    now = train(
        far, start, steps=5, show=lambda now: seen.append((counted(cupy), cupy.gpu.counts["graph"]))
    )
    assert type(now.meta) is np.ndarray
    for row, right in zip(now.rows, exact.rows, strict=True):
        assert (
            abs(row.loss - right.loss) <= 1e-12 * right.loss
            and abs(row.grad_norm - right.grad_norm) <= 1e-12 * right.grad_norm
        )
    assert relative_error(now.meta, exact.meta) <= 1e-12
    looked = 2 * looks(method)[0]  # in each of two chunks
    assert all(
        s["to the GPU"] == 1 and 1 <= s["to the host"] <= 1 + looked and "wait" not in s
        for s, _ in seen[2:]
    ), seen


def test_a_replayed_step_has_the_bits_of_a_launched_one_and_resumes_to_the_bit(
    cupy, on_cupy, tmp_path
):
    @dataclass(frozen=True)
    class Launched(rm.MAML):
        data_independent = False

    graphs, saved = [], []
    for dtype in (np.float32, np.float64):
        graphs.clear()
        launched, replayed = (
            recipe(on_cupy, Launched(**STEPS), dtype=dtype),
            recipe(on_cupy, dtype=dtype),
        )
        one = train(launched, launched.start(theta_of(launched, dtype)), steps=6)
        cupy.gpu.counts.clear()
        other = train(
            replayed,
            replayed.start(theta_of(replayed, dtype)),
            steps=4,
            save=saved.append,
            show=lambda now: graphs.append(cupy.gpu.counts["graph"]),
        )
        assert graphs == [0, 1, 2, 3] and all(
            type(a) is np.ndarray for p in saved for a in (p.meta, *p.state.values())
        )
        path = tmp_path / f"{np.dtype(dtype).name}.npz"
        checkpoint.save(path, saved[-1], {})
        again = train(replayed, checkpoint.load(path)[0], steps=6)
        assert other.step == 4 and np.array_equal(again.meta, one.meta)
        assert all(np.array_equal(again.state[name], one.state[name]) for name in one.state)
        assert [row[:4] for row in again.rows] == [row[:4] for row in one.rows] or np.isnan(
            one.rows[0].accuracy
        )
        assert [row.loss for row in again.rows] == [row.loss for row in one.rows]


def test_a_step_that_overflows_is_named_as_the_reference_names_it(cupy, on_cupy):
    said = []
    for k in (kernels.reference(), on_cupy):
        r = recipe(k, optimizer=SGD(), lr=1e200)
        with pytest.raises(rm.NonFiniteError, match="^meta-step 2: ") as raised:
            train(r, r.start(theta_of(r)), steps=5)
        said.append(str(raised.value))
    assert said[0] == said[1]


def test_a_run_that_is_stopped_saves_numpy_s_arrays(cupy, on_cupy):
    saved, r = [], recipe(on_cupy)

    def stop(now):
        if now.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(r, r.start(theta_of(r)), steps=9, show=stop, save=saved.append)
    assert (
        saved[-1].step == 3
        and type(saved[-1].meta) is np.ndarray
        and type(saved[-1].state["m"]) is np.ndarray
    )


# ---- too little memory --------------------------------------------------------------------------------------------------------------


def needed(cupy, act):
    """The most bytes that are held while acting."""
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
    """A case whose activations are most of its memory."""
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
    far, method, sizes = net.with_kernels(on_cupy), METHODS[0], []
    enough = method.meta_gradient(far, theta, batch)
    whole = needed(cupy, lambda: method.meta_gradient(far, theta, batch))

    @dataclass(frozen=True)
    class Noting(rm.MAML):
        def task_gradients(self, net, theta, batch, trace):
            sizes.append(len(batch))
            return super().task_gradients(net, theta, batch, trace)

    cupy.gpu.limit = whole * 2 // 5
    out = Noting(**STEPS).meta_gradient(far, theta, batch)
    assert np.array_equal(out.grad, enough.grad) and np.array_equal(
        out.task_losses, enough.task_losses
    )
    assert sizes == [8, 4, 2, 2, 2, 2] and cupy.gpu.counts["free_all_blocks"] == 2


def test_where_not_one_task_fits_it_is_one_clear_line(cupy, on_cupy):
    net, theta, batch = many()
    cupy.gpu.limit = 10_000
    with pytest.raises(
        OutOfMemoryError,
        match=r"^the GPU's memory: expected room for the tasks themselves, got Out of memory [^\n]*$",
    ):
        METHODS[0].meta_gradient(net.with_kernels(on_cupy), theta, batch)
    cupy.gpu.limit = 40_000
    with pytest.raises(
        OutOfMemoryError,
        match=r"^the GPU's memory: expected room for one task, got Out of memory allocating [\d,]+ bytes "
        r"\(allocated so far: [\d,]+ bytes\) \(recompute=True, [^\n]*\)$",
    ):
        METHODS[0].meta_gradient(net.with_kernels(on_cupy), theta, batch)


def test_evaluation_with_too_little_memory_gives_the_same_values(cupy, on_cupy):
    net, theta, batch = many()
    far = net.with_kernels(on_cupy)

    def held_out(tasks):
        return batch[tasks.start : tasks.stop]

    values = evaluate(far, METHODS[0], theta, held_out, 8, chunk=8).values
    done = []
    cupy.gpu.limit = (
        needed(cupy, lambda: evaluate(far, METHODS[0], theta, held_out, 8, chunk=8)) * 2 // 3
    )
    assert np.array_equal(
        evaluate(far, METHODS[0], theta, held_out, 8, chunk=8, show=done.append).values, values
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


# ---- what refmaml verify asks of it -------------------------------------------------------------------------------------------------


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
