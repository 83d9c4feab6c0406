"""rm.check_layer: one hand-written layer, its mistakes by name, conventions as such."""

import json
from functools import partial

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.checks import layer_cases

# ---- batch-norm ----------------------------------------------------------------------


def batch_norm(fault="", passes=("x", "weight", "bias")):
    """backward(x, params, dy, layer) of batch-norm by the chain rule, with a fault."""

    def backward(x, params, dy, layer):
        axes = {"per image": (2, 3), "per example": (1, 2, 3)}.get(fault, (0, 2, 3))
        n = int(np.prod([x.shape[a] for a in axes]))
        c = x - x.mean(axes, keepdims=True)
        var = (c**2).sum(axes, keepdims=True) / (n - (fault == "ddof"))
        s = 1 / np.sqrt(var + layer.eps)
        if fault == "eps outside":
            s = 1 / (np.sqrt(var) + layer.eps)
        g = dy * (1 if fault == "no gamma" else params["weight"][None, :, None, None])
        dvar = (g * c).sum(axes, keepdims=True) * -0.5 * s**3
        dmu = -(g * s).sum(axes, keepdims=True)
        if fault != "no zero term":
            dmu = dmu + dvar * (-2 * c).mean(axes, keepdims=True)
        dx = g * s + dvar * 2 * c / n + dmu / n
        if fault == "mean not over n":
            dx = g * s + dvar * 2 * c / n + dmu
        if fault == "no mean term":
            dx = g * s + dvar * 2 * c / n
        if fault == "no variance term":
            dx = g * s + dmu / n
        if fault == "statistics constant":
            dx = g * s
        if fault == "variance over n - 1":
            dx = g * s + dvar * 2 * c / (n - 1) + dmu / n
        if fault == "sign":
            dx = -dx
        dw = (dy * (x if fault == "sum takes x" else c * s)).sum((0, 2, 3))
        db = dy.sum((0, 2, 3)) / (len(x) if fault == "db averaged" else 1)
        return {n: {"x": dx, "weight": dw, "bias": db}[n] for n in passes}

    return backward


def test_a_right_batch_norm_is_right_and_a_term_that_is_0_is_said_to_be_0():
    for fault in ("", "no zero term"):
        report = rm.check_layer(batch_norm(fault), rm.BatchNorm2d)
        assert report.ok and max(row.error for row in report.rows) < 1e-13
        assert any("is identically 0" in remark for remark in report.remarks)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("mean not over n", "dx: the mean term is a sum, not divided by n"),
        ("no mean term", "dx: the mean term is missing"),
        ("no variance term", "dx: the variance term is missing"),
        ("statistics constant", "dx: the statistics are taken as constants"),
        ("variance over n - 1", "dx: the variance term is divided by n - 1, not n"),
        ("ddof", "the variance is divided by n - 1, not n (ddof = 1)"),
        ("eps outside", "eps is added outside the root"),
        ("per image", "over the wrong axes: each image of one channel alone"),
        ("per example", "over the wrong axes: each example alone (layer norm)"),
        ("no gamma", "dx: gamma is left out"),
        ("sign", "dx: the sign is wrong"),
        ("sum takes x", "dweight: the sum takes x, not the normalised xh"),
        ("db averaged", "dbias: 1/N times the right one (N = the number of examples)"),
    ],
)
@pytest.mark.parametrize("like", [rm.BatchNorm2d, rm.BatchNorm2d(3, eps=1e-5)])
def test_a_fault_of_batch_norm_has_a_name(fault, words, like):
    report = rm.check_layer(batch_norm(fault), like)
    assert report.verdict == "wrong" and report.fix, report
    short = fault == "db averaged" and like is not rm.BatchNorm2d  # one input: N or a number
    assert words in report.diagnosis or (short and "dbias: 1/N times" in report.diagnosis)


def test_dx_alone_is_judged_alone():
    report = rm.check_layer(lambda x, p, dy, l: batch_norm()(x, p, dy, l)["x"], rm.BatchNorm2d)
    assert report.ok and all(row.name.startswith("dx") for row in report.rows)


def test_the_other_norms_have_their_faults_too():
    def group_norm(x, params, dy, layer, terms=(1, 1)):
        grouped = x.reshape(len(x), layer.num_groups, -1)
        c = grouped - grouped.mean(2, keepdims=True)
        s = 1 / np.sqrt((c**2).mean(2, keepdims=True) + layer.eps)
        g = (dy * params["weight"][:, None, None]).reshape(grouped.shape)
        xh = c * s
        dx = g - terms[0] * g.mean(2, keepdims=True)
        dx = s * (dx - terms[1] * xh * (g * xh).mean(2, keepdims=True))
        return dx.reshape(x.shape)

    assert rm.check_layer(group_norm, rm.GroupNorm).ok
    for terms, words in (((0, 1), "mean term is missing"), ((1, 0), "variance term is missing")):
        report = rm.check_layer(partial(group_norm, terms=terms), rm.GroupNorm)
        assert words in report.diagnosis

    def layer_norm(x, params, dy):
        c = x - x.mean(1, keepdims=True)
        return dy * params["weight"] / np.sqrt((c**2).mean(1, keepdims=True) + 1e-5)

    assert "are taken as constants" in rm.check_layer(layer_norm, rm.LayerNorm(7)).diagnosis


# ---- convolution ---------------------------------------------------------------------

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


# ---- pooling: conventions for ties ---------------------------------------------------


def max_pool(rule, window=2, stride=2):
    def backward(x, params, dy):
        dx = np.zeros(x.shape)
        for i in range(dy.shape[2]):
            for j in range(dy.shape[3]):
                at = slice(i * stride, i * stride + window), slice(j * stride, j * stride + window)
                part = x[:, :, *at]
                top = part.max((2, 3), keepdims=True)
                hit = np.isclose(part, top) if rule == "isclose" else part == top
                hit = np.abs(part - top) < rule if isinstance(rule, float) else hit
                flat = hit.reshape(*hit.shape[:2], -1)
                if rule == "last":
                    flat = np.eye(window**2)[::-1][flat[..., ::-1].argmax(-1)]
                elif rule == "first":
                    flat = np.eye(window**2)[flat.argmax(-1)]
                elif rule == "split":
                    flat = flat / flat.sum(-1, keepdims=True)
                share = dy[:, :, i, j, None, None] * flat.reshape(part.shape)
                if rule == "overwrites":
                    dx[:, :, *at] = np.where(share != 0, share, dx[:, :, *at])
                else:
                    dx[:, :, *at] += share
        return dx

    return backward


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("first", None),
        ("last", "the last of equal values in row order"),
        ("all", "each of the equal values, in full"),
        ("split", "the equal values in equal parts"),
    ],
)
@pytest.mark.parametrize("overlap", [False, True])
def test_another_rule_for_ties_is_a_convention_and_not_a_mistake(rule, words, overlap):
    sizes = {"window": 3, "stride": 2} if overlap else {}
    like = rm.MaxPool2d(3, 2) if overlap else rm.MaxPool2d(2)
    report = rm.check_layer(max_pool(rule, **sizes), like)
    assert report.ok, report
    said = [r for r in report.remarks if "a convention for ties, not a mistake" in r]
    assert (said == []) if words is None else (words in said[0])


@pytest.mark.parametrize("rule", [1e-2, 1e-5, 1e-9, "isclose"])
def test_a_tolerance_in_the_comparison_is_wrong(rule):
    report = rm.check_layer(max_pool(rule), rm.MaxPool2d(2))
    assert report.verdict == "wrong" and "a tolerance in the comparison" in report.diagnosis
    largest = float(report.diagnosis.split("entries up to ")[1].split()[0])
    tolerance = 1e-5 if rule == "isclose" else rule
    assert 0.1 * tolerance < largest <= 1.01 * tolerance


def test_faults_of_pooling_have_names():
    report = rm.check_layer(max_pool("overwrites", 3, 2), rm.MaxPool2d(3, 2))
    assert "overlapping windows overwrite each other" in report.diagnosis
    report = rm.check_layer(max_pool("first", 3, 1), rm.MaxPool2d(3, 2))
    assert "the stride is forgotten" in report.diagnosis

    def average(x, params, dy):
        return dy.repeat(2, 2).repeat(2, 3)[:, :, : x.shape[2], : x.shape[3]]

    report = rm.check_layer(average, rm.AvgPool2d(2), input_shape=(2, 6, 8))
    assert "4 times" in report.diagnosis or "the size of the window" in report.diagnosis


def test_the_derivative_of_relu_at_0_is_a_convention():
    for value in (0.0, 0.5, 1.0):

        def backward(x, params, dy, value=value):
            return np.where(x > 0, 1.0, np.where(x == 0, value, 0.0)) * dy

        report = rm.check_layer(backward, rm.ReLU())
        assert report.ok
        said = [r for r in report.remarks if "convention" in r]
        assert (said == []) if value == 0 else (f"the derivative at 0 is {value:.3g}" in said[0])
    report = rm.check_layer(lambda x, p, dy: np.where(dy > 0, dy, 0), rm.ReLU())
    assert "the sign of dy is used" in report.diagnosis


# ---- softmax, linear, activations ----------------------------------------------------


def softmax(x, axis=1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize(
    ("like", "backward", "words"),
    [
        (rm.Softmax(), lambda x, p, dy: softmax(x) * (1 - softmax(x)) * dy, "the diagonal alone"),
        (rm.Softmax(), lambda x, p, dy: softmax(x) * dy, "the term p sum p dy is missing"),
        (
            rm.Softmax(),
            lambda x, p, dy: softmax(x, 0) * (dy - (softmax(x, 0) * dy).sum(0)),
            "the softmax is over axis 0 of x, not axis 1",
        ),
        (rm.LogSoftmax(), lambda x, p, dy: dy, "the term p sum dy is missing"),
        (rm.Tanh(), lambda x, p, dy: (1 - x**2) * dy, "with the input for the output"),
        (rm.Sigmoid(), lambda x, p, dy: x * (1 - x) * dy, "with the input for the output"),
        (rm.SiLU(), lambda x, p, dy: dy / (1 + np.exp(-x)), "the sigmoid is taken as a constant"),
        (
            rm.Linear(4, 3),
            lambda x, p, dy: (dy @ p["weight"], dy.T @ x / len(x), dy.sum(0)),
            "dweight: 1/N times",
        ),
        (rm.Linear(4, 3), lambda x, p, dy: (dy @ p["weight"], x.T @ dy), "transposed"),
    ],
)
def test_a_fault_of_another_layer_has_a_name(like, backward, words):
    report = rm.check_layer(backward, like)
    assert report.verdict == "wrong" and words in report.diagnosis, report


def gelu_of(kind):
    layer = rm.GELU(kind)
    return lambda x, p, dy: layer.backward(kernels.reference(), {}, {}, x[None], dy[None])[0]


def test_the_two_forms_of_gelu_are_told_apart():
    assert rm.check_layer(gelu_of("tanh"), rm.GELU("tanh")).ok
    report = rm.check_layer(gelu_of("tanh"), rm.GELU())
    assert "the other form, approximate='tanh'" in report.diagnosis


# ---- every layer of the project, by its own code -------------------------------------


def by_own_code(pass_name, spoil=lambda a: a):
    """A pass of whatever layer it is called with."""
    k = kernels.reference()

    def rows(arrays):
        return {n: a[None] for n, a in arrays.items()}

    def adjoints(dx, dw):
        return {"x": spoil(dx[0]), **{n: a[0] for n, a in dw.items()}}

    def backward(x, params, dy, layer):
        w = rows(params)
        dw = {n: np.empty_like(a) for n, a in w.items()}
        return adjoints(layer.backward(k, dw, w, layer.forward(k, w, x[None])[1], dy[None]), dw)

    def forward(x, params, layer):
        return layer.forward(k, rows(params), x[None])[0][0]

    def r_forward(x, params, rx, rparams, layer):
        w = rows(params)
        saved = layer.forward(k, w, x[None])[1]
        return layer.r_forward(k, w, rows(rparams), saved, rx[None])[0][0]

    def r_backward(x, params, dy, rx, rparams, rdy, layer):
        w, rw = rows(params), rows(rparams)
        saved = layer.forward(k, w, x[None])[1]
        rsaved = layer.r_forward(k, w, rw, saved, rx[None])[1]
        rdw = {n: np.empty_like(a) for n, a in w.items()}
        return adjoints(layer.r_backward(k, rdw, w, rw, saved, rsaved, dy[None], rdy[None]), rdw)

    return {f.__name__: f for f in (backward, forward, r_forward, r_backward)}[pass_name]


ALL = ("forward", "r_forward", "r_backward")
LAYERS = [
    rm.Conv2d, rm.Linear, rm.BatchNorm2d, rm.ReLU, rm.LeakyReLU, rm.Tanh, rm.Softplus,
    rm.MaxPool2d, rm.AvgPool2d, rm.SpatialMean, rm.Flatten, rm.GroupNorm, rm.LayerNorm,
    rm.InstanceNorm2d, rm.Sigmoid, rm.SiLU, rm.GELU, rm.ELU, rm.Softmax, rm.LogSoftmax,
    rm.Dropout, rm.EvalBatchNorm2d(2, (0.1, 0.2), (1.0, 2.0)), rm.Conv2d(4, 6, 3, groups=2),
    rm.Conv2d(2, 3, (2, 3), dilation=(2, 1), padding="same"),
    rm.Residual([rm.Tanh()]), rm.FiLM(3, 2), rm.Context(2),
]  # fmt: skip


@pytest.mark.parametrize("like", LAYERS, ids=lambda like: getattr(like, "__name__", str(like)[:40]))
def test_every_layer_is_right_in_all_four_passes_by_its_own_code(like):
    shape = (4,) if isinstance(like, rm.Context) else None
    report = rm.check_layer(by_own_code("backward"), like, input_shape=shape,
                            **{n: by_own_code(n) for n in ALL})  # fmt: skip
    assert report.ok, report
    wrong = rm.check_layer(by_own_code("backward", lambda a: 1.1 * a + 0.01), like,
                           input_shape=shape)  # fmt: skip
    assert wrong.verdict == "wrong"


def test_the_passes_along_a_tangent_have_names_too():
    right = {n: by_own_code(n) for n in ALL}

    def of_rdy_alone(x, params, dy, rx, rparams, rdy, layer):
        return by_own_code("backward")(x, params, rdy, layer)

    report = rm.check_layer(
        by_own_code("backward"), rm.BatchNorm2d, **{**right, "r_backward": of_rdy_alone}
    )
    assert "the tangents of x and params are left out" in report.diagnosis

    def half(x, params, rx, rparams, layer):
        return by_own_code("r_forward")(x, params, rx, rparams, layer) / 2

    report = rm.check_layer(by_own_code("backward"), rm.Tanh, **{**right, "r_forward": half})
    assert "ry: 1/2 times the right one" in report.diagnosis


def test_forward_may_hand_saved_values_to_backward():
    def forward(x, params):
        y = np.tanh(x)
        return y, y

    assert rm.check_layer(lambda y, p, dy: (1 - y**2) * dy, rm.Tanh(), forward=forward).ok
    report = rm.check_layer(lambda y, p, dy: (1 - y) * dy, rm.Tanh(), forward=forward)
    assert "1 - y is used" in report.diagnosis
    wrong = rm.check_layer(lambda x, p, dy: (1 - np.tanh(x) ** 2) * dy, rm.Tanh(),
                           forward=lambda x, p: -np.tanh(x))  # fmt: skip
    assert "y: the sign is wrong" in wrong.diagnosis


def test_float32_has_its_own_tolerance():
    def backward(x, params, dy):
        assert x.dtype == np.float32
        return (1 - np.tanh(x) ** 2) * dy

    assert rm.check_layer(backward, rm.Tanh(), precision="float32").ok
    assert rm.check_layer(max_pool("last"), rm.MaxPool2d(2), precision="float32").ok


def test_a_report_of_a_layer_as_json():
    record = json.loads(rm.check_layer(batch_norm("sign"), rm.BatchNorm2d).to_json())
    assert record["check"] == "layer" and record["rows"][0]["factor"] == pytest.approx(-1)


TANH = rm.Tanh()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, TANH), "backward: expected a function backward(x, params, dy)"),
        ((lambda x: x, TANH), "backward: expected a function backward(x, params, dy)"),
        ((lambda x, p, dy: dy, 3), "like: expected a layer of refmaml"),
        ((lambda x, p, dy: dy, rm.CrossEntropy()), "like: expected a layer of refmaml"),
        ((lambda x, p, dy: dy, int), "like: expected a layer of refmaml"),
        ((lambda x, p, dy: dy, rm.FiLM), "like: expected an instance, such as rm.FiLM(...)"),
        ((lambda x, p, dy: dy, rm.Conv2d), "like: expected an instance, such as rm.Conv2d(2, 3"),
        ((lambda x, p, dy: None, TANH), "backward: expected a dict with x"),
        ((lambda x, p, dy: {"y": dy}, TANH), "backward: expected the names x, got 'y'"),
        ((lambda x, p, dy: {"x": None}, TANH), "backward: expected some of x, got none"),
        ((lambda x, p, dy: dy * np.nan, TANH), "backward['x']: expected finite numbers"),
        (
            (lambda x, p, dy: 1 / 0, TANH),
            "backward: expected adjoints on input 3 x 4 x 6, got Zero",
        ),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words):
    with pytest.raises(rm.ArgumentError) as error:
        rm.check_layer(*arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_shape_that_the_layer_cannot_take_is_one_line():
    with pytest.raises(rm.ArgumentError, match="input of Linear"):
        rm.check_layer(lambda x, p, dy: dy, rm.Linear(4, 3), input_shape=(5,))
