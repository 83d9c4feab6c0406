"""CNP: an encoder in place of the inner loop."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.methods import cnp
from refmaml.oracles import cases, method_checks
from refmaml.oracles.neural_process_checks import (
    BY_CLASS,
    METHOD,
    adjoint_check,
    classifier,
    decoder,
    mean_check,
    neural_process_checks,
    start,
)
from refmaml.oracles.solved_head_checks import hvp_check
from refmaml.oracles.tolerance import relative_error

PROMISE = 1e-12  # what the project promises of every derivative in float64
RIGHT = {name: getattr(cnp, name) for name in ("to_each", "with_context", "without_context")}


def test_every_check_of_the_ladder_passes():
    checks = list(neural_process_checks(kernels.reference()))
    assert len(checks) == 9
    assert all(check.passed and check.error < PROMISE for check in checks), checks


@pytest.mark.parametrize("net", [cases.conv_net(True), cases.smooth_net(True)], ids=["kinks", ""])
def test_a_convolutional_net_takes_the_encoding_as_its_context(net):
    meta, batch = start(net)
    for check in (
        method_checks.meta_gradient_check(METHOD, net, meta, batch),
        hvp_check(METHOD, net, meta, batch, "CNP"),
    ):
        assert check.passed and check.error < PROMISE, check


# ---- planted errors ------------------------------------------------------------------


def sum_for_mean(k, s, dr):
    """Each example gets dr, not its share."""
    return RIGHT["to_each"](k, (s > 0).astype(s.dtype), dr)


def first_example_alone(k, s, dr):
    """Only one example gets its share."""
    dh = RIGHT["to_each"](k, s, dr)
    dh[:, 1:] = 0
    return dh


def divided_by_tasks(k, s, dr):
    """dr / T for dr / N."""
    return RIGHT["to_each"](k, (s > 0) / len(s), dr)


CASES = {"all examples": (decoder, METHOD), "by class": (classifier, BY_CLASS)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wrong", [sum_for_mean, first_example_alone, divided_by_tasks])
def test_a_planted_error_of_the_mean_s_adjoint_is_refused(monkeypatch, wrong, case):
    make, method = CASES[case]
    net = make()
    meta, batch = start(net, method)
    monkeypatch.setattr(cnp, "to_each", wrong)
    gradient = method_checks.meta_gradient_check(method, net, meta, batch)
    adjoint = adjoint_check(method, net, meta, batch)
    for check in (gradient, adjoint):
        assert not check.passed and check.error > 1e-3, check


def test_a_gradient_on_the_unused_context_is_refused(monkeypatch):
    net = decoder()
    meta, batch = start(net)
    monkeypatch.setattr(cnp, "without_context", lambda net, rows: rows)
    check = method_checks.meta_gradient_check(METHOD, net, meta, batch)
    assert not check.passed and check.error > 1e-3, check


def test_a_product_without_the_encoding_s_tangent_is_refused(monkeypatch):
    """phi is right, but rr is taken for 0: calls with a tangent come second."""
    net, calls = decoder(), []
    meta, batch = start(net)

    def wrong(net, theta, r):
        calls.append(len(calls))
        return RIGHT["with_context"](net, theta, r if len(calls) % 2 else 0 * r)

    v = np.random.default_rng(1).standard_normal(len(meta))
    right = METHOD.hvp(net, meta, batch, v)
    monkeypatch.setattr(cnp, "with_context", wrong)
    assert relative_error(METHOD.hvp(net, meta, batch, v), right) > 1e-3


def test_a_sum_for_the_mean_is_refused_by_the_parts_of_a_set(monkeypatch):
    net = decoder()
    meta, batch = start(net)
    right = METHOD.adapt

    class Sum(rm.CNP):
        def adapt(self, net, meta, x, y):
            phi = right(net, meta, x, y)
            phi[:, net.mask(("context",))] *= x.shape[1]
            return phi

    assert mean_check(Sum((6, 5)), net, meta, batch).error > 1e-3


# ---- what it computes ----------------------------------------------------------------


def test_theta_s_own_context_has_no_effect_and_no_gradient():
    net = decoder()
    meta, batch = start(net)
    context = np.flatnonzero(net.mask(("context",)))
    other = meta.copy()
    other[context] = 7.0
    a, b = (METHOD.meta_gradient(net, m, batch) for m in (meta, other))
    assert np.array_equal(a.grad, b.grad) and a.loss == b.loss
    assert (a.grad[context] == 0).all()
    assert (np.delete(a.grad, context) != 0).mean() > 0.8  # the others but dead ReLUs


def test_the_loss_is_the_mean_of_torch_s_normal_density_by_hand():
    net = decoder()
    meta, batch = start(net)
    phi = METHOD.adapt(net, meta, batch.x_support, batch.y_support)
    z, _ = net.forward(net.parameters.views(phi), batch.x_query)
    m, sigma = z[..., :3], 0.1 + 0.9 * np.log1p(np.exp(z[..., 3:]))
    density = np.exp(-(((batch.y_query - m) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
    assert METHOD.meta_gradient(net, meta, batch).loss == pytest.approx(-np.log(density).mean())


def test_chunks_change_no_bit_and_sets_of_any_size_fit():
    net = decoder()
    meta, _ = start(net)
    batch = cases.tasks_for(net, np.random.default_rng(3), tasks=5)
    whole = METHOD.meta_gradient(net, meta, batch, chunk=5)
    for chunk in (1, 2):
        assert np.array_equal(METHOD.meta_gradient(net, meta, batch, chunk=chunk).grad, whole.grad)
    one = METHOD.adapt(net, meta, batch.x_support[:, :1], batch.y_support[:, :1])
    assert one.shape == (5, net.num_params) and np.isfinite(one).all()


def test_tasks_of_different_sizes_are_those_of_each_alone():
    net, rng = decoder(), np.random.default_rng(5)
    meta, _ = start(net)
    tasks = [cases.tasks_for(net, rng, 1, support=n) for n in (4, 6, 12)]
    sets = zip(*(task.arrays for task in tasks), strict=True)
    ragged = rm.Batch(*([a[0] for a in arrays] for arrays in sets))
    alone = [METHOD.meta_gradient(net, meta, task) for task in tasks]
    together = METHOD.meta_gradient(net, meta, ragged)
    assert np.array_equal(together.task_losses, [out.loss for out in alone])
    assert relative_error(together.grad, np.mean([out.grad for out in alone], axis=0)) < 1e-15


def test_float32_is_near_float64():
    net = decoder()
    meta, batch = start(net)
    exact = METHOD.meta_gradient(net, meta, batch).grad
    single = METHOD.meta_gradient(net, meta.astype(np.float32), batch).grad
    assert single.dtype == np.float32 and relative_error(single, exact) < 1e-4


@pytest.mark.slow
def test_the_cpu_kernels_agree_with_the_reference():
    net = decoder()
    meta, batch = start(net)
    exact = METHOD.meta_gradient(net, meta, batch).grad
    cpu = METHOD.meta_gradient(net.with_kernels("cpu"), meta, batch).grad
    assert relative_error(cpu, exact) < PROMISE


def test_another_seed_is_another_start_and_the_same_seed_the_same():
    net = decoder()
    theta = net.init(0)
    a, b, c = (rm.CNP((6, 5), seed).init(net, theta) for seed in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert np.array_equal(a[: net.num_params], theta)


# ---- a mean for each class -----------------------------------------------------------


def test_a_class_without_an_example_has_a_mean_of_0_and_the_others_theirs():
    net = classifier()
    meta, batch = start(net, BY_CLASS)
    batch.y_support[:] = 2 * (batch.y_support > 0)  # no example of class 1
    r = cnp.of_context(net, BY_CLASS.adapt(net, meta, batch.x_support, batch.y_support))
    r = r.reshape(len(batch), 3, 2)
    assert not r[:, 1].any() and r[:, 0].any() and r[:, 2].any()
    check = method_checks.meta_gradient_check(BY_CLASS, net, meta, batch)
    assert check.passed and check.error < PROMISE, check


def test_the_means_know_neither_the_order_of_a_set_nor_other_classes():
    net = classifier()
    meta, batch = start(net, BY_CLASS)
    x, y = batch.x_support, batch.y_support

    def means(x, y):
        return cnp.of_context(net, BY_CLASS.adapt(net, meta, x, y)).reshape(len(x), 3, 2)

    r = means(x, y)
    assert relative_error(means(x[:, ::-1], y[:, ::-1]), r) < 1e-14
    other = np.where((y == 1)[..., None], 5.0, x)
    assert np.allclose(means(other, y)[:, [0, 2]], r[:, [0, 2]], rtol=1e-14)
    named = np.array([2, 0, 1])[y]  # the same classes under other labels
    assert np.allclose(means(x, named)[:, [2, 0, 1]], r, rtol=1e-14)


# ---- errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, line",
    [
        (lambda: rm.CNP(64), "^encoder: expected a tuple of sizes"),
        (lambda: rm.CNP((64, 0)), "^encoder: expected an integer >= 1, got 0"),
        (lambda: rm.CNP(encoder_seed=-1), "^encoder_seed: expected an integer >= 0"),
        (lambda: rm.CNP(by_class=1), "^by_class: expected True or False, got 1"),
    ],
)
def test_a_bad_field_is_refused(make, line):
    with pytest.raises(rm.ArgumentError, match=line):
        make()


def test_a_net_without_a_context_or_an_input_shape_is_refused():
    net = rm.mlp((1, 4, 1))
    with pytest.raises(rm.ArgumentError, match="^patterns: expected .* got 'context'"):
        METHOD.init(net, net.init(0))
    with pytest.raises(rm.ArgumentError, match="^patterns: expected"):
        METHOD.init(rm.Quadratic(3), np.zeros(3))
    bare = rm.Sequential([rm.Context(2), rm.Linear(3, 1)], rm.MSE())
    with pytest.raises(rm.ArgumentError, match="^net: expected an input_shape, for the encoder"):
        METHOD.init(bare, bare.init(0))


def test_means_by_class_need_labels_and_a_context_that_the_classes_divide():
    net = decoder(size=6)
    meta, batch = start(net, BY_CLASS)
    with pytest.raises(rm.ArgumentError, match="^by_class: expected labels as targets, got float"):
        BY_CLASS.meta_gradient(net, meta, batch)
    layers = [rm.Context(4), rm.Linear(2 + 4, 3)]
    four = rm.Sequential(layers, rm.CrossEntropy(), (2,))
    with pytest.raises(rm.ArgumentError, match="^net: .* multiple of the 3 classes, got 4"):
        BY_CLASS.init(four, four.init(0))


def test_an_overflow_of_the_encoding_is_named():
    net = decoder()
    meta, batch = start(net)
    broken = meta.astype(np.float32)
    broken[net.num_params :] = 3e38
    with pytest.raises(rm.NonFiniteError, match="^support set: its encoding"):
        METHOD.meta_gradient(net, broken, batch)
