"""The CUDA kernels on a GPU.

Without a GPU these tests are skipped, with the reason. They have not run on one yet.
"""

import numpy as np
import pytest
from fused_layers import LARGE, SMALL, errors
from kernel_passes import CUDA_CASES, PRECISIONS, REFERENCE, draws, loss_passes, passes, worst
from vector_passes import vectors_passes, worst_dot

from refmaml import kernels
from refmaml.kernels.cuda_runtime.launcher import VERSIONS
from refmaml.layers import BatchNorm2d, Conv2d, Linear
from refmaml.methods import MAML
from refmaml.models import conv4
from refmaml.oracles import cases, kernel_checks
from refmaml.oracles.tolerance import relative_error, tolerance
from refmaml.training import Adam, Recipe, Schedule, train

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cuda():
    try:
        return kernels.cuda(xp=np)
    except (ImportError, RuntimeError) as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_every_pass_of_every_layer_agrees_with_the_reference(cuda, dtype):
    for case in CUDA_CASES:
        for version in VERSIONS if isinstance(case.layer, (Conv2d, Linear)) else VERSIONS[-1:]:
            for tasks, shared in ((3, False), (2, True), (1, False)):
                fraction, name = worst(
                    case, kernels.cuda(version=version, xp=np), *draws(case, tasks, shared, dtype)
                )
                assert fraction <= 1, f"{case}, v{version}, {name}: {fraction} of the tolerance"


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_fused_layers_agree_with_the_layers_they_stand_for(cuda, dtype):
    for case in SMALL + LARGE:
        found = errors(case, cuda, 3, False, dtype)
        assert max(found.values()) <= 1, f"{case}: {found}"


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_losses_and_vectors_agree_with_the_reference(cuda, dtype):
    for loss in cases.LOSSES:
        for a, b in zip(
            loss_passes(loss, REFERENCE, dtype), loss_passes(loss, cuda, dtype), strict=True
        ):
            assert b.dtype == dtype and relative_error(b, a) <= tolerance(dtype, 16)
    truth = vectors_passes(REFERENCE, dtype)
    for name, value in vectors_passes(cuda, dtype).items():
        assert np.array_equal(value, truth[name]), name
    assert max(worst_dot(cuda, dtype, P=P) for P in (1, 5000, 200_001)) <= 1


@pytest.mark.parametrize(
    "layer,shape",
    [(Conv2d(9, 70, 3, padding=1), (9, 14, 14)), (BatchNorm2d(5), (5, 14, 14))],
    ids=["convolution", "batch-norm"],
)
def test_a_hundred_runs_give_the_same_bits(cuda, layer, shape):
    case = cases.LayerCase(layer, shape)
    inputs = draws(case, 4, False, np.float32)
    first = passes(case, cuda, *inputs)
    for _ in range(99):
        again = passes(case, cuda, *inputs)
        assert all(np.array_equal(first[name], again[name]) for name in first)


def test_arrays_of_cupy_are_used_in_place(cuda):
    cupy = pytest.importorskip("cupy")
    rng, on_cupy = np.random.default_rng(0), kernels.cuda()
    x, w = rng.standard_normal((2, 3, 4, 6, 5)), rng.standard_normal((1, 7, 4, 3, 3))
    y, on_gpu = np.empty((2, 3, 7, 4, 3)), on_cupy.empty((2, 3, 7, 4, 3), np.float64)
    cuda.conv2d_forward(y, x, w, (1, 1), ((0, 0), (0, 0)))
    on_cupy.conv2d_forward(on_gpu, cupy.asarray(x), cupy.asarray(w), (1, 1), ((0, 0), (0, 0)))
    assert isinstance(on_gpu, cupy.ndarray) and np.array_equal(cupy.asnumpy(on_gpu), y)


# ---- whole methods on arrays of the GPU ----------------------------------------------


@pytest.fixture
def gpu_kernels(cuda):
    return kernels.cuda()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_every_method_agrees_with_the_reference_and_replays_to_the_bit(gpu_kernels, dtype):
    for check in kernel_checks.methods_elsewhere(gpu_kernels, REFERENCE, dtype):
        assert check.passed, check


def test_a_replayed_training_step_has_the_bits_of_a_launched_one(gpu_kernels):
    net = conv4(3, channels=4, image=(1, 14, 14), kernels=gpu_kernels)

    def trained(method):
        recipe = Recipe(net, method, Adam(), Schedule(1e-3), lambda step: tasks[step], None)
        return train(recipe, recipe.start(recipe.net.init(0)), steps=len(tasks))

    class Launched(MAML):
        data_independent = False

    tasks = [
        cases.tasks_for(net, np.random.default_rng(step), 4).astype(np.float32) for step in range(6)
    ]
    one, other = trained(Launched(0.1, 2)), trained(MAML(0.1, 2))
    assert np.array_equal(one.meta, other.meta) and [row.loss for row in one.rows] == [
        row.loss for row in other.rows
    ]


def test_with_too_little_memory_fewer_tasks_run_at_a_time_with_the_same_bits(gpu_kernels):
    net, pool = (
        conv4(3, channels=16, image=(1, 28, 28), kernels=gpu_kernels),
        gpu_kernels.xp.get_default_memory_pool(),
    )
    theta, batch = (
        net.init(0),
        cases.tasks_for(net, np.random.default_rng(0), 16).astype(np.float32),
    )
    pool.free_all_blocks()
    enough = MAML(0.1, 3).meta_gradient(net, theta, batch).grad
    needed = pool.total_bytes()
    pool.free_all_blocks()
    pool.set_limit(size=needed // 2)
    try:
        assert np.array_equal(MAML(0.1, 3).meta_gradient(net, theta, batch).grad, enough)
    finally:
        pool.set_limit(size=0)
