"""What the machine can do: products of matrices, and copies between arrays that no cache holds."""

import platform
from importlib import metadata
from time import perf_counter

import numpy as np

from refmaml.bench.timing import spread

SIZE, COPIED, REPEATS = (
    2048,
    1 << 28,
    5,
)  # rows of the matrices; bytes of the array that is copied; timings of each
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
    """Seconds of each call, after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        started = perf_counter()
        run()
        times.append(perf_counter() - started)
    return times


def product_rate(dtype, threads):
    """10^9 operations a second of C = A B, 2 n^3 operations, in NumPy's own BLAS on so many threads: the median."""
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE)).astype(dtype) for _ in range(2))
    c = np.empty_like(a)
    with threadpool_limits(threads, user_api="blas"):
        return 2 * SIZE**3 / 1e9 / spread(timings(lambda: np.matmul(a, b, out=c))).median


def copy_bandwidth(threads):
    """10^9 bytes a second, read and written, of copying an array far larger than the caches, in `threads` pieces at once."""
    from concurrent.futures import ThreadPoolExecutor

    pieces = np.array_split(np.ones(COPIED // 4, np.float32), threads)
    copies = [np.empty_like(piece) for piece in pieces]
    with ThreadPoolExecutor(threads) as pool:
        return (
            2
            * COPIED
            / 1e9
            / spread(timings(lambda: list(pool.map(np.copyto, copies, pieces)))).median
        )


def limits(threads):
    """{"sgemm": ..., "dgemm": ..., "copy": ...}, 10^9 operations or bytes a second, each on one thread and on all of them."""
    counts = sorted({1, threads})
    return {
        name: {n: measure(n) for n in counts}
        for name, measure in (
            ("sgemm", lambda n: product_rate(np.float32, n)),
            ("dgemm", lambda n: product_rate(np.float64, n)),
            ("copy", copy_bandwidth),
        )
    }


def installed(names):
    """{library: its version, or None where it is not installed}."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def versions():
    """The libraries of the processor's bench, and what the products ran on."""
    from threadpoolctl import threadpool_info

    found = installed(LIBRARIES)
    blas = [
        f"{p['internal_api']} {p['version']}, {p.get('architecture', '')}"
        for p in threadpool_info()
        if p["user_api"] == "blas"
    ]
    return found | {"blas": blas[0] if blas else None}
