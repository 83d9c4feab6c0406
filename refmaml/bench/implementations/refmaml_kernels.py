"""refmaml itself, on one of its kernel sets."""

from refmaml import kernels as kernel_sets
from refmaml.bench.gpu import engine
from refmaml.bench.implementations.implementation import EVERY_METHOD, Implementation, no_choices


def kernel_set_by_name(name, threads=None):
    """A kernel set by its name. threads: of the cpu kernels; other sets ignore it."""
    make = getattr(kernel_sets, name)
    return make(threads) if threads is not None and name == "cpu" else make()


def implementation(kernels="cpu", threads=None):
    """refmaml on one of its kernel sets."""
    if kernels == "cuda":
        return on_gpu("refmaml", "refmaml (cuda)", engine.eager)

    def prepare(workload, dtype):
        net = workload.net().with_kernels(kernel_set_by_name(kernels, threads))
        method, theta, batch = workload.method, workload.theta(dtype), workload.batch(dtype)
        return lambda: method.meta_gradient(net, theta, batch).grad

    def first_use():
        from numba import njit

        njit("float32[::1](float32[::1])", cache=False)(lambda x: x * x)

    name = "refmaml" if threads is None else f"refmaml-{threads}"
    modules, use = (("numba",), first_use) if kernels == "cpu" else ((), bool)
    return Implementation(
        name,
        f"refmaml ({kernels})",
        modules,
        no_choices,
        prepare,
        first_use=use,
        methods=EVERY_METHOD,
    )


def on_gpu(name, title, prepare):
    """refmaml on the GPU, eagerly or as a CUDA graph. Its results stay on the GPU."""
    return Implementation(
        name,
        title,
        ("cupy",),
        no_choices,
        prepare,
        to_host=engine.to_host,
        synchronize=engine.synchronize,
        peak_memory=engine.peak_memory,
        methods=EVERY_METHOD,
    )
