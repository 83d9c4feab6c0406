"""The kinds of mistakes that are drawn: the type `Kind`, and the lines they replace."""

from dataclasses import replace
from typing import Any, NamedTuple

from arithmetic import mapped
from slip import Slip


class Kind(NamedTuple):
    """One kind of mistake, and what the doctor may say of it.

    make    (rng, right function, method) -> wrong function; it draws its numbers
    words   the diagnosis names the mistake if it contains one of them
    places  the diagnosis places the mistake if it contains one of them
    known   whether a dictionary has it; the others must be placed
    """

    name: str
    make: Any
    words: tuple = ()
    places: tuple = ()
    known: bool = True


def slip(**changes):
    """A make that sets fields of the Slip."""
    return lambda rng, fn, method: replace(fn, slip=Slip(**changes))


def drawn(make):
    """A make whose Slip depends on a number between 0 and 1."""
    return lambda rng, fn, method: replace(fn, slip=make(round(float(rng.uniform()), 2)))


def fields(**changes):
    """A make that sets fields of the function itself."""
    return lambda rng, fn, method: replace(fn, **changes)


# ---- one line each -------------------------------------------------------------------


def scaled(c):
    return lambda alpha, *_: mapped(lambda a: a * c, alpha)


def stopped(g, phi, start, lib, k):
    return mapped(lib.stopped, g)


def one_tensor(change, last=True):
    """gradient -> gradient with one tensor changed."""

    def changed(g, *more):
        name = list(g)[-1 if last else 0]
        return g | {name: change(g[name], *more)}

    return changed


def one_tensor_of_meta(change, last=True):
    def changed(g, lib):
        names = [n for n in g if not n.startswith("inner_lr.")]
        name = names[-1 if last else 0]
        return g | {name: change(g[name])}

    return changed


def clipped(c):
    return lambda g, phi, start, lib, k: mapped(lambda a: lib.clip(a, c), g)


def by_norm(c):
    def changed(g, phi, start, lib, k):
        norm = lib.sqrt(sum((a * a).sum() for a in g.values()))
        return mapped(lambda a: a * (c / (norm + 1e-6)), g)

    return changed


def with_both(task, *_):
    lib = _[-1]
    return lib.cat([task[0], task[2]]), lib.cat([task[1], task[3]])


def first_half(task, *_):
    n = len(task[0]) // 2
    return task[0][:n], task[1][:n]


def without_last_query(task, *_):
    return task[2][:-1], task[3][:-1]


def rolled(y):
    """y with its first entry at the end, for arrays of any library."""
    parts = y[1:], y[:1]
    if hasattr(y, "detach"):
        import torch

        return torch.cat(parts)
    if type(y).__module__.startswith("jax"):
        import jax.numpy as jnp

        return jnp.concatenate(parts)
    import numpy as np

    return np.concatenate(parts)


# ---- places --------------------------------------------------------------------------

WAY_BACK = ("way back", "Hessian-vector product", "second derivative", "whole inner step")
INNER = ("inner gradient", "inner step", "step")
QUERY = ("query gradient", "query set", "unseen")
MEAN = ("mean over tasks", "tasks are not independent")
