"""What a wrong gradient shows without a candidate, compared with the right one tensor
by tensor."""

import numpy as np

from refmaml.doctor import scale_factors
from refmaml.doctor.matching import ACCEPTED, Explanation, fit_scale, misfit_of_truth
from refmaml.doctor.method_table import IMPLICIT, entry
from refmaml.doctor.mistakes import Mistake, fix

CUT = fix(
    "keep the parameters in the graph of the query loss",
    torch="no .data, .detach(), copy.deepcopy or torch.no_grad() between the "
    "parameters and the query loss; with higher: copy_initial_weights=False, "
    "track_higher_grads=True",
    jax="differentiate with respect to the parameters themselves, not a copy held in a closure",
    numpy="return the last adjoint lam_0, not the buffer it should have been added to",
)
ANCHOR = fix(
    "phi* must depend on theta through the proximal term: theta is an argument, "
    "not only where the solver starts"
)
CLIP_LATER = fix("clip after the check, outside of the meta-gradient")
NAMES = fix("return a dict by name, or the order of params")


def absent(names):
    """A remark on parameters without a gradient, beside another mistake."""
    return (
        f"no gradient came back (None) for {', '.join(names)}; the rest is judged as if these "
        f"were not meta-learned: {not_learned(names)['']}"
    )


def not_learned(names):
    """The fix of parameters without a gradient: declare them, or keep their graph."""
    listed = ", ".join(map(repr, names)) + ("," if len(names) == 1 else "")
    declare = (
        f"right if {'they are' if len(names) > 1 else 'it is'} not meta-learned: then declare "
        f"not_meta_learned=({listed})"
    )
    otherwise = {"": CUT[""], "torch": f"{CUT['']}; {CUT['torch']}"} | {
        name: CUT[name] for name in ("jax", "numpy")
    }
    return {name: f"{declare}; else {text}" for name, text in otherwise.items()}


def explain_by_pattern(cases, answers):
    """[Explanation]: another order, clipping, or tensors with factors of their own."""
    return (
        alphabetical_order(cases, answers)
        or clipped_entries(cases, answers)
        or clipped_norm(cases, answers)
        or tensors_off(cases, answers)
    )


def explanation(row, name, advice, misfit=0.0):
    """[Explanation] by one mistake that is no candidate of the dictionary."""
    return [Explanation((Mistake(row, name, None, advice),), "", misfit)]


def explain_no_gradient(cases, answers):
    """[Explanation] of no gradient at all: None, or zeros."""
    if any(a.grad.any() for a in answers):
        return []
    what = "the gradient is 0 everywhere"
    if all(len(a.absent) > 0 for a in answers):
        what = "no gradient came back (None for every parameter)"
    cut = f"{what}: the graph is cut between parameters and query loss"
    found = explanation("2-4", cut, CUT)
    if entry(cases[0].method).kind == IMPLICIT:
        start = f"{what}: theta is only where the inner solver starts, or is held in a closure"
        no_iteration = f"{what}: CG ran for no iteration"
        found = [
            *explanation("36", start, ANCHOR),
            *found,
            *explanation("35", no_iteration, fix("let CG iterate")),
        ]
    return found


def alphabetical_order(cases, answers):
    """A flat vector with its names in alphabetical order, as JAX sorts a dict."""

    def reordered(case, g):
        out, at = np.empty_like(g), 0
        for name in sorted(case.places):
            place = case.places[name]
            out[place] = g[at : at + place.size].reshape(place.shape)
            at += place.size
        return out

    if all(sorted(case.places) == list(case.places) for case in cases):
        return []
    pairs = zip(cases, answers, strict=True)
    misfit = max(misfit_of_truth(case, reordered(case, a.grad)) for case, a in pairs)
    if misfit > ACCEPTED:
        return []
    text = "the flat vector has its parameters in alphabetical order"
    return explanation("order", text, NAMES, misfit)


def clipped_entries(cases, answers):
    """The true gradient with entries clipped to [-c, c], c the same on every case.

    On each case c is the largest entry returned; cases without a clipped entry do not
    count.
    """
    limits = [np.abs(a.grad).max() for a in answers]
    misfit, active = 0.0, []
    for case, a, c in zip(cases, answers, limits, strict=True):
        off = np.abs((np.clip(case.truth, -c, c) - a.grad) / case.allowed).max()
        misfit = max(misfit, float(off))
        if (np.abs(case.truth) > c * (1 + 1e-6)).any():
            active.append(c)
    if misfit > ACCEPTED or not active or np.ptp(active) > 1e-6 * max(active):
        return []
    c = f"{active[0]:.4g}"
    text = f"the meta-gradient's entries are clipped to [-{c}, {c}]"
    return explanation("26", text, CLIP_LATER, misfit)


def clipped_norm(cases, answers):
    """The true gradient shrunk to one norm on every case where it is shrunk at all."""
    fits = [fit_scale(case, a.grad, case.truth) for case, a in zip(cases, answers, strict=True)]
    norms = [
        np.linalg.norm(a.grad)
        for a, f in zip(answers, fits, strict=True)
        if abs(f.scale - 1) > 1e-6
    ]
    misfit = max(f.misfit for f in fits)
    one_norm = len(norms) > 1 and np.ptp(norms) <= 1e-3 * max(norms)
    if misfit > ACCEPTED or not one_norm or min(f.scale for f in fits) <= 0:
        return []
    text = f"the meta-gradient is clipped to norm {norms[0]:.4g}"
    return explanation("26", text, CLIP_LATER, misfit)


def tensors_off(cases, answers):
    """Some tensors right, and each other one the right tensor times 0 or one factor."""
    factors = factors_of_tensors(cases, answers)
    if not factors or len(factors) == len({name for case in cases for name in case.places}):
        return []
    zero = [name for name, seen in factors.items() if all(s == 0 for _, s in seen)]
    if len(zero) == len(factors):
        absent = any(a.absent for a in answers)
        what = "no gradient came back (None)" if absent else "the gradient is 0"
        text = f"{', '.join(zero)}: {what}, all others are right"
        return explanation("41", text, not_learned(zero))
    named = [
        scale_factors.name_of([c for c, _ in seen], [s for _, s in seen])
        for seen in factors.values()
    ]
    if any(n is None for n in named) or len({n[0] for n in named}) > 1:
        return []
    text = f"{', '.join(factors)}: the right gradient times {named[0][0]}; all others are right"
    return explanation("tensor", text, fix())


def factors_of_tensors(cases, answers):
    """{name: [(case, factor), ...]} of the tensors that are wrong; {} where one of them
    is no multiple of the right one."""
    found = {}
    for case, a in zip(cases, answers, strict=True):
        for name, place in case.places.items():
            g, t, allowed = a.grad[place], case.truth[place], case.allowed[place]
            if np.abs((g - t) / allowed).max() <= 1 or np.abs(t).max() <= allowed.max():
                continue
            s = float((g * t).sum() / (t * t).sum())
            if np.abs((g - s * t) / allowed).max() > ACCEPTED:
                return {}
            found.setdefault(name, []).append((case, s))
    return found
