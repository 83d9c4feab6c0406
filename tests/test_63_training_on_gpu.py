"""Evaluation and training on arrays of a GPU.

On the stand-in for CuPy, as in test_62_on_gpu.py.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from gpu_cases import IMPLICIT, METHODS, STEPS, counted, name_of, reads_and_sends
from gpu_recipes import recipe, theta_of

import refmaml as rm
from refmaml import kernels
from refmaml.models import mlp
from refmaml.oracles.tolerance import relative_error
from refmaml.training import SGD, Adam, checkpoint, evaluate, train
from refmaml.training.meta_step import MetaStep

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))]


def test_evaluation_takes_a_copy_over_and_one_back_for_each_chunk(cupy, on_cupy):
    method, cpu_net, gpu_net = (
        METHODS[0],
        mlp((1, 3, 1), "tanh"),
        mlp((1, 3, 1), "tanh", kernels=on_cupy),
    )
    theta = cpu_net.init(0, np.float64)

    def held_out(tasks):
        return rm.Sinusoids().sample(tasks, 4, 5, seed=0, step=9, dtype=np.float64)

    exact = evaluate(cpu_net, method, theta, held_out, 5, chunk=2)
    evaluate(gpu_net, method, theta, held_out, 2)
    counted(cupy)
    result = evaluate(gpu_net, method, on_cupy.to_device(theta)[0], held_out, 5, chunk=2)
    assert counted(cupy) == {"to the GPU": 4, "to the host": 3}  # theta, and three chunks
    assert (
        result.quantity == exact.quantity and relative_error(result.values, exact.values) <= 1e-13
    )


def test_a_custom_meta_step_is_used_on_a_gpu_too(on_cupy):
    plain, steps, calls = recipe(on_cupy), MetaStep(), []

    def watched(recipe, now):
        calls.append(now.step)
        return steps(recipe, now)

    start = plain.start(theta_of(plain))
    assert (
        train(replace(plain, meta_step=watched), start, steps=4).meta.tobytes()
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
    seen, on_cpu, on_gpu = (
        [],
        recipe(kernels.reference(), method, optimizer),
        recipe(on_cupy, method, optimizer),
    )
    start = on_gpu.start(theta_of(on_gpu))
    counted(cupy)
    exact = train(on_cpu, on_cpu.start(theta_of(on_cpu)), steps=5)
    now = train(
        on_gpu,
        start,
        steps=5,
        show=lambda now: seen.append((counted(cupy), cupy.gpu.counts["graph"])),
    )
    assert type(now.meta) is np.ndarray
    for row, right in zip(now.rows, exact.rows, strict=True):
        assert (
            abs(row.loss - right.loss) <= 1e-12 * right.loss
            and abs(row.grad_norm - right.grad_norm) <= 1e-12 * right.grad_norm
        )
    assert relative_error(now.meta, exact.meta) <= 1e-12
    looked = 2 * reads_and_sends(method)[0]  # in each of two chunks
    assert all(
        s["to the GPU"] == 1 and 1 <= s["to the host"] <= 1 + looked and "wait" not in s
        for s, _ in seen[2:]
    ), seen


@pytest.mark.parametrize(
    "optimizer",
    [
        rm.SGD(momentum=0.9, dampening=0.5),
        rm.Clip(rm.AdamW(), norm=0.5),
        rm.Clip(rm.RMSprop(centered=True, momentum=0.5), norm=0.5, per_tensor=True),
        rm.Clip(rm.Adagrad(lr_decay=0.1), value=0.1),
    ],
    ids=str,
)
def test_every_rule_is_an_optimiser_on_a_gpu_and_in_its_graph(cupy, on_cupy, optimizer):
    """Dampening, bias corrections and lr_decay change with t: a graph reads them."""
    on_cpu = recipe(kernels.reference(), rm.MAMLPlusPlus(**STEPS), optimizer)
    on_gpu = recipe(on_cupy, rm.MAMLPlusPlus(**STEPS), optimizer)
    exact = train(on_cpu, on_cpu.start(theta_of(on_cpu)), steps=5)
    now = train(on_gpu, on_gpu.start(theta_of(on_gpu)), steps=5)
    assert cupy.gpu.counts["graph"] >= 3
    assert relative_error(now.meta, exact.meta) <= 1e-12
    assert now.state.keys() == exact.state.keys()
    for name, right in exact.state.items():
        assert relative_error(now.state[name], right) <= 1e-11


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
    errors = []
    for k in (kernels.reference(), on_cupy):
        r = recipe(k, optimizer=SGD(), lr=1e200)
        with pytest.raises(rm.NonFiniteError, match="^meta-step 2: ") as raised:
            train(r, r.start(theta_of(r)), steps=5)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]


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
