"""One hand-written layer beside refmaml's own, with its mistakes by name."""

import numpy as np

from refmaml import layers
from refmaml.checks.calls import check_settings
from refmaml.checks.layer_cases import PLAIN, cases_of, layers_of
from refmaml.checks.layer_functions import LayerFunctions
from refmaml.checks.layer_names import by_other_inputs, compare, named
from refmaml.checks.layer_ties import tie_row
from refmaml.checks.norm_faults import NORMS
from refmaml.checks.report import CheckReport, Row, verdict_of
from refmaml.doctor.verdicts import RIGHT, WRONG
from refmaml.errors import ArgumentError, expect
from refmaml.layers.extents import pair
from refmaml.version import __version__

ROUNDINGS = 1000  # of the largest entry, times sqrt(n): a mistake is millions of them


def check_layer(
    backward, like, *, forward=None, r_forward=None, r_backward=None, input_shape=None,
    framework="numpy", tol=None, precision="float64", seed=0,
):  # fmt: skip
    """Whether one layer's passes, written by hand, are right, as a CheckReport.

    backward    backward(x, params, dy) -> {"x": dx, "weight": dw, "bias": db}, or
                (dx, dw, db) in the order of params, or dx alone. x is (N, ...), images
                (N, C, H, W); params is {name: array} with refmaml's (PyTorch's) names;
                a fourth argument, if it takes one, is the layer with its fields
    like        the layer of refmaml that it should be, such as rm.BatchNorm2d(3); or a
                class, such as rm.Conv2d: then the function needs the fourth argument,
                and kernels, strides and paddings with unequal sides are tried
    forward     forward(x, params) -> y, or (y, saved): backward then gets saved for x
    r_forward   r_forward(x, params, rx, rparams) -> ry
    r_backward  r_backward(x, params, dy, rx, rparams, rdy) -> as backward
    input_shape the shape of one example, (C, H, W) or (C,) (default: sides that differ)
    framework   "numpy", "torch", "jax" or "cupy"
    tol         the largest relative error (default: 1000 sqrt(n) roundings of the
                largest entry, n the numbers in x)
    precision, seed   as in check_gradient
    Rows: every output on every input. Where entries tie in max-pooling, or are 0 in
    ReLU, another convention is no mistake and is reported as what it is.
    Raises ArgumentError in one line for other arguments, and for a function that raises
    on every input without a known reason.

    >>> import numpy as np, refmaml as rm
    >>> rm.check_layer(lambda x, params, dy: (1 - np.tanh(x) ** 2) * dy, rm.Tanh()).ok
    True
    """
    if tol is not None:
        check_settings(precision, tol, seed)
    check_settings(precision, None, seed)
    functions = {"backward": backward, "forward": forward}
    functions |= {"r_forward": r_forward, "r_backward": r_backward}
    user = LayerFunctions(functions, framework, precision)
    several = not isinstance(like, layers.ReLU.__mro__[2]) and len(layers_of(like)) > 1
    wanted = "an instance, such as rm.Conv2d(2, 3, (3, 2)), or functions that take the layer"
    expect(not several or user.takes_layer(), "like", wanted, lambda: like.__name__)
    cases = cases_of(like, input_shape, seed, precision)
    report = examined(user, cases, tol, seed)
    report.about.update(
        calls=user.calls,
        seed=seed,
        precision=precision,
        framework=framework,
        versions={"refmaml": __version__, "numpy": np.__version__},
    )
    return report


def allowed_on(case, tol, precision):
    """What rounding allows on a case, relative to the largest entry."""
    rounding = ROUNDINGS * np.finfo(precision).eps * np.sqrt(case.x.size)
    return float(rounding) if tol is None else tol


def comparisons_of(user, cases, tol):
    """[(label, Comparison)] of every output of every pass on every case."""
    found = []
    for case in cases:
        allowed = allowed_on(case, tol, user.precision)
        if "forward" in user.functions:
            result, _ = user.forward(case)
            found.append(("y", compare(case, "y", result, case.y, allowed)))
        result = user.backward(case, case.dy)
        for name in result.outputs or ("x",):
            found.append((f"d{name}", compare(case, name, result, case.truth[name], allowed)))
        if case.kind == PLAIN:
            found += r_comparisons(user, case, allowed)
    return found


def r_comparisons(user, case, allowed):
    """[(label, Comparison)] of the passes along a tangent."""
    found = []
    if "r_forward" in user.functions:
        found.append(("ry", compare(case, "y", user.r_forward(case), case.r_y, allowed)))
    if "r_backward" in user.functions:
        result = user.r_backward(case)
        for name in result.outputs or ("x",):
            found.append((f"rd{name}", compare(case, name, result, case.r_truth[name], allowed)))
    return found


def examined(user, cases, tol, seed):
    """The CheckReport."""
    found = comparisons_of(user, cases, tol)
    refuse_only_errors(user, found, seed)
    rows, remarks, texts, fixes = [], [], {}, []
    wrong, every = {}, {}
    for label, c in found:
        name = f"{label}, {c.case.name}"
        if c.case.kind == PLAIN:
            rows.append(plain_row(name, c))
            every.setdefault(label, []).append(c)
            if not c.right:
                wrong.setdefault(label, []).append(c)
        elif label == "dx" and "dx" not in wrong:
            row, remark, text, fix = tie_row(name, c)
            rows.append(row)
            remarks += [remark] if remark else []
            if text:
                texts[label], fixes = text, [*fixes, fix]
    unnamed = name_wrong_outputs(user, wrong, every, texts, fixes, seed)
    remarks = list(dict.fromkeys([*remarks, *blind_spots(user, cases)]))
    if verdict_of(rows) == RIGHT:
        worst = max(row.error for row in rows if not row.remark)
        text = f"the layer is {type(cases[0].layer).__name__}, to {worst:.1e}"
        return CheckReport("layer", RIGHT, text, rows=tuple(rows), remarks=tuple(remarks))
    text = "; ".join([*sentences(texts), *unnamed])
    fix = "; ".join(dict.fromkeys(fixes))
    places = tuple(place for cs in wrong.values() for place in where(cs))
    return CheckReport("layer", WRONG, text, fix, places, tuple(rows), tuple(remarks))


def sentences(texts):
    """One sentence for each mistake, with all outputs that it is in."""
    outputs = {}
    for label, text in texts.items():
        outputs.setdefault(text, []).append(label)
    return [f"{', '.join(labels)}: {text}" for text, labels in outputs.items()]


def name_wrong_outputs(user, wrong, every, texts, fixes, seed):
    """Add a text and a fix for each wrong output; sentences about those without."""
    unnamed = []
    for label, cs in wrong.items():
        text, fix = of_tangents(label, cs) or named(cs, cs[0].allowed)
        if not text:
            text, fix = by_other_inputs(user, every[label], seed) or ("", "")
        if text:
            texts[label] = text
            word, _, rest = fix.partition(" ")
            fixes.append(f"{word} {label} {rest}" if word in ("divide", "multiply") else fix)
        elif any(c.problem for c in cs):
            texts[label] = next(c.problem for c in cs if c.problem)
        else:
            unnamed.append(f"{label} is wrong, by no known mistake")
    return unnamed


def of_tangents(label, wrong):
    """The name of an R-pass that leaves out some tangents, or None."""
    if not label.startswith("rd") or any(c.problem for c in wrong):
        return None
    from refmaml.checks.layer_names import fits

    if all(fits(c.got, c.case.at_rdy[c.output], c.allowed) for c in wrong):
        return (
            "it is the backward pass of rdy alone: the tangents of x and params are left out",
            "R{f(x) dy} = f(x) rdy + f'(x) rx dy",
        )
    return None


def plain_row(name, c):
    """The Row of a Comparison."""
    factor = float("nan")
    if not c.problem and c.got.any() and c.expected.any():
        factor = float(np.vdot(c.expected, c.got) / np.vdot(c.expected, c.expected))
        residual = np.abs(c.got - factor * c.expected).max() / np.abs(c.got).max()
        factor = factor if residual <= c.allowed else float("nan")
    return Row(name, c.error, c.allowed, factor, RIGHT if c.right else WRONG, c.problem)


def where(wrong):
    """Findings: the box of the wrong entries, where it is a part of the array."""
    for c in wrong:
        if c.problem:
            continue
        scale = np.abs(c.expected).max() or 1.0
        off = np.abs(c.got - c.expected) > c.allowed * scale
        box = [np.flatnonzero(off.any(tuple(b for b in range(off.ndim) if b != a)))
               for a in range(off.ndim)]  # fmt: skip
        if not off.all() and any(len(i) < n for i, n in zip(box, off.shape, strict=True)):
            ranges = ", ".join(f"{i[0]}:{i[-1] + 1}" for i in box)
            output = "dx" if c.output == "x" else f"d{c.output}"
            yield f"{output}[{ranges}] of shape {off.shape}, {c.case.name}"
            return


def refuse_only_errors(user, found, seed):
    """Raise ArgumentError where a pass raises on every input, for no known reason."""
    errors = [c for _, c in found if c.problem.startswith("raised")]
    if errors and len(errors) == len(found) and by_other_inputs(user, errors, seed) is None:
        line = errors[0].problem.removeprefix("raised ")
        raise ArgumentError(f"backward: expected adjoints on {errors[0].case.name}, got {line}")


def blind_spots(user, cases):
    """Remarks on what a comparison on these inputs cannot show."""
    layer, remarks = cases[0].layer, []
    if isinstance(layer, NORMS):
        remarks.append(
            "the mean's share by way of the variance, dvar mean(-2 (x - mean)), is identically "
            "0: leaving it out changes nothing"
        )
    if hasattr(layer, "kernel_size") and not user.takes_layer():
        fields = [f for f in ("kernel_size", "stride") if square(getattr(layer, f, None))]
        if fields:
            kind = f"like=rm.{type(layer).__name__}"
            remarks.append(
                f"equal sides ({', '.join(fields)}) hide rows taken for columns; {kind} tries "
                "others, for functions that take the layer"
            )
    return remarks


def square(value):
    """Whether an extent is the same, and more than 1, for rows and columns."""
    if value is None:
        return False
    rows, columns = pair(value, "extent")
    return rows == columns > 1
