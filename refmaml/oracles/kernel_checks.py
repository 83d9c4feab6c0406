"""Rung 7: another kernel set against the reference kernels on the same inputs, in both precisions."""

import numpy as np

from refmaml.execution.recorded_gradient import RecordedGradient
from refmaml.methods import IMAML
from refmaml.oracles import cases
from refmaml.oracles.layer_checks import LayerProbe, empty_like, flat
from refmaml.oracles.net_checks import describe, method_terms
from refmaml.oracles.rows import attempted, on
from refmaml.oracles.tolerance import Check, relative_error, tolerance
from refmaml.oracles.unrolled import fixed_rates
from refmaml.oracles.whole_net_checks import chain_checks


def four_passes(probe, kernels, dtype):
    """{quantity: value} of a layer's passes on `kernels` with the probe's inputs in `dtype`."""

    def cast(a):
        return each(lambda v: kernels.to_device(v.astype(dtype))[0], a)

    layer, w, rw, x, rx, dy, rdy = (
        probe.layer,
        *map(cast, (probe.w, probe.rw, probe.x, probe.rx, probe.dy, probe.rdy)),
    )
    y, saved = layer.forward(kernels, w, x)
    dw, rdw = (cast(empty_like(w, len(x), dtype)) for _ in range(2))
    dx = layer.backward(kernels, dw, w, saved, dy)
    ry, rsaved = layer.r_forward(kernels, w, rw, saved, rx)
    rdx = layer.r_backward(kernels, rdw, w, rw, saved, rsaved, dy, rdy)
    out = each(kernels.to_host, {"y": y, "dx": dx, "ry": ry, "rdx": rdx})
    return (
        {**out, "dw": flat(each(kernels.to_host, dw)), "rdw": flat(each(kernels.to_host, rdw))}
        if w
        else out
    )


def each(function, a):
    """function of an array, or of every array of a dict."""
    return {name: function(v) for name, v in a.items()} if isinstance(a, dict) else function(a)


def layer_kernel_checks(case, kernels, reference, dtype, shared=False):
    """Every pass of one layer on `kernels` in `dtype` against `reference` in float64."""
    probe = LayerProbe(case, reference, shared=shared)
    exact, fast = four_passes(probe, reference, np.float64), four_passes(probe, kernels, dtype)
    limit = probe.tolerance * np.finfo(dtype).eps / np.finfo(float).eps
    subject = on(kernels, case, dtype, shared)
    return [
        Check(
            "7 kernels",
            subject,
            name,
            "reference kernels",
            relative_error(fast[name], value),
            limit,
        )
        for name, value in exact.items()
    ]


def method_kernel_check(method, net, meta, batch, kernels, dtype):
    """A whole meta-gradient on `kernels` in `dtype` against the net's own kernels in float64."""
    exact = method.meta_gradient(net, meta, batch).grad
    fast = method.meta_gradient(net.with_kernels(kernels), meta.astype(dtype), batch).grad
    return Check(
        "7 kernels",
        on(kernels, describe(method), dtype),
        "dM/dmeta",
        "reference kernels",
        relative_error(fast, exact),
        tolerance(dtype, method_terms(method, net, batch)),
    )


def recorded_check(method, net, meta, batch, kernels, dtype):
    """A meta-gradient replayed as a CUDA graph, for other numbers than it was recorded with, against launch by launch: no bit off."""
    net, meta = net.with_kernels(kernels), meta.astype(dtype)
    recorded = RecordedGradient(method, net, 0 * meta, batch)
    return Check(
        "7 kernels",
        on(kernels, describe(method), dtype),
        "dM/dmeta, replayed",
        "launch by launch",
        relative_error(recorded(meta, batch).grad, method.meta_gradient(net, meta, batch).grad),
        0.0,
    )


def methods_elsewhere(kernels, reference, dtype):
    """Every method where arrays are not NumPy's, and every one that can be a CUDA graph as one."""
    smooth, K = cases.smooth_net(), {"inner_steps": 3, "regularization": 2.0}
    given = [(method, cases.conv_net(context)) for method, context in cases.methods()]
    given += [
        (method, smooth)
        for method in (*cases.reptiles(), IMAML(**K), IMAML(**K, solver="newton_cg"))
    ]
    for method, net in given:
        net = net.with_kernels(reference)
        theta, batch, _ = cases.method_case(net, fixed_rates(net, method))
        given, subject = (
            (method, net, method.init(net, theta), batch, kernels, dtype),
            on(kernels, describe(method), dtype),
        )
        yield from attempted(subject, method_kernel_check, *given)
        if method.data_independent:
            yield from attempted(subject, recorded_check, *given)


def kernel_checks(kernels, reference):
    """Every layer, nets that run as one kernel where the set can, and methods on another kernel set: a second-order one, or where arrays
    are not NumPy's every one. Yields each Check as it is made."""
    yield from chain_checks(kernels)
    for dtype in (np.float32, np.float64):
        for case in cases.LAYERS:
            for shared in (False, True) if case.layer.shapes() else (False,):
                yield from attempted(
                    on(kernels, case, dtype, shared),
                    layer_kernel_checks,
                    case,
                    kernels,
                    reference,
                    dtype,
                    shared,
                )
        if kernels.on_device:
            yield from methods_elsewhere(kernels, reference, dtype)
            continue
        net, (method, _) = cases.conv_net().with_kernels(reference), cases.methods()[0]
        theta, batch, _ = cases.method_case(net, [method.inner_lr] * method.inner_steps)
        yield from attempted(
            on(kernels, describe(method), dtype),
            method_kernel_check,
            method,
            net,
            theta,
            batch,
            kernels,
            dtype,
        )
