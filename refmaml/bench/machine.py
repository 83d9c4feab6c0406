"""The machine's limits: matrix products, and copies of arrays larger than any cache."""

import platform
from importlib import metadata
from time import perf_counter

import numpy as np

from refmaml.bench.timing import spread

SIZE = 2048  # rows of the matrices
COPY_BYTES = 1 << 28  # bytes of the array that is copied
REPEATS = 5
LIBRARIES = (
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "torch",
    "jax",
    "jaxlib",
    "higher",
    "matplotlib",
)


def timings(run, repeats=REPEATS):
    """Seconds of each call, after one call that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        started = perf_counter()
        run()
        times.append(perf_counter() - started)
    return times


def product_rate(dtype, threads):
    """10^9 operations a second of C = A B (2 n^3) by NumPy's BLAS: the median."""
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE)).astype(dtype) for _ in range(2))
    c = np.empty_like(a)
    with threadpool_limits(threads, user_api="blas"):
        return 2 * SIZE**3 / 1e9 / spread(timings(lambda: np.matmul(a, b, out=c))).median


def copy_bandwidth(threads):
    """10^9 bytes a second, read and written, of a copy by threads: the median."""
    from concurrent.futures import ThreadPoolExecutor

    pieces = np.array_split(np.ones(COPY_BYTES // 4, np.float32), threads)
    copies = [np.empty_like(piece) for piece in pieces]
    with ThreadPoolExecutor(threads) as pool:
        times = timings(lambda: list(pool.map(np.copyto, copies, pieces)))
    return 2 * COPY_BYTES / 1e9 / spread(times).median


def limits(threads):
    """{"sgemm": {threads: rate}, "dgemm": ..., "copy": ...} on one thread and on all.

    Rates are 10^9 operations (sgemm, dgemm) or bytes (copy) a second.
    """
    counts = sorted({1, threads})
    measures = {
        "sgemm": lambda n: product_rate(np.float32, n),
        "dgemm": lambda n: product_rate(np.float64, n),
        "copy": copy_bandwidth,
    }
    return {name: {n: measure(n) for n in counts} for name, measure in measures.items()}


def installed_versions(names):
    """{distribution: its version, or None if it is not installed}, and Python's."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def versions():
    """Versions of the libraries that the bench uses on a CPU, and of NumPy's BLAS."""
    from threadpoolctl import threadpool_info

    blas = [
        f"{p['internal_api']} {p['version']}, {p.get('architecture', '')}"
        for p in threadpool_info()
        if p["user_api"] == "blas"
    ]
    return installed_versions(LIBRARIES) | {"blas": blas[0] if blas else None}
