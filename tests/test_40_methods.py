"""Rung 4: every meta-gradient against the complex step through the inner loop."""

import tracemalloc

import numpy as np
import pytest

import refmaml as rm
from refmaml.methods import table_entry
from refmaml.oracles import cases, complex_step, meta_objectives, method_checks, wrong_gradients

PROMISE = 1e-12  # what the README promises of every meta-gradient in float64
METHODS = cases.methods()


def case_of(method, context):
    net = cases.conv_net(context)
    rates = meta_objectives.fixed_rates(net, method)
    theta, batch, margin = cases.method_case(net, rates, method=method)
    return net, theta, batch, margin


@pytest.mark.parametrize(
    "method,context",
    METHODS,
    ids=lambda v: method_checks.describe(v) if not isinstance(v, bool) else "",
)
def test_a_meta_gradient_is_the_derivative_of_the_loss_after_adaptation(method, context):
    net, theta, batch, margin = case_of(method, context)
    check = method_checks.meta_gradient_check(
        method, net, method.init(net, theta), batch, margin=margin
    )
    assert check.passed and check.error < PROMISE, check


def test_the_check_refuses_every_wrong_meta_gradient_of_maml():
    method, net = METHODS[0][0], cases.conv_net()
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, method))
    truth = method_checks.truth_by_steps(method, net, theta, batch)
    checks = wrong_gradients.planted_errors(method, net, theta, batch, truth)
    assert len(checks) == 5
    for name, check in checks.items():
        assert not check.passed and check.error > 1e-3, (name, check)


def test_the_check_refuses_a_single_entry_that_is_off_by_a_millionth():
    method, net = METHODS[0][0], cases.conv_net()
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, method))
    truth = method_checks.truth_by_steps(method, net, theta, batch)

    def nearly(net, meta, batch):
        grad = method.meta_gradient(net, meta, batch).grad
        grad[np.abs(grad).argmax()] *= 1 + 1e-6
        return grad

    assert not method_checks.meta_gradient_check(
        method, net, theta, batch, truth, candidate=nearly
    ).passed


def test_cavia_differentiates_through_its_context_and_the_context_really_moves():
    method, net = rm.CAVIA(0.3, 5), cases.conv_net(True)
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, method))
    out = method.meta_gradient(net, theta, batch, trace=True)
    context = net.mask(("context",))
    assert (out.grad[context] == 0).all() and (out.grad[~context] != 0).any()
    assert (out.trace["phi"][0][:, context] == 0).all() and (
        out.trace["phi"][-1][:, context] != 0
    ).all()
    assert np.array_equal(
        out.trace["phi"][-1][:, ~context], np.repeat(theta[None, ~context], len(batch), 0)
    )
    # lam_0 on the context is the derivative in its start: the complex step agrees.
    x, y = batch.x_support, batch.y_support
    A = method.inner_lr * context

    def M(start):
        phis = meta_objectives.inner_loop(
            net, start[None] * np.ones((len(batch), 1)), [A] * 5, x, y
        )
        return net.loss(phis[-1], batch.x_query, batch.y_query).mean()

    zeroed = np.where(context, 0, theta)
    v = context * np.random.default_rng(0).standard_normal(len(theta))
    assert (
        abs(out.trace["lam"][0].mean(axis=0) @ v / complex_step.directional(M, zeroed, v) - 1)
        < PROMISE
    )


@pytest.mark.parametrize(
    "method", cases.methods_with(table_entry.DISPLACEMENT), ids=method_checks.describe
)
def test_reptile_is_its_definition_stepped_by_hand(method):
    net, rng = cases.smooth_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, tasks=3)
    check = method_checks.displacement_check(method, net, theta, batch)
    assert check.passed and check.error < PROMISE, check


def test_a_carried_moment_that_starts_at_zero_again_is_noticed():
    class Forgetful(rm.Reptile):
        def descend(self, net, meta, x, y, trace=False):
            return super().descend(
                net,
                np.concatenate([meta[: net.num_params], 0 * meta[net.num_params :]]),
                x,
                y,
                trace,
            )

    net, rng = cases.smooth_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, tasks=3)
    check = method_checks.displacement_check(
        Forgetful(0.01, 5, optimizer="adam", moment="carried"), net, theta, batch
    )
    assert not check.passed and check.error > 1e-3


def test_mini_batches_use_every_example_once_before_one_is_repeated():
    places = rm.Reptile(0.1, inner_steps=5, inner_batch=4).mini_batches(10)
    assert (
        sorted(np.concatenate(places)[:10]) == list(range(10))
        and [len(p) for p in places] == [4] * 5
    )


def test_anil_moves_the_head_only_and_differs_from_its_first_order_kin():
    net, theta, batch, _ = case_of(rm.ANIL(0.3, 5), False)
    head = net.mask(("head",))
    phi = rm.ANIL(0.3, 5).adapt(net, theta, batch.x_support, batch.y_support)
    assert (phi[:, ~head] == theta[~head]).all() and (phi[:, head] != theta[head]).all()
    exact, first = (
        kind(0.3, 5).meta_gradient(net, theta, batch).grad for kind in (rm.ANIL, rm.FirstOrderANIL)
    )
    assert (
        np.abs(exact - first)[~head].max() > 1e-3 * np.abs(exact).max()
    )  # the mixed term reaches the body


def test_memory_chunks_and_repeated_runs_do_not_change_a_bit():
    net, rng = cases.conv_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, tasks=7)
    for method in (rm.MAML(0.3, 3), rm.IMAML(2.0, 5), rm.MAMLPlusPlus(0.3, 2)):
        meta = method.init(net, theta)
        whole = method.meta_gradient(net, meta, batch, chunk=7, trace=True)
        for chunk in (1, 2, 5):
            part = method.meta_gradient(net, meta, batch, chunk=chunk, trace=True)
            assert np.array_equal(part.grad, whole.grad) and np.array_equal(
                part.task_losses, whole.task_losses
            )
            assert all(
                np.array_equal(a, b)
                for name in whole.trace
                for a, b in zip(part.trace[name], whole.trace[name], strict=True)
            )


def test_memory_does_not_grow_with_the_number_of_tasks():
    net, rng = cases.conv_net(), np.random.default_rng(0)
    theta, peaks = cases.start(net, rng), []
    for tasks in (8, 64):
        batch = cases.tasks_for(net, rng, tasks=tasks)
        tracemalloc.start()
        rm.MAML(0.3, 3).meta_gradient(net, theta, batch, chunk=4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_the_trace_of_maml_satisfies_its_two_recursions():
    method, net = rm.MAML(0.3, 4), cases.conv_net()
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, method))
    t = method.meta_gradient(net, theta, batch, trace=True).trace
    assert [len(t[name]) for name in ("phi", "inner_grad", "lam", "hvp")] == [5, 4, 5, 4]
    for k in range(4):
        assert np.array_equal(t["phi"][k + 1], t["phi"][k] - 0.3 * t["inner_grad"][k])
        assert np.array_equal(t["lam"][k], t["lam"][k + 1] - t["hvp"][k])
    assert all(a.shape == (2, net.num_params) for name in t for a in t[name])


def test_without_trace_nothing_is_kept():
    net, theta, batch, _ = case_of(rm.MAML(0.3, 5), False)
    assert rm.MAML(0.3, 5).meta_gradient(net, theta, batch).trace == {}


def test_losses_and_accuracies_are_those_of_the_adapted_parameters():
    net, theta, batch, _ = case_of(rm.MAML(0.3, 5), False)
    method = rm.MAML(0.3, 5)
    out = method.meta_gradient(net, theta, batch)
    phi = method.adapt(net, theta, batch.x_support, batch.y_support)
    z, _ = net.forward(net.parameters.views(phi), batch.x_query)
    assert (
        np.array_equal(out.task_losses, net.loss(phi, batch.x_query, batch.y_query))
        and out.loss == out.task_losses.mean()
    )
    assert out.accuracy == (z.argmax(-1) == batch.y_query).mean()
