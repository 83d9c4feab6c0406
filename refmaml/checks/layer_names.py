"""The name of what is wrong in an output: a shape, a factor, or a known mistake."""

from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refmaml.checks.factors import number_text
from refmaml.checks.layer_cases import PLAIN, cases_of
from refmaml.checks.layer_faults import faults_of
from refmaml.checks.window_faults import windows_of

EXACT = 1e-7  # relative: how well a factor's value must fit


class Comparison(NamedTuple):
    """One output on one case.

    got      the array, or None
    expected the array as it should be
    error, allowed   relative to max |expected|
    problem  the line of an exception, or a wrong shape in words, or ""
    """

    case: object
    output: str
    got: object
    expected: object
    error: float
    allowed: float
    problem: str = ""

    @property
    def right(self):
        """Whether the output is right on this case."""
        return not self.problem and self.error <= self.allowed


def compare(case, output, result, expected, allowed):
    """The Comparison of an output with its expected array."""
    if result.error:
        return Comparison(case, output, None, expected, np.inf, allowed, f"raised {result.error}")
    got = result.outputs[output]
    if got.shape != expected.shape and squeezed(got) == squeezed(expected):
        got = got.reshape(expected.shape)  # (1, C, 1, 1) in place of (C,)
    if got.shape != expected.shape:
        text = f"shape {got.shape}, not {expected.shape}"
        return Comparison(case, output, got, expected, np.inf, allowed, text)
    scale = np.abs(expected).max() or 1.0
    error = float(np.abs(got - expected).max() / scale)
    return Comparison(case, output, got, expected, error, allowed)


def squeezed(a):
    """A shape without extents of 1."""
    return tuple(n for n in a.shape if n != 1)


def fits(got, expected, allowed):
    """Whether two arrays agree within what is allowed, relative."""
    if got is None or expected is None or got.shape != expected.shape:
        return False
    scale = max(np.abs(expected).max(), np.abs(got).max())
    return bool(np.abs(got - expected).max() <= allowed * scale)


def named(wrong, allowed):
    """(text, fix) of an output that is wrong; ("", "") without a name."""
    return (
        by_fault(wrong)
        or by_factor(wrong)
        or by_shape(wrong)
        or ("", "")
    )  # fmt: skip


def by_fault(wrong):
    """A known mistake that explains every Comparison that has an array of its own."""
    votes, fixes = Counter(), {}
    usable = [c for c in wrong if c.got is not None]
    for c in usable:
        found = {}
        for fault in faults_of(c.case):
            expected = fault.y if c.output == "y" else fault.outputs.get(c.output)
            if fault.dy is None and fits(c.got, expected, c.allowed):
                found.setdefault(fault.name, fault.fix)
        votes.update(found.keys())
        fixes |= found
    best = [name for name, n in votes.items() if n == len(usable)]
    if not usable or not best:
        return None
    return best[0], fixes[best[0]]


def by_factor(wrong):
    """A factor that explains every Comparison, as a number or a symbol of the cases."""
    usable = [c for c in wrong if not c.problem]
    if not usable or len(usable) < len(wrong):
        return None
    factors = []
    for c in usable:
        if not c.got.any():
            factors.append(0.0)
            continue
        scale = float(np.vdot(c.expected, c.got) / (np.vdot(c.expected, c.expected) or 1.0))
        if not scale or not fits(c.got, scale * c.expected, c.allowed):
            return None
        factors.append(scale)
    return factor_text(factors, [symbols(c.case) for c in usable])


def symbols(case):
    """{text: number} of what a sum may run over."""
    N, *rest = case.x.shape
    out = {"N, the number of examples": N}
    if len(rest) == 3:
        pixels, places = int(np.prod(rest[1:])), int(np.prod(case.dy.shape[2:]))
        out |= {"the number of pixels": pixels, "N times the number of pixels": N * pixels}
        out |= {"the number of positions of y": places, "N times the positions of y": N * places}
    if len(rest) == 1:
        out["the number of inputs"] = rest[0]
    kernel = getattr(case.layer, "kernel_size", None)
    if kernel is not None:
        pair = kernel if isinstance(kernel, tuple | list) else (kernel, kernel)
        out["the size of the window"] = int(np.prod(pair))
    return out


def factor_text(factors, cases):
    """(text, fix) of one factor for each case, or None."""
    if not any(factors):
        return "0: nothing arrives", "hand back the sum that was computed"
    sign = -1 if factors[0] < 0 else 1
    sizes = np.array(factors) * sign
    minus = "minus " if sign < 0 else ""
    if np.allclose(sizes, 1, rtol=EXACT, atol=0):
        return "the sign is wrong", "change the sign"
    for text in cases[0]:
        values = np.array([case[text] for case in cases], float)
        letter = text.partition(",")[0] if "," in text else "n"
        meaning = f" ({letter} = {text.partition(', ')[2] or text})"
        if np.allclose(sizes, values, rtol=EXACT, atol=0):
            return (
                f"{minus}{letter} times the right one{meaning}: a sum where it is a mean",
                f"divide by {letter}",
            )
        if np.allclose(sizes, 1 / values, rtol=EXACT, atol=0):
            return (
                f"{minus}1/{letter} times the right one{meaning}: a mean where it is a sum",
                f"multiply by {letter}",
            )
    if np.allclose(sizes, sizes[0], rtol=EXACT, atol=0):
        text = number_text(factors[0])
        return f"{text} times the right one", f"divide by {text}"
    return None


def by_shape(wrong):
    """A wrong shape in words, or None."""
    for c in wrong:
        if c.got is None or c.got.shape == c.expected.shape:
            continue
        got, expected = c.got.shape, c.expected.shape
        if got == expected[::-1] or sorted(got) == sorted(expected):
            axes = "transposed: " if fits(c.got.T, c.expected, c.allowed) else ""
            return f"{axes}shape {got}, not {expected}", "restore the order of its axes"
        if len(expected) == 4 and got[:2] == expected[:2]:
            (H, W), own = expected[2:], got[2:]
            if H != W and own == (H, H):
                return "the image's height is used for its width", "H, W = x.shape[2:]"
            if H != W and own == (W, W):
                return "the image's width is used for its height", "H, W = x.shape[2:]"
        return c.problem, f"hand back an array of shape {expected}"
    return None


def by_other_inputs(user, comparisons, seed):
    """(text, fix) of a mistake that raises here, found on other inputs; or None.

    It may work where dy has the shape that the mistaken geometry gives, where the
    kernel's sides are exchanged, or where no window reaches the last padding.
    """
    raised = {id(c.case): c.case for c in comparisons if c.got is None and c.case.kind == PLAIN}
    votes, fixes = Counter(), {}
    for case in raised.values():
        for fault, dy, at in attempts(case, seed):
            result = user.backward(at, dy)
            pairs = [(a, fault.outputs.get(name)) for name, a in result.outputs.items()]
            if pairs and all(fits(a, b, EXACT) for a, b in pairs):
                votes[fault.name] += 1
                fixes[fault.name] = fault.fix
    if not votes:
        return at_the_end(comparisons)
    name = votes.most_common(1)[0][0]
    return name, fixes[name]


def attempts(case, seed):
    """(Fault, dy, case) on inputs for which a mistaken geometry may not raise."""
    for fault in faults_of(case):
        if fault.dy is not None:
            yield fault, fault.dy, case
    kernel = getattr(case.layer, "kernel_size", None)
    if isinstance(kernel, tuple | list) and kernel[0] != kernel[1]:
        turned = replace(case.layer, kernel_size=tuple(kernel)[::-1])
        for other in cases_of(turned, None, seed, "float64"):
            if other.kind == PLAIN:
                wrong = [f for f in faults_of(other) if "kernel's" in f.name and f.dy is None]
                yield from ((fault, other.dy, other) for fault in wrong)


def at_the_end(comparisons):
    """The name of an image that is too small where windows reach the last padding."""
    if not all(hasattr(c.case.layer, "padding") for c in comparisons):
        return None
    reached = [(reaches_padding(c.case), c.got is None) for c in comparisons]
    if not any(raises for _, raises in reached) or any(a != b for a, b in reached):
        return None
    return (
        "it raises where windows reach the padding at the bottom or on the right: that padding "
        "is left out, or the padding before is used in its place",
        "pad before and after by their own numbers",
    )


def reaches_padding(case):
    """Whether windows reach more padding after the image than there is before it."""
    g, out = windows_of(case), case.dy.shape[2:]
    sides = zip(out, g.stride, g.taps, g.dilation, g.before, g.after, g.image, strict=True)
    for n, s, k, d, before, after, H in sides:
        last = (n - 1) * s + d * (k - 1) + 1 - before  # entries that windows read
        if last > H + min(before, after):
            return True
    return False
