"""The implementations that the bench times: refmaml, its peers, and sgemm as a limit.

A file for each, behind one interface (implementation.py). torch_common.py and
jax_common.py hold what several of them share.
"""

from importlib import import_module
from importlib.util import find_spec

from refmaml.bench.gpu import engine
from refmaml.bench.implementations import cuda_peers, refmaml_kernels
from refmaml.errors import expect

PEERS = {
    "torch-loop": "torch_loop",
    "torch-vmap": "torch_vmap",
    "jax-map": "jax_map",
    "jax-vmap": "jax_vmap",
    "higher": "higher_loop",
}


def peers(kernels):
    """Names of the peers of refmaml on `kernels`. On a GPU they use that GPU, too."""
    return cuda_peers.NAMES if kernels == "cuda" else tuple(PEERS)


def find(name, kernels="cpu"):
    """The Implementation of that name; `kernels` is the kernel set of refmaml.

    "refmaml-2" is refmaml on 2 threads, "refmaml-graph" its CUDA graph.
    Raises ArgumentError for an unknown name.
    """
    library, _, variant = name.partition("-")
    if library == "refmaml" and (not variant or variant.isdigit()):
        return refmaml_kernels.implementation(kernels, int(variant) if variant else None)
    if name == "refmaml-graph":
        return refmaml_kernels.on_gpu(name, "refmaml, CUDA graph", engine.graph)
    if name in cuda_peers.NAMES:
        return cuda_peers.find(name)
    known = name in PEERS or name == "sgemm"
    expect(known, "--peers", f"some of {', '.join(peers(kernels))}", name)
    module = import_module(f"refmaml.bench.implementations.{PEERS.get(name, name)}")
    return module.IMPLEMENTATION


def missing(implementation):
    """None if its modules are installed, otherwise one line that says which are not.

    It does not import them: they would stay in this process.
    """
    absent = [module for module in implementation.modules if find_spec(module) is None]
    if not absent:
        return None
    return f"{' and '.join(absent)}: not installed; pip install 'refmaml[bench]' brings it"
