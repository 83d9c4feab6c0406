"""What uses CuPy directly: transfers and CUDA graphs."""

import gc
from contextlib import suppress

import numpy as np
import pytest
from cuda_shim.build import ABSENT

from refmaml import kernels
from refmaml.kernels.cuda_runtime.graph import Graph
from refmaml.kernels.cuda_runtime.transfer import ALIGN, Numbers, Parcel, send

pytestmark = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))


# ---- transfers -----------------------------------------------------------------------


def mixed():
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal((3, 5)).astype(np.float32),
        rng.integers(0, 9, (2, 1, 3)),
        np.float64(2.5).reshape(()),
        rng.standard_normal((4, 6))[:, ::2],
        np.array([True, False]),
        np.empty((0, 3)),
    ]


def test_arrays_of_all_kinds_are_sent_in_one_copy(cupy):
    arrays = mixed()
    brought = send(cupy, arrays)
    assert cupy.gpu.counts["to the GPU"] == 1
    for a, b in zip(arrays, brought, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape) and np.array_equal(a, b.get())
    assert all(start % ALIGN == 0 for start in Parcel(arrays).starts)


def test_small_arrays_are_fetched_in_one_copy_with_their_dtypes(cupy):
    arrays = mixed()
    numbers = Numbers(cupy, send(cupy, arrays))
    cupy.gpu.counts.clear()
    back = numbers.fetch()
    assert cupy.gpu.counts == {"to the host": 1}
    assert all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(arrays, back, strict=True)
    )


def test_arrays_of_the_gpu_are_not_sent_again(cupy):
    k, a = kernels.cuda(), np.ones(3)
    (on_gpu,) = k.to_device(a)
    cupy.gpu.counts.clear()
    same, other = k.to_device(on_gpu, 2 * a)
    assert (
        same is on_gpu
        and cupy.gpu.counts["to the GPU"] == 1
        and np.array_equal(k.to_host(other), 2 * a)
    )
    assert (
        isinstance(k.match_input(on_gpu, a), np.ndarray) and k.match_input(on_gpu, on_gpu) is on_gpu
    )


def test_many_arrays_are_concatenated_without_a_table_of_addresses(cupy):
    k = kernels.cuda()
    parts = [np.full((2, i + 1), i, np.float32) for i in range(11)]
    on_gpu = k.to_device(*parts)
    cupy.gpu.counts.clear()
    joined = k.concatenate(on_gpu, axis=1)
    assert "to the GPU" not in cupy.gpu.counts and np.array_equal(
        k.to_host(joined), np.concatenate(parts, 1)
    )


# ---- graphs --------------------------------------------------------------------------


def squares(a, b):
    """Work with temporaries of several sizes."""
    c = a * a + 1
    d = (c[:, :1] * b).sum(axis=0)
    return [c * 2, d], [d.sum(), (c > 2).all()]


def expected(a, b):
    c = a * a + 1
    d = (c[:, :1] * b).sum(axis=0)
    return [c * 2, d], [d.sum(), (c > 2).all()]


def test_a_graph_replays_on_other_contents_and_changes_no_other_memory(cupy):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 4, 5))
    (on_gpu,) = send(cupy, [b[0]])
    graph, earlier = Graph(cupy, squares, [a[0], on_gpu]), []
    assert cupy.gpu.counts["malloc while capturing"] == 0
    other_arrays = [
        (cupy.full(shape, 3, np.float64), 3) for shape in ((4, 3), (4, 1), (4, 5), (5,), (), (4, 3))
    ]
    for i in (1, 0, 1):
        (on_gpu,) = send(cupy, [b[i]])
        cupy.gpu.counts.clear()
        kept, small = graph(a[i], on_gpu)
        assert (
            cupy.gpu.counts["to the GPU"]
            == cupy.gpu.counts["to the host"]
            == cupy.gpu.counts["graph"]
            == 1
            == cupy.gpu.counts["order"]
        )
        assert cupy.gpu.counts["wait"] == 0
        earlier.append((kept, expected(a[i], b[i])[0]))
        for x, y in zip(
            [*kept, *small], [*expected(a[i], b[i])[0], *expected(a[i], b[i])[1]], strict=True
        ):
            assert np.array_equal(x if isinstance(x, np.ndarray) else x.get(), y)
        for kept, right in earlier:
            assert all(np.array_equal(x.get(), y) for x, y in zip(kept, right, strict=True)), (
                "an earlier result was overwritten"
            )
        assert all((x.get() == value).all() for x, value in other_arrays), (
            "memory of another array was overwritten"
        )


def test_a_graph_without_a_pool_of_its_own_is_noticed(cupy, monkeypatch):
    """In the shared pool, the memory that a graph writes to is handed out again."""
    monkeypatch.setattr(cupy.cuda, "MemoryPool", lambda: cupy.gpu.default)
    with pytest.raises(AssertionError):
        test_a_graph_replays_on_other_contents_and_changes_no_other_memory(cupy)


def test_a_graph_that_returns_its_own_arrays_is_noticed(cupy, monkeypatch):
    monkeypatch.setattr(cupy.ndarray, "copy", lambda a: a)
    with pytest.raises(AssertionError, match="an earlier result was overwritten"):
        test_a_graph_replays_on_other_contents_and_changes_no_other_memory(cupy)


@pytest.mark.parametrize(
    "look",
    [
        lambda cupy, a: bool(a.all()),
        lambda cupy, a: a.get(),
        lambda cupy, a: cupy.asarray(np.ones(2)),
        lambda cupy, a: cupy.stack([a] * 9),
        lambda cupy, a: cupy.einsum("ij,ij->i", a, a),
    ],
    ids=["bool", "get", "asarray", "nine arrays", "cuBLAS"],
)
def test_work_that_reads_the_gpu_cannot_be_captured(cupy, look):
    def work(a):
        look(cupy, a)
        return [a], []

    with pytest.raises((RuntimeError, NotImplementedError), match="captur"):
        Graph(cupy, work, [np.ones((2, 2))])
    assert not cupy.gpu.capturing


def leaked(cupy, work):
    """Bytes that a deleted graph of this work leaves allocated."""
    before = cupy.gpu.counts["leaked"]
    with suppress(ValueError):
        graph = Graph(cupy, work, [np.ones(3)])
        graph(np.zeros(3))
        del graph
    gc.collect()
    return cupy.gpu.counts["leaked"] - before


def test_a_graph_releases_its_memory_even_if_its_capture_failed(cupy, monkeypatch):
    def failing(a):
        b = a + 1
        raise ValueError(b.shape)

    works = [lambda a: ([a + 1], [a * 2]), failing]
    assert [leaked(cupy, work) for work in works] == [0, 0]
    monkeypatch.delattr(Graph, "__del__")
    assert all(leaked(cupy, work) > 0 for work in works)


@pytest.mark.parametrize(
    "sizes, captures", [([7], 1), ([7, 900], 2), ([7, 900, 3000, 40_000, 500_000, 1], 4)]
)
def test_a_capture_during_which_the_pool_grew_is_repeated(cupy, sizes, captures):
    """Run number i allocates sizes[i] bytes; the first run is before the capture.

    A function whose memory keeps growing raises OutOfMemoryError.
    """
    runs = []

    def work(a):
        cupy.empty(sizes[min(len(runs), len(sizes) - 1)], np.uint8)
        runs.append(1)
        return [a + 1], []

    if sizes[-1] == 1:
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
            Graph(cupy, work, [np.ones(3)])
    else:
        graph = Graph(cupy, work, [np.ones(3)])
        assert graph(np.full(3, 2.0))[0][0].get().tolist() == [3, 3, 3]
    assert len(runs) == 1 + captures


def test_a_graph_fits_arrays_of_the_captured_shapes_and_dtypes(cupy):
    graph = Graph(cupy, lambda a: ([a + 1], []), [np.ones(3)])
    assert (
        graph.fits([np.zeros(3)])
        and not graph.fits([np.zeros(4)])
        and not graph.fits([np.zeros(3, np.float32)])
    )
