"""Rung 7: another kernel set against the reference kernels on the same inputs, in both precisions."""
import numpy as np

from refmaml.oracles import cases
from refmaml.oracles.chain_checks import chain_checks
from refmaml.oracles.layer_checks import LayerProbe, empty_like, flat
from refmaml.oracles.net_checks import describe, method_terms
from refmaml.oracles.tolerance import Check, relative_error, tolerance


def four_passes(probe, kernels, dtype):
    """{quantity: value} of a layer's passes on `kernels` with the probe's inputs in `dtype`."""
    def cast(a):
        return {name: v.astype(dtype) for name, v in a.items()} if isinstance(a, dict) else a.astype(dtype)
    layer, w, rw, x, rx, dy, rdy = probe.layer, *map(cast, (probe.w, probe.rw, probe.x, probe.rx, probe.dy, probe.rdy))
    y, saved = layer.forward(kernels, w, x)
    dw, rdw = empty_like(w, len(x), dtype), empty_like(w, len(x), dtype)
    dx = layer.backward(kernels, dw, w, saved, dy)
    ry, rsaved = layer.r_forward(kernels, w, rw, saved, rx)
    rdx = layer.r_backward(kernels, rdw, w, rw, saved, rsaved, dy, rdy)
    out = {"y": y, "dx": dx, "ry": ry, "rdx": rdx}
    return {**out, "dw": flat(dw), "rdw": flat(rdw)} if w else out


def layer_kernel_checks(case, kernels, reference, dtype, shared=False):
    """Every pass of one layer on `kernels` in `dtype` against `reference` in float64."""
    probe = LayerProbe(case, reference, shared=shared)
    exact, fast = four_passes(probe, reference, np.float64), four_passes(probe, kernels, dtype)
    limit = probe.tolerance * np.finfo(dtype).eps / np.finfo(float).eps
    subject = f"{case}{', shared' if shared else ''} [{kernels.name}, {np.dtype(dtype).name}]"
    return [Check("7 kernels", subject, name, "reference kernels", relative_error(fast[name], value), limit)
            for name, value in exact.items()]


def method_kernel_check(method, net, meta, batch, kernels, dtype):
    """A whole meta-gradient on `kernels` in `dtype` against the net's own kernels in float64."""
    exact = method.meta_gradient(net, meta, batch).grad
    fast = method.meta_gradient(net.with_kernels(kernels), meta.astype(dtype), batch).grad
    return Check("7 kernels", f"{describe(method)} [{kernels.name}, {np.dtype(dtype).name}]", "dM/dmeta", "reference kernels",
                 relative_error(fast, exact), tolerance(dtype, method_terms(method, net, batch)))


def kernel_checks(kernels, reference):
    """Every layer, nets that run as one kernel where the set can, and a second-order method on another kernel set."""
    rows = list(chain_checks(kernels))
    for dtype in (np.float32, np.float64):
        for case in cases.LAYERS:
            for shared in (False, True) if case.layer.shapes() else (False,):
                rows += layer_kernel_checks(case, kernels, reference, dtype, shared)
        net, (method, _) = cases.conv_net().with_kernels(reference), cases.methods()[0]
        theta, batch, _ = cases.method_case(net, [method.inner_lr] * method.inner_steps)
        rows.append(method_kernel_check(method, net, theta, batch, kernels, dtype))
    return rows
