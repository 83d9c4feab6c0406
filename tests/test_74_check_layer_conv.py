"""check_layer on convolutions: faults, and geometries that are mixed up, by name."""

from dataclasses import replace

import numpy as np
import pytest
from hand_written_layers import by_own_code

import refmaml as rm
from refmaml.checks import layer_cases

pytestmark = pytest.mark.slow

FAULTS_OF_CONV = {
    "stride missing in backward": "dx, dweight: the stride is forgotten",
    "stride of rows for columns": "the stride of rows is used for columns",
    "padding of rows for columns": "the padding of rows is used for columns",
    "kernel height for width": "the kernel's height is used for its width",
    "height for width": "the image's height is used for its width",
    "after as before": "it raises where windows reach the padding",
    "averaged": "dweight: 1/N times the right one (N = the number of examples)",
    "flipped": "the kernel is flipped",
}
CONV = rm.Conv2d(2, 3, (3, 2), stride=(2, 3), padding=((0, 1), (2, 1)))


def conv(x, w, b, stride, padding, fault, dy=None):
    """Convolution by loops over its outputs: y, or {"x", "weight", "bias"} of dy."""
    (t, bottom), (left, right) = padding
    (sh, sw), (kh, kw), (H, W) = stride, w.shape[2:], x.shape[2:]
    if fault == "stride of rows for columns":
        sw = sh
    if fault == "padding of rows for columns":
        left, right = t, bottom
    if fault == "kernel height for width":
        kw = kh
    if fault == "height for width":
        W = H
    if fault == "flipped":
        w = w[:, :, ::-1, ::-1]
    after = (t, left) if fault == "after as before" else (bottom, right)
    padded = np.zeros((*x.shape[:2], H + t + after[0], W + left + after[1]))
    padded[:, :, t : t + H, left : left + W] = x[:, :, :H, :W]
    out = (H + t + bottom - kh) // sh + 1, (W + left + right - kw) // sw + 1
    bh, bw = (1, 1) if dy is not None and fault == "stride missing in backward" else (sh, sw)
    y = np.zeros((len(x), len(w), *out))
    dw, dpadded = np.zeros(w.shape), np.zeros(padded.shape)
    for i in range(out[0]):
        for j in range(out[1]):
            rows, columns = slice(i * bh, i * bh + kh), slice(j * bw, j * bw + kw)
            patch, taps = padded[:, :, rows, columns], w[:, :, :kh, :kw]
            y[:, :, i, j] = np.einsum("ncpq,ocpq->no", patch, taps) + b
            if dy is not None:
                dw[:, :, :kh, :kw] += np.einsum("no,ncpq->ocpq", dy[:, :, i, j], patch)
                dpadded[:, :, rows, columns] += np.einsum("no,ocpq->ncpq", dy[:, :, i, j], taps)
    if dy is None:
        return y
    dw = dw[:, :, ::-1, ::-1] if fault == "flipped" else dw
    dw = dw / len(x) if fault == "averaged" else dw
    return {"x": dpadded[:, :, t : t + H, left : left + W], "weight": dw, "bias": dy.sum((0, 2, 3))}


def passes(fault):
    """(backward, forward) of CONV's geometry."""
    geometry = CONV.stride, CONV.padding, fault
    return (
        lambda x, p, dy: conv(x, p["weight"], p["bias"], *geometry, dy),
        lambda x, p: conv(x, p["weight"], p["bias"], *geometry),
    )


def test_a_right_convolution_is_right():
    backward, forward = passes("")
    assert rm.check_layer(backward, CONV).ok and rm.check_layer(backward, CONV, forward=forward).ok

    def of_any(x, p, dy, layer):
        return conv(x, p["weight"], p["bias"], layer.stride, layer.padding, "", dy)

    assert rm.check_layer(of_any, rm.Conv2d).ok


@pytest.mark.parametrize("fault", FAULTS_OF_CONV)
@pytest.mark.parametrize("with_forward", [False, True])
def test_a_fault_of_convolution_has_a_name(fault, with_forward):
    backward, forward = passes(fault)
    report = rm.check_layer(backward, CONV, **({"forward": forward} if with_forward else {}))
    assert report.verdict == "wrong" and FAULTS_OF_CONV[fault] in report.diagnosis, report


def test_more_faults_of_convolution():
    def change(function):
        return rm.check_layer(lambda x, p, dy: function(passes("")[0](x, p, dy), x, p, dy), CONV)

    def reversed_kernel(out, x, p, dy):
        right = passes("")[0](x, {**p, "weight": p["weight"][:, :, ::-1, ::-1]}, dy)
        return {"x": right["x"]}

    assert "kernel is flipped" in change(reversed_kernel).diagnosis
    report = change(lambda out, *_: {**out, "weight": out["weight"].swapaxes(2, 3)})
    assert "dweight: shape (3, 2, 2, 3), not (3, 2, 3, 2)" in report.diagnosis
    report = change(lambda out, *_: {**out, "bias": out["bias"] * 0})
    assert "dbias: 0: nothing arrives" in report.diagnosis

    def last_column(out, *_):
        out["x"][..., -1] = 0.5
        return out

    report = change(last_column)
    assert report.diagnosis == "dx is wrong, by no known mistake" and "7:8]" in report.findings[0]


def test_the_geometry_shows_what_exchanged_axes_do():
    for layer in layer_cases.GEOMETRIES[rm.Conv2d]:
        for case in layer_cases.cases_of(layer, None, 0, "float64"):
            N, C, H, W = case.x.shape
            assert len({N, C, H, W}) >= 3 and H < W and C not in (H, W) and N not in (H, W)
    exact, more = layer_cases.sides_of((3, 2), (2, 3), ((0, 1), (2, 1)))
    assert (exact[0] + 1 - 3) % 2 == 0 == (exact[1] + 3 - 2) % 3  # the last padding is read
    assert (more[0] + 1 - 3) % 2 != 0 != (more[1] + 3 - 2) % 3


def test_equal_sides_are_a_remark():
    square = rm.Conv2d(2, 3, 3, stride=2)

    def backward(x, p, dy):
        return conv(x, p["weight"], p["bias"], (2, 2), ((0, 0), (0, 0)), "", dy)

    report = rm.check_layer(backward, square)
    assert report.ok and "equal sides (kernel_size, stride)" in report.remarks[0]


# ---- other geometries, by the project's own kernels ----------------------------------


def with_other_geometry(other):
    """backward of a convolution whose geometry is other(layer), as loops would run.

    Loops over its own number of windows read dy as far as they go; where dy ends before
    them, they raise."""

    def backward(x, params, dy, layer):
        wrong = other(layer)
        out = wrong.output_shape(x.shape[1:])[1:]
        if any(n > m for n, m in zip(out, dy.shape[2:], strict=True)):
            raise IndexError(f"index {dy.shape[2:]} is out of bounds for {out}")
        return by_own_code("backward")(x, params, dy[:, :, : out[0], : out[1]], wrong)

    return backward


def paddings(change):
    """other(layer) with change(top, bottom, left, right) as its paddings."""
    return lambda layer: replace(layer, padding=change(*layer.padding[0], *layer.padding[1]))


UNEQUAL = rm.Conv2d(2, 3, (3, 2), stride=(2, 3), padding=((1, 2), (0, 1)), dilation=(1, 2))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (paddings(lambda t, b, l, r: ((t, t), (l, l))), "the padding before is used on both sides"),
        (paddings(lambda t, b, l, r: ((b, b), (r, r))), "the padding after is used on both sides"),
        (paddings(lambda t, b, l, r: ((0, 0), (0, 0))), "the padding is forgotten"),
        (
            paddings(lambda t, b, l, r: ((l, r), (t, b))),
            "the paddings of rows and columns are exch",
        ),
        (paddings(lambda t, b, l, r: ((l, r), (l, r))), "the padding of columns is used for rows"),
        (
            lambda layer: replace(layer, stride=layer.stride[::-1]),
            "the strides of rows and columns",
        ),
        (lambda layer: replace(layer, stride=layer.stride[1]), "the stride of columns is used for"),
        (lambda layer: replace(layer, stride=1), "the stride is forgotten"),
        (lambda layer: replace(layer, dilation=1), "the dilation is forgotten"),
    ],
)
def test_a_geometry_that_is_mixed_up_has_a_name(other, words):
    report = rm.check_layer(with_other_geometry(other), UNEQUAL)
    assert report.verdict == "wrong" and words in report.diagnosis, report


def test_a_class_of_layers_shows_what_one_geometry_hides():
    square = rm.Conv2d(2, 3, 3, stride=2, padding=1)
    swapped = with_other_geometry(lambda layer: replace(layer, stride=layer.stride[::-1])
                                  if isinstance(layer.stride, tuple) else layer)  # fmt: skip
    assert rm.check_layer(swapped, square).ok
    report = rm.check_layer(swapped, rm.Conv2d)
    assert report.verdict == "wrong" and "the strides of rows and columns" in report.diagnosis
