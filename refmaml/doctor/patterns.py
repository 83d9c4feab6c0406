"""What can be said of a wrong gradient by looking at it, tensor by tensor, beside the right one."""

import numpy as np

from refmaml.doctor import scale_factors
from refmaml.doctor.matching import ACCEPTED, Explained, fitted, misfit_of_truth
from refmaml.doctor.mistakes import Mistake, fix
from refmaml.methods import IMAML

CUT = fix(
    "keep the parameters in the graph of the query loss",
    torch="no .data, .detach(), copy.deepcopy or torch.no_grad() between the "
    "parameters and the query loss; with higher: copy_initial_weights=False, track_higher_grads=True",
    jax="differentiate with respect to the parameters themselves, not a copy held in a closure",
    numpy="return the last adjoint lam_0, not the buffer it should have been added to",
)
ANCHOR = fix(
    "phi* must depend on theta through the proximal term: theta is an argument, not only where the solver starts"
)


def structural(cases, answers):
    """[Explained] for what is seen without a candidate: nothing at all, tensors without a gradient, another order, clipping, own scales."""
    for look in (nothing, another_order, clipped, by_tensor):
        found = look(cases, answers)
        if found:
            return found
    return []


def said(row, name, how, misfit=0.0):
    return Explained((Mistake(row, name, None, how),), "", misfit)


def nothing(cases, answers):
    """No gradient at all: None, or zeros."""
    if any(a.grad.any() for a in answers):
        return []
    empty = all(len(a.absent) > 0 for a in answers)
    what = (
        "no gradient came back (None for every parameter)"
        if empty
        else "the gradient is 0 everywhere"
    )
    found = [said("2-4", f"{what}: the graph is cut between parameters and query loss", CUT)]
    if isinstance(cases[0].method, IMAML):
        found = [
            said(
                "36",
                f"{what}: theta is only where the inner solver starts, or is held in a closure",
                ANCHOR,
            ),
            *found,
            said("35", f"{what}: CG ran for no iteration", fix("let CG iterate")),
        ]
    return found


def another_order(cases, answers):
    """A flat vector with its names in alphabetical order, as JAX sorts a dict."""

    def reordered(case, g):
        out, at = np.empty_like(g), 0
        for name in sorted(case.places):
            place = case.places[name]
            out[place] = g[at : at + place.size].reshape(place.shape)
            at += place.size
        return out

    if not any(sorted(case.places) != list(case.places) for case in cases):
        return []
    worst = max(
        misfit_of_truth(case, reordered(case, a.grad))
        for case, a in zip(cases, answers, strict=True)
    )
    text = "the flat vector has its parameters in alphabetical order"
    return (
        [said("order", text, fix("return a dict by name, or the order of params"), worst)]
        if worst <= ACCEPTED
        else []
    )


def clipped(cases, answers):
    """The outer gradient cut to [-c, c], c the largest entry returned; or shrunk to one norm on every case."""
    limits = [np.abs(a.grad).max() for a in answers]
    off = [
        np.abs((np.clip(case.truth, -c, c) - a.grad) / case.allowed).max()
        for case, a, c in zip(cases, answers, limits, strict=True)
    ]
    cut = [
        np.sum(np.abs(case.truth) > c * (1 + 1e-6)) for case, c in zip(cases, limits, strict=True)
    ]
    biting = [c for c, n in zip(limits, cut, strict=True) if n > 0]
    text = fix("clip after the check, outside of the meta-gradient")
    if max(off) <= ACCEPTED and biting and np.ptp(biting) <= 1e-6 * max(biting):
        return [
            said(
                "26",
                f"the meta-gradient's entries are clipped to [-{biting[0]:.4g}, {biting[0]:.4g}]",
                text,
                max(off),
            )
        ]
    fits = [fitted(case, a.grad, case.truth) for case, a in zip(cases, answers, strict=True)]
    sizes = [
        np.linalg.norm(a.grad)
        for a, f in zip(answers, fits, strict=True)
        if abs(f.scale - 1) > 1e-6
    ]
    if (
        max(f.misfit for f in fits) <= ACCEPTED
        and len(sizes) > 1
        and np.ptp(sizes) <= 1e-3 * max(sizes)
        and min(f.scale for f in fits) > 0
    ):
        return [
            said(
                "26",
                f"the meta-gradient is clipped to norm {sizes[0]:.4g}",
                text,
                max(f.misfit for f in fits),
            )
        ]
    return []


def by_tensor(cases, answers):
    """Some tensors right and the others each a multiple of what they should be: 0, or one factor."""
    found = {}
    for case, a in zip(cases, answers, strict=True):
        for name, place in case.places.items():
            g, t, allowed = a.grad[place], case.truth[place], case.allowed[place]
            if np.abs((g - t) / allowed).max() <= 1 or np.abs(t).max() <= allowed.max():
                continue
            s = float((g * t).sum() / (t * t).sum())
            if np.abs((g - s * t) / allowed).max() > ACCEPTED:
                return []
            found.setdefault(name, []).append((case, s))
    if not found or len(found) == len({name for case in cases for name in case.places}):
        return []
    named = {
        name: scale_factors.name_of([c for c, _ in seen], [s for _, s in seen])
        for name, seen in found.items()
    }
    zero = [name for name, seen in found.items() if all(s == 0 for _, s in seen)]
    if len(zero) == len(found):
        what = (
            "no gradient came back (None)"
            if any(a.absent for a in answers)
            else "the gradient is 0"
        )
        return [said("41", f"{', '.join(zero)}: {what}, all others are right", CUT)]
    if any(n is None for n in named.values()) or len(set(n[0] for n in named.values())) > 1:
        return []
    first = next(iter(named.values()))
    return [
        said(
            "tensor",
            f"{', '.join(found)}: the right gradient times {first[0]}; all others are right",
            fix(),
        )
    ]
