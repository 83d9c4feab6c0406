"""Update rules in the inner loop: the complex step, closed forms, and edges."""

from dataclasses import replace

import numpy as np
import pytest

import refmaml as rm
from refmaml import update_rules
from refmaml.errors import NotDifferentiableError
from refmaml.oracles import (
    cases,
    complex_step,
    inner_rules,
    meta_objectives,
    method_checks,
    rule_checks,
)
from refmaml.oracles.tolerance import relative_error

PROMISE = 1e-12
MOMENTUM = rm.SGD(momentum=0.8, nesterov=True, weight_decay=0.05)
ADAM = rm.Adam((0.8, 0.95), eps=0.01)
CLIP = rm.Clip(ADAM, norm=0.2)
RECURSIVE = [
    rm.MAML(0.05, 3),
    rm.ANIL(0.05, 3),
    rm.MetaSGD(0.05, 3),
    rm.MAMLPlusPlus(0.05, 3),
    rm.CAVIA(0.05, 3),
]
FIRST_ORDER = [rm.FirstOrderMAML(0.05, 3), rm.FirstOrderANIL(0.05, 3)]


def name_of(value):
    """The name of a rule or a method in a test's identifier."""
    if isinstance(value, rm.UpdateRule):
        return method_checks.rule_text(value)
    return method_checks.describe(value)


def case_of(method):
    """(net, meta, batch) without kinks; CAVIA gets a context."""
    net, theta, batch = rule_checks.smooth_case(isinstance(method, rm.CAVIA))
    return net, method.init(net, theta), batch


def check_of(method):
    return method_checks.meta_gradient_check(method, *case_of(method))


def quadratic(tasks=2, P=4, seed=0):
    """A quadratic with support and query sets, and theta: (net, theta, batch)."""
    rng = np.random.default_rng(seed)
    A, B = (m @ m.swapaxes(1, 2) / P for m in rng.standard_normal((2, tasks, P, P)))
    c, d = rng.standard_normal((2, tasks, P))
    return rm.Quadratic(P), rng.standard_normal(P), rm.Batch(A, c, B, d)


# ---- against the complex step through formulas that share no code --------------------


@pytest.mark.parametrize("method", rule_checks.rule_methods(), ids=name_of)
def test_maml_with_a_rule_is_the_derivative_of_the_loss_after_its_steps(method):
    check = check_of(method)
    assert check.passed and check.error < PROMISE, check


def test_every_public_rule_and_every_number_and_flag_of_it_is_on_the_ladder():
    rules = list(rule_checks.RULES)
    rules += [rule.rule for rule in rules if isinstance(rule, rm.Clip)]
    assert {type(rule).__name__ for rule in rules} == set(update_rules.__all__)
    for name in update_rules.__all__:
        kind = getattr(update_rules, name)
        for field in kind.__dataclass_fields__.values():
            used = [getattr(rule, field.name) for rule in rules if type(rule) is kind]
            assert any(value != field.default for value in used), (name, field.name)


@pytest.mark.parametrize("rule", [MOMENTUM, CLIP], ids=name_of)
@pytest.mark.parametrize("method", RECURSIVE + FIRST_ORDER, ids=name_of)
def test_every_method_with_an_inner_loop_takes_a_rule_and_an_anchor(method, rule):
    check = check_of(replace(method, rule=rule, anchor=0.3, inner_batch=4))
    assert check.passed and check.error < PROMISE, check


def test_meta_sgd_s_step_sizes_get_minus_the_direction_times_lambda():
    method = rm.MetaSGD(0.05, 3, rule=ADAM)
    net, meta, batch = case_of(method)
    truth = method_checks.truth_by_steps(method, net, meta, batch)[net.num_params :]
    out = method.meta_gradient(net, meta, batch, trace=True)
    assert relative_error(out.grad[net.num_params :], truth) < PROMISE
    plain = -sum(
        (g * lam).mean(axis=0)
        for g, lam in zip(out.trace["inner_grad"], out.trace["lam"][1:], strict=True)
    )
    assert relative_error(plain, truth) > 0.1  # the gradient in the direction's place is wrong


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=name_of)
def test_reptile_and_adaptation_end_where_the_formulas_end(rule):
    net, theta, batch = rule_checks.smooth_case()
    method = rm.Reptile((0.05, 0.03, 0.02), 3, rule=rule, anchor=0.2, inner_batch=4)
    truth = meta_objectives.reptile(net, method, theta, batch)
    assert relative_error(method.meta_gradient(net, theta, batch).grad, truth) < 1e-13
    maml = rm.MAML(0.05, 3, rule=rule)
    rates = meta_objectives.fixed_rates(net, maml)
    W = np.repeat(theta[None], len(batch), axis=0)
    phi = meta_objectives.inner_loop(net, W, rates, batch.x_support, batch.y_support, maml)[-1]
    assert relative_error(maml.adapt(net, theta, batch.x_support, batch.y_support), phi) < 1e-13


def test_the_first_step_of_a_rule_without_memory_is_its_formula_by_hand():
    """The oracle's formulas are held against numbers that a reader can compute."""
    g, phi = np.array([[3.0, -4.0]]), np.array([[1.0, 2.0]])
    net = rm.Quadratic(2)
    expected = {
        rm.SGD(0.9, weight_decay=0.5): [3.5, -3.0],
        rm.Adam(eps=1.0): [3 / 4, -4 / 5],
        rm.AdamW(eps=1.0, weight_decay=0.5): [3 / 4 + 0.5, -4 / 5 + 1.0],
        rm.RMSprop(0.75, eps=0.5): [3 / 2, -4 / 2.5],
        rm.Adagrad(eps=1.0, initial_accumulator_value=0.0): [3 / 4, -4 / 5],
        rm.Clip(rm.SGD(), norm=2.5): [3 * 2.5 / 5.000001, -4 * 2.5 / 5.000001],
        rm.Clip(rm.SGD(), value=3.5): [3.0, -3.5],
    }
    for rule, direction in expected.items():
        by_oracle = inner_rules.direction(rule, net, phi, g, {}, 1)
        by_rule, _ = rule.direction(net, phi, g, rule.init(phi), rule.factors(1))
        assert np.allclose([by_oracle[0], by_rule[0]], direction, rtol=1e-15), rule


def test_a_rule_of_one_s_own_is_checked_by_its_own_direction():
    class Cubed(rm.UpdateRule):
        plain = False

        def direction(self, net, phi, g, state, factors):
            return g**3, state

        def pullback(self, net, dd, dstate, phi, g, state, factors):
            back = super().pullback(net, dd, dstate, phi, g, state, factors)
            return back._replace(grad=3 * g**2 * dd)

    class Wrong(Cubed):
        def pullback(self, net, dd, dstate, phi, g, state, factors):
            back = super().pullback(net, dd, dstate, phi, g, state, factors)
            return back._replace(grad=back.grad * 1.001)

    assert check_of(rm.MAML(0.5, 3, rule=Cubed())).error < PROMISE
    assert not check_of(rm.MAML(0.5, 3, rule=Wrong())).passed


# ---- closed forms on quadratics ------------------------------------------------------


def in_eigenvectors(A, p):
    """The matrix Q p(h) Q' of A = Q diag(h) Q', p a function of an eigenvalue."""
    h, Q = np.linalg.eigh(A)
    return Q @ np.diag([p(value) for value in h]) @ Q.T


def mean_gradient(batch, jacobian, centre_of):
    """dM/dtheta where phi_K - c = J (theta - c), or phi_K is given by centre_of."""
    rows = []
    for t in range(len(batch)):
        A, c, B, d = (a[t] for a in batch.arrays)
        J = jacobian(A)
        rows.append(J @ B @ (centre_of(J, A, c) - d))
    return np.mean(rows, axis=0)


@pytest.mark.parametrize("K", [1, 2, 5, 20])
def test_momentum_on_a_quadratic_is_powers_of_a_small_matrix_for_each_eigenvalue(K):
    """(e, m) <- [[1 - a h, -a mu], [h, mu]] (e, m), e = phi - c, m = 0 at first."""
    net, theta, batch = quadratic()
    a, mu = 0.1, 0.7

    def p(h, mu=mu):
        matrix = np.array([[1 - a * h, -a * mu], [h, mu]])
        return np.linalg.matrix_power(matrix, K)[0, 0]

    truth = mean_gradient(
        batch, lambda A: in_eigenvectors(A, p), lambda J, A, c: c + J @ (theta - c)
    )
    out = rm.MAML(a, K, rule=rm.SGD(momentum=mu)).meta_gradient(net, theta, batch, hyper=True)
    assert relative_error(out.grad, truth) < 1e-13

    def loss(mu):
        total = 0
        for t in range(len(batch)):
            A, c, B, d = (x[t] for x in batch.arrays)
            r = c + in_eigenvectors(A, lambda h: p(h, mu)) @ (theta - c) - d
            total = total + r @ B @ r / 2
        return total / len(batch)

    slope = complex_step.derivative(loss(mu + 1j * complex_step.H))
    assert abs(out.hyper["momentum"] - slope) <= PROMISE * max(abs(slope), 1e-3)


def test_an_anchor_on_a_quadratic_has_the_jacobian_of_a_shifted_power():
    """d phi_K / d theta = (s + h r^K) / (s + h), r = 1 - a (h + s), h an eigenvalue."""
    net, theta, batch = quadratic()
    a, s, K = 0.1, 0.6, 7

    def p(h):
        return (s + h * (1 - a * (h + s)) ** K) / (s + h)

    truth = mean_gradient(
        batch, lambda A: in_eigenvectors(A, p), lambda J, A, c: c + J @ (theta - c)
    )
    out = rm.MAML(a, K, anchor=s).meta_gradient(net, theta, batch)
    assert relative_error(out.grad, truth) < 1e-13
    without = rm.MAML(a, K).meta_gradient(net, theta, batch)
    assert relative_error(without.grad, truth) > 0.01


@pytest.mark.parametrize("weight_decay,nesterov", [(0.3, False), (0.3, True), (0.0, True)])
def test_weight_decay_and_nesterov_on_one_parameter_are_a_product_of_matrices(
    weight_decay, nesterov
):
    """w <- w - a d with h = (A + wd) w for the centre 0: linear in (w, m)."""
    a, mu, curvature, K, w = 0.1, 0.6, 2.0, 6, 1.5
    H = curvature + weight_decay
    step = np.array([[1 - a * H, -a * mu], [H, mu]])
    if nesterov:  # d = h + mu m', m' = mu m + h
        step = np.array([[1 - a * (1 + mu) * H, -a * mu**2], [H, mu]])
    p = np.linalg.matrix_power(step, K)[0, 0]
    A, c = np.array([[[curvature]]]), np.zeros((1, 1))
    method = rm.MAML(a, K, rule=rm.SGD(mu, nesterov=nesterov, weight_decay=weight_decay))
    out = method.meta_gradient(rm.Quadratic(1), np.array([w]), rm.Batch(A, c, A, c))
    assert abs(out.grad[0] / (p * curvature * p * w) - 1) < 1e-13


# ---- step sizes that differ, mini-batches, memory ------------------------------------


def test_a_list_of_equal_step_sizes_has_the_bits_of_the_number():
    net, theta, batch = rule_checks.smooth_case()
    for rule in (rm.UpdateRule(), ADAM):
        one, several = (
            rm.MAML(lr, 3, rule=rule).meta_gradient(net, theta, batch)
            for lr in (0.05, [0.05, 0.05, 0.05])
        )
        assert one.grad.tobytes() == several.grad.tobytes()
    assert rm.MAML([0.1, 0.2], 2).inner_lr == (0.1, 0.2)
    assert rm.MAML(np.array([0.1, 0.2]), 2) == rm.MAML((0.1, 0.2), 2)


def test_maml_plus_plus_starts_its_step_sizes_from_a_list():
    net, theta, batch = rule_checks.smooth_case()
    method = rm.MAMLPlusPlus((0.1, 0.05), 2)
    meta = method.init(net, theta)
    _, alpha = method.unpack(net, meta)
    assert (alpha == [[0.1] * len(net.blocks), [0.05] * len(net.blocks)]).all()
    assert check_of(method).error < PROMISE


def test_each_step_sees_its_own_mini_batch_and_the_order_follows_the_seed():
    net, theta, batch = rule_checks.smooth_case()
    method = rm.MAML(0.1, 4, inner_batch=3)
    first, second, third, fourth = method.mini_batches(6)
    assert sorted([*first, *second]) == sorted([*third, *fourth]) == list(range(6))
    phi = theta[None]
    for places in (first, second, third, fourth):
        x, y = batch.x_support[:, places], batch.y_support[:, places]
        phi = phi - 0.1 * net.gradient(np.broadcast_to(phi, (len(batch), phi.shape[1])), x, y)
    assert relative_error(method.adapt(net, theta, batch.x_support, batch.y_support), phi) < 1e-13
    other = replace(method, order_seed=1)
    assert any(
        (a != b).any() for a, b in zip(other.mini_batches(6), method.mini_batches(6), strict=True)
    )
    whole = rm.MAML(0.1, 4).meta_gradient(net, theta, batch)
    all_of_it = rm.MAML(0.1, 4, inner_batch=6).meta_gradient(net, theta, batch)
    assert whole.grad.tobytes() == all_of_it.grad.tobytes()


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=name_of)
def test_recomputing_and_chunks_of_tasks_do_not_change_a_bit(rule):
    net, theta, _ = rule_checks.smooth_case()
    batch = cases.tasks_for(net, np.random.default_rng(1), tasks=5)
    method = rm.MAML((0.05, 0.02, 0.04), 3, rule=rule, **rule_checks.SETTINGS)
    whole = method.meta_gradient(net, theta, batch, hyper=True)
    others = [
        replace(method, recompute=True).meta_gradient(net, theta, batch, hyper=True),
        *(method.meta_gradient(net, theta, batch, chunk=n, hyper=True) for n in (1, 2)),
    ]
    for other in others:
        assert other.grad.tobytes() == whole.grad.tobytes()
        assert other.hyper.keys() == whole.hyper.keys()
        assert all(np.array_equal(other.hyper[n], a) for n, a in whole.hyper.items())
    plain = method.meta_gradient(net, theta, batch)
    assert plain.grad.tobytes() == whole.grad.tobytes() and plain.hyper == {}


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=name_of)
def test_single_precision_is_close_to_double_precision(rule):
    net, theta, batch = rule_checks.smooth_case()
    method = rm.MAML(0.05, 3, rule=rule)
    exact = method.meta_gradient(net, theta, batch, hyper=True)
    single = method.meta_gradient(net, theta.astype(np.float32), batch, hyper=True)
    assert single.grad.dtype == np.float32
    assert relative_error(single.grad, exact.grad) < 1e-5
    for name, value in exact.hyper.items():
        # 1 - beta^t has an error of eps / (1 - beta); sums over parameters cancel
        assert relative_error(single.hyper[name], value) < 1e-3, name


# ---- what adapts ---------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"adapts": ("head",)}, {"frozen": ("BatchNorm2d",)}])
def test_the_norm_of_clip_is_over_the_parameters_that_adapt(settings):
    net, theta, batch = rule_checks.smooth_case()
    method = rm.MAML(0.5, 1, rule=rm.Clip(norm=0.01), **settings)
    mask = meta_objectives.adapt_mask(net, method)
    W = np.repeat(theta[None], len(batch), axis=0)
    g = mask * net.gradient(W, batch.x_support, batch.y_support)
    size = np.sqrt((g**2).sum(axis=1, keepdims=True))
    assert (size > 0.01).all()
    phi = method.adapt(net, theta, batch.x_support, batch.y_support)
    assert relative_error(phi, W - 0.5 * g * 0.01 / (size + 1e-6)) < 1e-14
    check = check_of(replace(method, inner_steps=3))
    assert check.passed and check.error < PROMISE, check


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=name_of)
def test_what_does_not_adapt_stays_whatever_the_rule(rule):
    """Weight decay and momentum move nothing that does not adapt."""
    net, theta, batch = rule_checks.smooth_case()
    method = rm.ANIL(0.1, 3, rule=rule)
    body = meta_objectives.adapt_mask(net, method) == 0
    phi = method.adapt(net, theta, batch.x_support, batch.y_support)
    assert (phi[:, body] == theta[body]).all() and (phi[:, ~body] != theta[~body]).all()


# ---- roots at zero, norms at their limit ---------------------------------------------

SQUARES = [
    (rm.Adam(eps=0.1), 1.0),
    (rm.AdamW(eps=0.1, weight_decay=0.0), 1.0),
    (rm.RMSprop(0.75, eps=0.1), 0.5),
    (rm.Adagrad(eps=0.1), 1.0),
]


@pytest.mark.parametrize("rule,scale", SQUARES, ids=name_of)
def test_a_gradient_of_exactly_0_has_the_slope_of_the_limit(rule, scale):
    """d = g / (scale |g| + eps) in the first step, whose slope at g = 0 is 1 / eps."""
    A, B = np.array([[2.0, 1.0], [1.0, 2.0]]), np.diag([1.0, 3.0])
    theta, a = np.array([1.0, -0.5]), 0.1  # grad f = (1.5, 0), and H has no zero row
    batch = rm.Batch(A[None], np.zeros((1, 2)), B[None], np.ones((1, 2)))
    g = A @ theta
    assert g[1] == 0
    slope = rule.eps / (scale * abs(g) + rule.eps) ** 2
    phi = theta - a * g / (scale * abs(g) + rule.eps)
    truth = (np.eye(2) - a * A @ np.diag(slope)) @ B @ (phi - 1)
    method = rm.MAML(a, 1, rule=rule)
    out = method.meta_gradient(rm.Quadratic(2), theta, batch, hyper=True)
    assert relative_error(out.grad, truth) < 1e-14
    assert all(np.isfinite(value).all() for value in out.hyper.values())
    near = method.meta_gradient(rm.Quadratic(2), theta + [0, 1e-10], batch).grad
    assert 0 < relative_error(near, out.grad) < 1e-7


@pytest.mark.parametrize("rule,scale", SQUARES, ids=name_of)
def test_a_parameter_that_never_gets_a_gradient_keeps_the_query_set_s(rule, scale):
    A, B = np.diag([2.0, 0.0]), np.diag([1.0, 3.0])
    batch = rm.Batch(A[None], np.zeros((1, 2)), B[None], np.ones((1, 2)))
    theta = np.array([1.0, -0.5])
    out = rm.MAML(0.1, 5, rule=rule).meta_gradient(rm.Quadratic(2), theta, batch)
    assert np.isfinite(out.grad).all() and out.grad[1] == 3 * (theta[1] - 1)


@pytest.mark.parametrize("rule,scale", SQUARES, ids=name_of)
def test_a_gradient_whose_square_underflows_is_refused_in_one_line(rule, scale):
    A = np.ones((1, 1, 1))
    batch = rm.Batch(A, np.zeros((1, 1)), A, np.ones((1, 1)))
    with pytest.raises(NotDifferentiableError) as caught:
        rm.MAML(0.1, 1, rule=rule).meta_gradient(rm.Quadratic(1), np.array([1e-170]), batch)
    text = str(caught.value)
    assert text.startswith(f"{type(rule).__name__}: expected gradients whose squares")
    assert "eps_root" in text and "\n" not in text
    inside = replace(rule, eps_root=1e-3)
    out = rm.MAML(0.1, 1, rule=inside).meta_gradient(rm.Quadratic(1), np.array([1e-170]), batch)
    assert np.isfinite(out.grad).all()


@pytest.mark.parametrize(
    "rule", [rm.Clip(norm=5 + 1e-6), rm.Clip(value=4.0), rm.Clip(norm=3 + 1e-6, per_tensor=True)]
)
def test_a_gradient_exactly_at_its_limit_is_refused_in_one_line(rule):
    size = np.array([3.0, 4.0]) if not rule.per_tensor else np.array([3.0, 0.0])
    A = np.eye(2)[None]
    batch = rm.Batch(A, np.zeros((1, 2)), A, np.ones((1, 2)))
    for method in (rm.MAML(0.1, 1, rule=rule), rm.MAML(0.1, 2, rule=rule)):
        with pytest.raises(NotDifferentiableError, match="^Clip: expected gradients off their"):
            method.meta_gradient(rm.Quadratic(2), size, batch)
    out = rm.MAML(0.1, 1, rule=rule).meta_gradient(rm.Quadratic(2), size * 1.01, batch)
    assert np.isfinite(out.grad).all()


def test_a_gradient_of_0_is_not_clipped():
    A = np.eye(2)[None]
    batch = rm.Batch(A, np.zeros((1, 2)), A, np.ones((1, 2)))
    for rule in (rm.Clip(norm=1.0), rm.Clip(value=1.0)):
        out = rm.MAML(0.1, 2, rule=rule).meta_gradient(
            rm.Quadratic(2), np.zeros(2), batch, hyper=True
        )
        plain = rm.MAML(0.1, 2).meta_gradient(rm.Quadratic(2), np.zeros(2), batch)
        assert np.array_equal(out.grad, plain.grad)
        assert all(np.isfinite(value).all() for value in out.hyper.values())


# ---- iMAML, whose solution does not depend on the rule -------------------------------


@pytest.mark.parametrize(
    "rule,lr,steps",
    [(rm.SGD(0.5), 0.2, 120), (rm.SGD(0.5, nesterov=True), 0.2, 120), (rm.SGD(), 0.2, 120)],
    ids=str,
)
def test_imaml_s_solution_does_not_depend_on_the_rule_that_finds_it(rule, lr, steps):
    net, theta, batch = rule_checks.smooth_case()
    settings = {"cg_steps": 100, "cg_tol": 1e-15}
    found = rm.IMAML(2.0, steps, lr, rule=rule, **settings).meta_gradient(net, theta, batch)
    newton = rm.IMAML(2.0, 40, solver="newton_cg", **settings).meta_gradient(net, theta, batch)
    assert relative_error(found.grad, newton.grad) < PROMISE
    assert (found.report["inner_residual"] < 1e-12).all()


def test_imaml_with_adam_comes_closer_to_the_solution_with_every_step():
    net, theta, batch = rule_checks.smooth_case()
    residuals = [
        rm.IMAML(2.0, steps, 0.01, rule=rm.Adam(eps=0.1))
        .meta_gradient(net, theta, batch)
        .report["inner_residual"]
        .max()
        for steps in (5, 50, 500)
    ]
    assert residuals[0] > 10 * residuals[1] > 1e3 * residuals[2]
