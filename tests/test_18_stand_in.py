"""The stand-in for CuPy must detect misuse: it tests the engine without a GPU."""

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from cuda_shim.gpu_array import NUMPY_METHODS

pytestmark = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))
ONES = np.ones((2, 3))


# ---- what it refuses -----------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        np.asarray,
        np.isfinite,
        np.sqrt,
        np.zeros_like,
        lambda a: np.concatenate([a, a]),
        lambda a: np.where(a, a, a),
        lambda a: a + ONES,
        lambda a: ONES * a,
        lambda a: a.__setitem__(..., ONES),
        lambda a: a.__iadd__(ONES),
        lambda a: list(a[ONES]),
    ],
    ids=[
        "asarray",
        "isfinite",
        "sqrt",
        "zeros_like",
        "concatenate",
        "where",
        "a + n",
        "n * a",
        "a[...] = n",
        "a += n",
        "a[n]",
    ],
)
def test_operations_of_numpy_and_gpu_arrays_are_refused(cupy, use):
    with pytest.raises((TypeError, IndexError)):
        use(cupy.asarray(ONES))


def test_functions_refuse_numpy_arrays_and_lists(cupy):
    for use in (
        lambda: cupy.sqrt(ONES),
        lambda: cupy.asarray([1.0]),
        lambda: cupy.where(cupy.asarray(ONES) > 0, ONES, 0),
        lambda: cupy.concatenate([cupy.asarray(ONES), ONES]),
    ):
        with pytest.raises(TypeError, match="Unsupported type"):
            use()


def test_functions_that_cupy_lacks_or_computes_otherwise_are_absent(cupy):
    for name in ("errstate", "add", "divide", "result_type", "asfortranarray", "get_array_module"):
        assert not hasattr(cupy, name)
    with pytest.raises(AssertionError, match="two numbers of no precision"):
        cupy.where(cupy.asarray(ONES) > 0, 0.3, 0)


# ---- what it counts ------------------------------------------------------------------


@pytest.mark.parametrize(
    "use,what",
    [
        (lambda cupy, a: a.get(), "to the host"),
        (lambda cupy, a: cupy.asnumpy(a), "to the host"),
        (lambda cupy, a: bool(a.all()), "wait"),
        (lambda cupy, a: float(a.sum()), "wait"),
        (lambda cupy, a: a[a > 0], "wait"),
        (lambda cupy, a: cupy.asarray(ONES), "to the GPU"),
        (lambda cupy, a: a.set(ONES), "to the GPU"),
        (lambda cupy, a: a[:, np.array([0, 1])], "to the GPU"),
        (lambda cupy, a: cupy.stack([a] * 9), "to the GPU"),
        (lambda cupy, a: cupy.repeat(a[0], [1, 2, 0]), "wait"),
        (lambda cupy, a: cupy.cuda.Stream().synchronize(), "wait"),
    ],
    ids=[
        "get",
        "asnumpy",
        "bool",
        "float",
        "mask",
        "asarray",
        "set",
        "places",
        "nine arrays",
        "repeat",
        "synchronize",
    ],
)
def test_copies_and_waits_are_counted_and_refused_while_a_stream_is_capturing(cupy, use, what):
    a = cupy.asarray(ONES)
    cupy.gpu.counts.clear()
    use(cupy, a)
    assert {
        name: n
        for name, n in cupy.gpu.counts.items()
        if name in ("to the GPU", "to the host", "wait")
    } == {what: 1}
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    with pytest.raises(RuntimeError, match="capturing"):
        use(cupy, a)


@pytest.mark.parametrize(
    "use",
    [lambda cupy, a: a @ a[0], lambda cupy, a: cupy.einsum("ij,ij->i", a, a)],
    ids=["matmul", "einsum"],
)
def test_functions_that_call_cublas_are_refused_while_a_stream_is_capturing(cupy, use):
    a = cupy.asarray(ONES)
    assert use(cupy, a).get().tolist() == [3, 3]
    cupy.cuda.Stream(non_blocking=True).begin_capture()
    with pytest.raises(NotImplementedError, match="cuBLAS"):
        use(cupy, a)


def test_a_launch_is_not_counted_as_a_wait(cupy):
    a = cupy.asarray(ONES)
    cupy.gpu.counts.clear()
    b = (a + 1 - 2 * a) / 3
    b[:, 1:] = abs(-a[:, 1:])
    b *= cupy.where(a > 0, b, np.float64(0))
    (cupy.isfinite(b).all() & cupy.isfinite(a).any()).reshape(-1)
    assert set(cupy.gpu.counts) <= {"launch", "malloc"}


def test_freed_memory_is_handed_out_again_and_is_nan_until_it_is_written(cupy):
    a = cupy.full((5,), 7, np.float64)
    at = a.host.ctypes.data
    del a
    b = cupy.empty((5,), np.float64)
    assert b.host.ctypes.data == at and np.isnan(b.get()).all()


def test_all_names_of_the_stand_in_are_names_of_cupy(cupy, monkeypatch):
    monkeypatch.undo()
    real = pytest.importorskip("cupy")
    own = {"gpu", "run_kernel", "function"}
    for name in (
        n
        for n in {**vars(cupy), **vars(type(cupy))}
        if not n.startswith("_") and n not in own | {"using_allocator"}
    ):
        assert hasattr(real, name), name
    for name in vars(cupy.cuda):
        assert hasattr(real.cuda, name), f"cuda.{name}"
    for name in (
        *NUMPY_METHODS,
        *(
            n
            for n in vars(cupy.ndarray)
            if not n.startswith("_") and n not in ("computed", "view_of", "read_as")
        ),
    ):
        assert hasattr(real.ndarray, name), f"ndarray.{name}"
