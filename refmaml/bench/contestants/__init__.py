"""Everybody who takes part, one file each, behind one interface (contestant.py)."""

from importlib import import_module
from importlib.util import find_spec

from refmaml.bench.contestants import cuda_peers, ours
from refmaml.bench.gpu import engine
from refmaml.errors import expect

PEERS = {
    "torch-loop": "torch_loop",
    "torch-vmap": "torch_vmap",
    "jax-map": "jax_map",
    "jax-vmap": "jax_vmap",
    "higher": "higher_loop",
}


def peers(kernels):
    """The names of those refmaml is held against where it computes with `kernels`: on a GPU those that are on it too."""
    return cuda_peers.NAMES if kernels == "cuda" else tuple(PEERS)


def find(name, kernels="cpu"):
    """The contestant of that name; `kernels` is what refmaml computes with: "refmaml-2" is refmaml on 2 threads, "refmaml-graph" its
    CUDA graph.

    Raises ArgumentError.
    """
    ours_, _, how = name.partition("-")
    if ours_ == "refmaml" and (not how or how.isdigit()):
        return ours.contestant(kernels, int(how) if how else None)
    if name == "refmaml-graph":
        return ours.on_gpu(name, "refmaml, CUDA graph", engine.graph)
    if name in cuda_peers.NAMES:
        return cuda_peers.find(name)
    expect(
        name in PEERS or name == "sgemm", "--peers", f"some of {', '.join(peers(kernels))}", name
    )
    return import_module(f"refmaml.bench.contestants.{PEERS.get(name, name)}").CONTESTANT


def missing(contestant):
    """None where what it needs is installed, otherwise a line that says what is not. (Imported, it would stay in this process.)"""
    absent = [module for module in contestant.modules if find_spec(module) is None]
    return (
        f"{' and '.join(absent)}: not installed; pip install 'refmaml[bench]' brings it"
        if absent
        else None
    )
