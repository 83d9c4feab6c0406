"""The sum of outer products, and external functions that count no references."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels

numba = pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")

from numba.core.runtime import _nrt_python, rtsys  # noqa: E402

from refmaml.kernels.numba_runtime.external_functions import external  # noqa: E402
from refmaml.kernels.numba_runtime.gemm_microkernel import KMAX, accumulate  # noqa: E402
from refmaml.kernels.numba_runtime.preparation import prepare  # noqa: E402


@pytest.fixture(scope="module", params=["float32", "float64"])
def product(request):
    """c (R, W) += a (R, K) b (K, W) by the microkernel, or = if overwrite."""
    prepare([accumulate.external], request.param)

    @numba.njit(error_model="numpy")
    def run(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, k0, k1, width, overwrite):
        accumulate(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, k0, k1, width, overwrite)

    def of(c, a, b, overwrite, r0=0, r1=None):
        (R, K), W, line = a.shape, b.shape[1], c.shape[1]
        lists = np.arange(R) * line, np.arange(R) * K, np.arange(K), np.arange(K) * W
        rows_c, rows_a, steps_a, steps_b = (x.astype(np.int64) for x in lists)
        flat = c.reshape(-1), a.reshape(-1), b.reshape(-1)
        rows = r0, R if r1 is None else r1
        run(*flat, rows_c, rows_a, *rows, steps_a, steps_b, 0, K, W, overwrite)

    of.dtype = np.dtype(request.param)
    return of


@pytest.mark.parametrize("width", [1, 7, 8, 16, 17, 40])
@pytest.mark.parametrize("steps", [1, 10, 2 * KMAX + 5])
def test_any_number_of_rows_with_the_bits_of_each_row_alone(product, width, steps):
    rng = np.random.default_rng(0)
    gap = 3  # numbers behind each row of c that stay as they are
    for rows in range(1, 14):
        a, b, c = (rng.standard_normal(shape).astype(product.dtype)
                   for shape in ((rows, steps), (steps, width), (rows, width + gap)))  # fmt: skip
        for overwrite in (True, False):
            found, alone = c.copy(), c.copy()
            product(found, a, b, overwrite)
            for r in range(rows):
                product(alone, a, b, overwrite, r, r + 1)
            exact = a.astype(float) @ b + (0 if overwrite else c[:, :width])
            size = np.abs(a.astype(float)) @ np.abs(b) + np.abs(c[:, :width])
            # Each of `steps` additions rounds a number of at most that size.
            limit = steps * np.finfo(product.dtype).eps * size
            assert (np.abs(found[:, :width] - exact) <= limit).all()
            assert np.array_equal(found, alone) and np.array_equal(found[:, width:], c[:, width:])


# ---- references ----------------------------------------------------------------------


def test_a_function_that_allocates_has_to_say_so():
    @external("F[::1]", name="makes_an_array", allocates=False)
    def wrong(a):
        a[:] = np.empty(3, a.dtype)

    with pytest.raises(numba.core.errors.NumbaError):
        prepare([wrong.external], "float64", alone=True)


@pytest.mark.parametrize(
    "net",
    [
        rm.mlp((2, 9, 1)),
        rm.conv4(3, channels=4, image=(1, 8, 8)),  # batch-norm without gamma
        pytest.param(
            rm.conv4(3, channels=8, image=(1, 8, 8), norm="group"), marks=pytest.mark.slow
        ),  # fmt: skip
    ],
    ids=["mlp", "conv4", "group norm"],
)
def test_every_array_of_the_compiled_functions_is_freed(net):
    """A function that counts no references must not hold one that has to be given
    back."""
    rng, D = np.random.default_rng(0), net.output_shape(net.input_shape)[0]
    x = rng.standard_normal((2, 4, *net.input_shape))
    y = rng.standard_normal((2, 4, D)) if D == 1 else rng.integers(0, D, (2, 4))
    batch, theta = rm.Batch(x, y, x, y), net.init(0, float)
    net = net.with_kernels(kernels.cpu(threads=1))
    methods = rm.MAML(0.01, 2), rm.FirstOrderMAML(0.01)

    def compute():
        for method in methods:
            method.meta_gradient(net, theta, batch)
        primal = net.primal(theta[None], x, y)
        net.hvp(primal, np.ones_like(primal.grad))
        net.gauss_newton_product(primal, np.ones_like(primal.grad))

    compute()  # compiles
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        for _ in range(5):
            compute()
        after = rtsys.get_allocation_stats()
    finally:
        _nrt_python.memsys_disable_stats()
    made, freed = after.alloc - before.alloc, after.free - before.free
    assert made == freed > 0
