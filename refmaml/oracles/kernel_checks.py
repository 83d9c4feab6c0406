"""Rung 7: a kernel set against the reference kernels, in float32 and float64."""

import numpy as np

from refmaml.execution.recorded_gradient import RecordedGradient
from refmaml.methods import IMAML, MAML, table_entry
from refmaml.oracles import cases
from refmaml.oracles.guarded import guarded, subject_on
from refmaml.oracles.layer_checks import LayerProbe, empty_like, flat
from refmaml.oracles.meta_objectives import fixed_rates
from refmaml.oracles.method_checks import describe, method_terms
from refmaml.oracles.rule_checks import RULES, smooth_case
from refmaml.oracles.tolerance import Check, relative_error, tolerance
from refmaml.oracles.whole_net_checks import whole_net_checks


def four_passes(probe, kernels, dtype):
    """{quantity: value} of a layer's passes on `kernels` in `dtype`."""

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
    if not w:
        return out
    return {**out, "dw": flat(each(kernels.to_host, dw)), "rdw": flat(each(kernels.to_host, rdw))}


def each(function, a):
    """function of an array, or of every array of a dict."""
    return {name: function(v) for name, v in a.items()} if isinstance(a, dict) else function(a)


def layer_kernel_checks(case, kernels, reference, dtype, shared=False):
    """Every pass of a layer on `kernels` in `dtype` against `reference` in float64."""
    probe = LayerProbe(case, reference, shared=shared)
    exact, fast = four_passes(probe, reference, np.float64), four_passes(probe, kernels, dtype)
    limit = probe.tolerance * np.finfo(dtype).eps / np.finfo(float).eps
    subject = subject_on(kernels, case, dtype, shared)
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
    """A meta-gradient on `kernels` in `dtype` against the net's kernels in float64."""
    exact = method.meta_gradient(net, meta, batch).grad
    fast = method.meta_gradient(net.with_kernels(kernels), meta.astype(dtype), batch).grad
    return Check(
        "7 kernels",
        subject_on(kernels, describe(method), dtype),
        "dM/dmeta",
        "reference kernels",
        relative_error(fast, exact),
        tolerance(dtype, method_terms(method, net, batch)),
    )


def recorded_check(method, net, meta, batch, kernels, dtype):
    """A meta-gradient replayed as a CUDA graph against separate launches: equal bits.

    The graph is recorded at other parameters than it is replayed with.
    """
    net, meta = net.with_kernels(kernels), meta.astype(dtype)
    recorded = RecordedGradient(method, net, 0 * meta, batch)
    return Check(
        "7 kernels",
        subject_on(kernels, describe(method), dtype),
        "dM/dmeta, replayed",
        "launch by launch",
        relative_error(recorded(meta, batch).grad, method.meta_gradient(net, meta, batch).grad),
        0.0,
    )


def device_method_checks(kernels, reference, dtype):
    """Every method on kernels whose arrays are on a GPU.

    A method whose launches do not depend on the data is checked as a CUDA graph too.
    """
    smooth, K = cases.smooth_net(), {"inner_steps": 3, "regularization": 2.0}
    tried = [(method, cases.conv_net(context)) for method, context in cases.methods()]
    tried += [
        (method, smooth)
        for method in (
            *cases.methods_with(table_entry.DISPLACEMENT),
            IMAML(**K),
            IMAML(**K, solver="newton_cg"),
        )
    ]
    for method, net in tried:
        net = net.with_kernels(reference)
        theta, batch, _ = cases.method_case(net, fixed_rates(net, method), method=method)
        arguments = method, net, method.init(net, theta), batch, kernels, dtype
        subject = subject_on(kernels, describe(method), dtype)
        yield from guarded(subject, method_kernel_check, *arguments)
        if getattr(method, "data_independent", False):
            yield from guarded(subject, recorded_check, *arguments)


def rule_kernel_checks(kernels, reference, dtype):
    """MAML with each update rule; on a GPU also as a CUDA graph."""
    net, theta, batch = smooth_case()
    for rule in RULES:
        method = MAML(0.05, 3, rule=rule)
        subject = subject_on(kernels, describe(method), dtype)
        arguments = method, net.with_kernels(reference), theta, batch, kernels, dtype
        yield from guarded(subject, method_kernel_check, *arguments)
        if kernels.on_device:
            yield from guarded(subject, recorded_check, *arguments)


def named_net_check(name, net, kernels, reference, dtype):
    """MAML on a named net against the reference kernels in float64."""
    method, net = MAML(0.1, 2), net.with_kernels(reference)
    theta, batch, _ = cases.method_case(net, fixed_rates(net, method), method=method)
    check = method_kernel_check(method, net, theta, batch, kernels, dtype)
    return check._replace(subject=f"{name}: {check.subject}")


def kernel_checks(kernels, reference):
    """Every layer, whole nets and methods on a kernel set, Check by Check.

    Nets run as one kernel if the set can do that. On the CPU the method is MAML; on a
    GPU every method is checked. Update rules are checked with MAML.
    """
    yield from whole_net_checks(kernels)
    for dtype in (np.float32, np.float64):
        yield from all_layer_checks(kernels, reference, dtype)
        if kernels.on_device:
            yield from device_method_checks(kernels, reference, dtype)
        else:
            net, method = cases.conv_net().with_kernels(reference), cases.methods()[0][0]
            theta, batch, _ = cases.method_case(net, fixed_rates(net, method), method=method)
            subject = subject_on(kernels, describe(method), dtype)
            yield from guarded(
                subject, method_kernel_check, method, net, theta, batch, kernels, dtype
            )
        yield from rule_kernel_checks(kernels, reference, dtype)
        for name, net in cases.nets_without_weights_first().items():
            subject = f"{name}: {subject_on(kernels, 'MAML', dtype)}"
            yield from guarded(subject, named_net_check, name, net, kernels, reference, dtype)


def all_layer_checks(kernels, reference, dtype):
    """Every layer, with parameters per task and with shared ones."""
    for case in cases.LAYERS:
        for shared in (False, True) if case.layer.shapes() else (False,):
            subject = subject_on(kernels, case, dtype, shared)
            yield from guarded(
                subject, layer_kernel_checks, case, kernels, reference, dtype, shared
            )
