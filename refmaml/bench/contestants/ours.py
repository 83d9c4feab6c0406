"""refmaml itself, as it comes."""

from refmaml import kernels as kernel_sets
from refmaml.bench.contestants.contestant import Contestant
from refmaml.bench.gpu import engine


def kernels_of(name, threads=None):
    """A kernel set by its name, on so many threads where it has threads."""
    make = getattr(kernel_sets, name)
    return make(threads) if threads is not None and name == "cpu" else make()


def contestant(kernels="cpu", threads=None):
    """refmaml on one of its kernel sets."""
    if kernels == "cuda":
        return on_gpu("refmaml", "refmaml (cuda)", engine.eager)

    def prepare(workload, dtype):
        net, method = workload.net().with_kernels(kernels_of(kernels, threads)), workload.method
        theta, batch = workload.theta(dtype), workload.batch(dtype)
        return lambda: method.meta_gradient(net, theta, batch).grad

    def first_use():
        from numba import njit

        njit("float32[::1](float32[::1])", cache=False)(lambda x: x * x)

    suffix = "" if threads is None else f"-{threads}"
    modules, use = (("numba",), first_use) if kernels == "cpu" else ((), bool)
    return Contestant(
        f"refmaml{suffix}",
        f"refmaml ({kernels})",
        modules,
        lambda workload: {},
        prepare,
        first_use=use,
    )


def on_gpu(name, title, prepare):
    """refmaml on the GPU, launch by launch or as a graph: what it returned stays there until it is fetched."""

    def nothing_to_choose(workload):
        return {}

    return Contestant(
        name,
        title,
        ("cupy",),
        nothing_to_choose,
        prepare,
        fetch=engine.fetch,
        finish=engine.finish,
        peak=engine.peak,
    )
