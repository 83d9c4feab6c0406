"""Everybody who takes part, one file each, behind one interface (contestant.py)."""
from importlib import import_module
from importlib.util import find_spec

from refmaml.bench.contestants import ours
from refmaml.errors import expect

PEERS = {"torch-loop": "torch_loop", "torch-vmap": "torch_vmap", "jax-map": "jax_map", "jax-vmap": "jax_vmap", "higher": "higher_loop"}


def find(name, kernels="cpu"):
    """The contestant of that name; `kernels` is what refmaml computes with, and "refmaml-2" is refmaml on 2 threads.

    Raises ArgumentError.
    """
    ours_, _, threads = name.partition("-")
    if ours_ == "refmaml" and (not threads or threads.isdigit()):
        return ours.contestant(kernels, int(threads) if threads else None)
    expect(name in PEERS or name == "sgemm", "--peers", f"some of {', '.join(PEERS)}", name)
    return import_module(f"refmaml.bench.contestants.{PEERS.get(name, name)}").CONTESTANT


def missing(contestant):
    """None where what it needs is installed, otherwise a line that says what is not. (Imported, it would stay in this process.)"""
    absent = [module for module in contestant.modules if find_spec(module) is None]
    return f"{' and '.join(absent)}: not installed; pip install 'refmaml[bench]' brings it" if absent else None
