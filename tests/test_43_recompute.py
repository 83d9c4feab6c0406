"""Recomputed activations: equal bits, one more pass a step, memory independent of K."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import refmaml as rm
from refmaml.methods import inner_loop_adjoint
from refmaml.oracles import cases, meta_objectives, method_checks

# Every method with an adjoint recursion, with whether it needs a net with context.
DIFFERENTIATED = [
    (method, context)
    for method, context in cases.methods(inner_steps=3)
    if hasattr(method, "recompute")
]


def case_of(method, context=False):
    net = cases.conv_net(context)
    rates = meta_objectives.fixed_rates(net, method)
    theta, batch, _ = cases.method_case(net, rates, method=method)
    return net, method.init(net, theta), batch


def same_bits(a, b):
    """Whether two MetaGradients agree to the last bit, traces included."""
    return (
        a.grad.tobytes() == b.grad.tobytes()
        and a.task_losses.tobytes() == b.task_losses.tobytes()
        and a.trace.keys() == b.trace.keys()
        and all(
            x.tobytes() == y.tobytes()
            for name in a.trace
            for x, y in zip(a.trace[name], b.trace[name], strict=True)
        )
    )


def test_the_methods_that_can_recompute_are_those_with_an_adjoint_recursion():
    assert {type(method).__name__ for method, _ in DIFFERENTIATED} == {
        "MAML",
        "ANIL",
        "MetaSGD",
        "MetaCurvature",
        "MAMLPlusPlus",
        "CAVIA",
    }


@pytest.mark.parametrize("trace", [False, True], ids=["", "traced"])
@pytest.mark.parametrize(
    "method,context",
    DIFFERENTIATED,
    ids=lambda v: method_checks.describe(v) if not isinstance(v, bool) else "",
)
def test_recomputed_activations_give_the_bits_of_stored_ones(method, context, trace):
    net, meta, batch = case_of(method, context)
    stored, again = (
        replace(method, recompute=r).meta_gradient(net, meta, batch, trace=trace)
        for r in (False, True)
    )
    assert same_bits(stored, again) and bool(stored.trace) == trace


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_recomputed_activations_give_the_bits_of_stored_ones_with_the_cpu_kernels(dtype):
    method = rm.MAML(0.3, 3)
    net, meta, batch = case_of(method)
    net, meta = net.with_kernels(rm.kernels.cpu()), meta.astype(dtype)
    assert same_bits(
        *(replace(method, recompute=r).meta_gradient(net, meta, batch) for r in (False, True))
    )


def test_the_comparison_notices_passes_at_the_wrong_phi(monkeypatch):
    method = rm.MAML(0.3, 3, recompute=True)
    net, meta, batch = case_of(method)
    stored = replace(method, recompute=False).meta_gradient(net, meta, batch)
    monkeypatch.setattr(
        inner_loop_adjoint.Recomputed,
        "__getitem__",
        lambda self, k: self.net.primal(self.phis[max(k - 1, 0)], *self.sets[k]),
    )
    assert not same_bits(stored, method.meta_gradient(net, meta, batch))


@pytest.mark.parametrize("recompute,forward", [(False, 5 + 1), (True, 5 + 5 + 1)])
def test_recomputing_costs_one_forward_and_one_backward_pass_a_step(recompute, forward):
    calls = dict.fromkeys(("forward", "backward", "hvp"), 0)

    class Counted(rm.Sequential):
        def counted(name):
            def run(self, *args, **kwargs):
                calls[name] += 1
                return getattr(rm.Sequential, name)(self, *args, **kwargs)

            return run

        forward, backward, hvp = map(counted, ("forward", "backward", "hvp"))

    plain, meta, batch = case_of(rm.MAML(0.3, 5))
    net = Counted(plain.layers, plain.loss_function, plain.input_shape)
    rm.MAML(0.3, 5, recompute=recompute).meta_gradient(net, meta, batch)
    assert calls == {"forward": forward, "backward": forward, "hvp": 5}


def growth(method, steps=(2, 12)):
    """The growth of the peak of memory with each inner step, in vectors (T, P)."""
    net, rng, peaks = rm.conv4(3, channels=16, image=(1, 12, 12)), np.random.default_rng(0), []
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, tasks=4)
    for K in steps:
        method = replace(method, inner_steps=K)
        method.meta_gradient(net, theta, batch)  # what Python itself allocates on a first call
        tracemalloc.start()
        method.meta_gradient(net, theta, batch)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return (peaks[1] - peaks[0]) / (steps[1] - steps[0]) / (theta.nbytes * len(batch))


@pytest.mark.slow
@pytest.mark.parametrize(
    "method,vectors",
    [
        (rm.MAML(0.1, recompute=True), 1),
        (rm.FirstOrderMAML(0.1), 0),
        (rm.Reptile(0.1), 0),
        (rm.IMAML(2.0), 0),
        (rm.IMAML(2.0, solver="newton_cg"), 0),
    ],
    ids=method_checks.describe,
)
def test_memory_grows_by_the_vectors_phi_alone_or_not_at_all(method, vectors):
    assert abs(growth(method) - vectors) < 0.05


@pytest.mark.slow
def test_stored_activations_and_recomputed_ones_that_the_caller_keeps_grow_with_every_step(
    monkeypatch,
):
    assert growth(rm.MAML(0.1)) > 5
    kept, once = [], inner_loop_adjoint.Recomputed.__getitem__

    def keeping(self, k):
        kept.append(once(self, k))
        return kept[-1]

    monkeypatch.setattr(inner_loop_adjoint.Recomputed, "__getitem__", keeping)
    assert growth(rm.MAML(0.1, recompute=True)) > 5
