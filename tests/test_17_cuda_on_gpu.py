"""The CUDA kernels on a GPU. Without one these tests are skipped, with the reason; they have not yet run on one."""
import numpy as np
import pytest
from fused_layers import LARGE, SMALL, errors
from kernel_passes import CUDA_CASES, PRECISIONS, REFERENCE, draws, loss_passes, passes, vectors_passes, worst

from refmaml import kernels
from refmaml.kernels.launcher import VERSIONS
from refmaml.layers import BatchNorm2d, Conv2d, Linear
from refmaml.oracles import cases
from refmaml.oracles.tolerance import relative_error, tolerance


@pytest.fixture(scope="module")
def cuda():
    try:
        return kernels.cuda()
    except (ImportError, RuntimeError) as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_every_pass_of_every_layer_agrees_with_the_reference(cuda, dtype):
    for case in CUDA_CASES:
        for version in VERSIONS if isinstance(case.layer, (Conv2d, Linear)) else VERSIONS[-1:]:
            for tasks, shared in ((3, False), (2, True), (1, False)):
                fraction, name = worst(case, kernels.cuda(version=version), *draws(case, tasks, shared, dtype))
                assert fraction <= 1, f"{case}, v{version}, {name}: {fraction} of the tolerance"


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_fused_layers_agree_with_the_layers_they_stand_for(cuda, dtype):
    for case in SMALL + LARGE:
        found = errors(case, cuda, 3, False, dtype)
        assert max(found.values()) <= 1, f"{case}: {found}"


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_losses_and_vectors_agree_with_the_reference(cuda, dtype):
    for loss in cases.LOSSES:
        for a, b in zip(loss_passes(loss, REFERENCE, dtype), loss_passes(loss, cuda, dtype), strict=True):
            assert b.dtype == dtype and relative_error(b, a) <= tolerance(dtype, 16)
    truth = vectors_passes(REFERENCE, dtype)
    for name, value in vectors_passes(cuda, dtype).items():
        assert np.array_equal(value, truth[name]), name


@pytest.mark.parametrize("layer,shape", [(Conv2d(9, 70, 3, padding=1), (9, 14, 14)), (BatchNorm2d(5), (5, 14, 14))],
                         ids=["convolution", "batch-norm"])
def test_a_hundred_runs_give_the_same_bits(cuda, layer, shape):
    case = cases.LayerCase(layer, shape)
    inputs = draws(case, 4, False, np.float32)
    first = passes(case, cuda, *inputs)
    for _ in range(99):
        again = passes(case, cuda, *inputs)
        assert all(np.array_equal(first[name], again[name]) for name in first)


def test_cupy_s_arrays_are_used_where_they_are(cuda):
    cupy = pytest.importorskip("cupy")
    rng, here = np.random.default_rng(0), kernels.cuda(xp=cupy)
    x, w = rng.standard_normal((2, 3, 4, 6, 5)), rng.standard_normal((1, 7, 4, 3, 3))
    y, on_gpu = np.empty((2, 3, 7, 4, 3)), here.empty((2, 3, 7, 4, 3), np.float64)
    cuda.conv2d_forward(y, x, w, (1, 1), ((0, 0), (0, 0)))
    here.conv2d_forward(on_gpu, cupy.asarray(x), cupy.asarray(w), (1, 1), ((0, 0), (0, 0)))
    assert isinstance(on_gpu, cupy.ndarray) and np.array_equal(cupy.asnumpy(on_gpu), y)
