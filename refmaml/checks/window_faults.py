"""Known mistakes in convolution and pooling, as other choices of window_loops."""

import numpy as np

from refmaml.checks import window_loops as loops
from refmaml.checks.fault import Fault
from refmaml.layers.extents import explicit_padding, pair


def windows_of(case):
    """The Windows of a Conv2d on a case's image."""
    layer, image = case.layer, case.x.shape[2:]
    kernel, stride = pair(layer.kernel_size, "kernel_size"), pair(layer.stride, "stride")
    dilation = pair(layer.dilation, "dilation")
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    (t, b), (left, right) = explicit_padding(layer.padding, spans, stride, image)
    return loops.Windows(kernel, stride, (t, left), (b, right), dilation, image)


PAIR = "padding[0] is (top, bottom), padding[1] is (left, right)"
SIDES = "pad before and after by their own numbers"


def variants(g):
    """(name, fix, Windows) of every other geometry."""
    yield "the stride is forgotten", "window i begins at i * stride", g._replace(stride=(1, 1))
    yield from exchanged(g, "stride", "the stride", g.stride)
    yield "the dilation is forgotten", "tap p lies at p * dilation", g._replace(dilation=(1, 1))
    yield from exchanged(g, "dilation", "the dilation", g.dilation)
    yield from paddings(g)
    flipped = "the kernel is flipped: a convolution where the layer is a correlation"
    yield flipped, "w[p, q] meets x[i + p, j + q]", g._replace(flip=True)
    yield from heights_and_widths(g)


def paddings(g):
    """The ways to mix up four paddings."""
    (t, left), (b, right) = g.before, g.after
    both = "the padding of {} is used for {}"
    yield both.format("rows", "columns"), PAIR, g._replace(before=(t, t), after=(b, b))
    columns = g._replace(before=(left, left), after=(right, right))
    yield both.format("columns", "rows"), PAIR, columns
    swapped = g._replace(before=(left, t), after=(right, b))
    yield "the paddings of rows and columns are exchanged", PAIR, swapped
    sides = "the padding {} is used on both sides ({})"
    before = sides.format("before", "top for bottom, left for right")
    yield before, SIDES, g._replace(after=g.before)
    after = sides.format("after", "bottom for top, right for left")
    yield after, SIDES, g._replace(before=g.after)
    yield "the padding is forgotten", "pad x first", g._replace(before=(0, 0), after=(0, 0))
    yield "the padding is on one side only, before", SIDES, g._replace(after=(0, 0))
    yield "the padding is on one side only, after", SIDES, g._replace(before=(0, 0))


def heights_and_widths(g):
    """One side of the kernel or the image taken for the other."""
    for field, what, fix in (
        ("taps", "the kernel", "kH, kW = w.shape[2:]"),
        ("image", "the image", "H, W = x.shape[2:]"),
    ):
        rows, columns = getattr(g, field)
        if columns > rows:
            name = f"{what}'s height is used for its width"
            yield name, fix, g._replace(**{field: (rows, rows)})
        if rows > columns:
            name = f"{what}'s width is used for its height"
            yield name, fix, g._replace(**{field: (columns, columns)})


def exchanged(g, field, what, values):
    """The three ways to mix up a pair."""
    rows, columns = values
    fix = f"{field}[0] is for rows, {field}[1] for columns"
    yield f"{what} of rows is used for columns", fix, g._replace(**{field: (rows, rows)})
    yield f"{what} of columns is used for rows", fix, g._replace(**{field: (columns, columns)})
    name = f"{what}s of rows and columns are exchanged"
    yield name, fix, g._replace(**{field: (columns, rows)})


def conv_faults(case):
    """The Faults of a Conv2d; those with dy are for another shape of it."""
    right, groups = windows_of(case), case.layer.groups
    w, bias = case.params["weight"], case.params.get("bias")
    dense = loops.dense_weight(w, groups)
    seen = {right}
    for name, fix, g in variants(right):
        if g in seen or min(g.extents()) == 0:
            continue
        seen.add(g)
        y = loops.conv_forward(case.x, dense, bias, g)
        for own in (False, True):
            yield Fault(name, fix, conv_outputs(case, dense, case.dy, g, own), y)
        if g.extents() != right.extents():
            dy = np.random.default_rng(0).standard_normal((*case.dy.shape[:2], *g.extents()))
            yield Fault(name, fix, conv_outputs(case, dense, dy, g, True), y, dy)
    yield from channel_faults(case, dense, right)


def conv_outputs(case, dense, dy, g, own):
    """{"x", "weight", "bias"} in the layer's shapes."""
    out = loops.conv_backward(case.x, dense, dy, g, own)
    out["weight"] = loops.grouped_weight(
        out["weight"], case.layer.groups, case.params["weight"].shape[1]
    )
    return out


def channel_faults(case, dense, g):
    """Mistakes in dx or dw alone."""
    name = "dx is a convolution with the kernel as it is, not reversed"
    fix = "dx is the transpose of y = conv(x, w): reverse the kernel in both directions"
    yield Fault(
        name, fix, {"x": conv_outputs(case, dense, case.dy, g._replace(flip=True), False)["x"]}
    )
    if dense.shape[0] == dense.shape[1]:
        swapped = dense.swapaxes(0, 1)
        out = loops.conv_backward(case.x, swapped, case.dy, g, False)
        name = "inputs and outputs of the kernel are exchanged"
        yield Fault(name, "w is (outputs, inputs, kH, kW)", {"x": out["x"]})


def max_pool_faults(case):
    """The Faults of a MaxPool2d on distinct values."""
    (window, stride), x, dy = case.layer.geometry(), case.x, case.dy
    other = {
        "the window of rows is used for columns": ((window[0],) * 2, stride),
        "the window of columns is used for rows": ((window[1],) * 2, stride),
        "the stride of rows is used for columns": (window, (stride[0],) * 2),
        "the stride of columns is used for rows": (window, (stride[1],) * 2),
        "window and stride are exchanged between rows and columns": (window[::-1], stride[::-1]),
        "the stride is forgotten": (window, (1, 1)),
        "the window is taken for the stride": (window, window),
    }
    for name, (k, s) in other.items():
        if (k, s) != (window, stride):
            dx = loops.max_pool_backward(x, dy, k, s)
            yield Fault(name, "(kH, kW) = window, (sH, sW) = stride", {"x": dx})
    name = "overlapping windows overwrite each other"
    dx = loops.max_pool_backward(x, dy, window, stride, adds=False)
    yield Fault(name, "dx[...] += dy, not dx[...] = dy", {"x": dx})


def average_faults(case):
    """The Faults of an AvgPool2d."""
    window, stride = case.layer.geometry()
    C, image = case.x.shape[1], case.x.shape[2:]
    g = loops.Windows(window, stride, (0, 0), (0, 0), (1, 1), image)
    others = [
        *exchanged(g, "stride", "the stride", stride),
        *exchanged(g, "taps", "the window", window),
        ("the stride is forgotten", "window i begins at i * stride", g._replace(stride=(1, 1))),
    ]
    for name, fix, h in others:
        if h != g:
            w = np.eye(C)[:, :, None, None] * np.ones(h.taps) / np.prod(h.taps)
            dx = loops.conv_backward(case.x, w, case.dy, h, False)["x"]
            yield Fault(name, fix, {"x": dx})
