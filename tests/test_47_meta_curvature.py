"""Meta-Curvature against a version in plain NumPy, planted errors, and its settings."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import refmaml as rm
from refmaml.methods.curvature import Curvature, axes_of, blocks_of
from refmaml.oracles import cases, complex_step, method_checks, rule_checks
from refmaml.oracles.tolerance import relative_error, tolerance
from refmaml.update_rules.rule import Pullback

PRECISE = 1e-12
NET = rm.Sequential(
    [rm.Conv2d(1, 2, (2, 3)), rm.Tanh(), rm.Flatten(), rm.Linear(8, 3)],
    rm.CrossEntropy(),
    (1, 3, 4),
)
METHOD = rm.MetaCurvature(0.2, 3, spread=0.1, seed=1)


def case_of(net=NET, method=METHOD, tasks=2):
    rng = np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, tasks=tasks)
    return method.init(net, theta), batch


# ---- written out ---------------------------------------------------------------------


def written_out(meta, batch, alpha, K, outputs, inputs):
    """M of a Linear layer without bias, squared error: two matrices and three lines."""
    sizes = outputs * inputs, outputs * outputs, inputs * inputs
    W, M_o, M_i = np.split(meta, np.cumsum(sizes)[:-1])
    W = W.reshape(outputs, inputs)
    M_o, M_i = M_o.reshape(outputs, outputs), M_i.reshape(inputs, inputs)
    total = 0
    for x, y, xq, yq in zip(*batch.all_arrays, strict=True):
        phi = W
        for _ in range(K):
            G = (phi @ x.T - y.T) @ x * 2 / y.size
            phi = phi - alpha * M_o @ G @ M_i.T
        total = total + ((xq @ phi.T - yq) ** 2).mean()
    return total / len(batch)


def test_the_meta_gradient_is_that_of_the_formula_written_out():
    net = rm.Sequential([rm.Linear(3, 4, bias=False)], rm.MSE(), (3,))
    meta, batch = case_of(net)
    assert len(meta) == 12 + 16 + 9
    out = METHOD.meta_gradient(net, meta, batch)

    def M(rows):
        return np.array([written_out(row, batch, 0.2, 3, 4, 3) for row in rows])

    assert relative_error(out.grad, complex_step.gradient(M, meta)) < PRECISE
    assert abs(out.loss - M(meta[None])[0]) < 1e-14


def test_the_adjoints_are_those_of_the_docstring():
    """dM_o = sum -alpha lam M_i G', dM_i = sum -alpha lam' M_o G, from the trace."""
    net = rm.Sequential([rm.Linear(3, 4, bias=False)], rm.MSE(), (3,))
    meta, batch = case_of(net)
    out = METHOD.meta_gradient(net, meta, batch, trace=True)
    M_o, M_i = meta[12:28].reshape(4, 4), meta[28:].reshape(3, 3)
    of_o, of_i = np.zeros((4, 4)), np.zeros((3, 3))
    for k in range(3):
        G = out.trace["inner_grad"][k].reshape(-1, 4, 3)
        lam = out.trace["lam"][k + 1].reshape(-1, 4, 3)
        of_o += np.mean([-0.2 * a @ M_i @ g.T for a, g in zip(lam, G, strict=True)], axis=0)
        of_i += np.mean([-0.2 * a.T @ M_o @ g for a, g in zip(lam, G, strict=True)], axis=0)
    assert relative_error(out.grad[12:28], of_o.ravel()) < PRECISE
    assert relative_error(out.grad[28:], of_i.ravel()) < PRECISE


def test_with_identities_it_is_maml():
    method = rm.MetaCurvature(0.2, 3)
    meta, batch = case_of(method=method)
    P = NET.num_params
    maml = rm.MAML(0.2, 3).meta_gradient(NET, meta[:P], batch)
    assert relative_error(method.meta_gradient(NET, meta, batch).grad[:P], maml.grad) < 1e-14
    phi = method.adapt(NET, meta, batch.x_support, batch.y_support)
    steps = rm.MAML(0.2, 3).adapt(NET, meta[:P], batch.x_support, batch.y_support)
    assert relative_error(phi, steps) < 1e-14


def test_every_array_has_a_matrix_for_each_axis():
    assert [axes_of(s) for s in ((5,), (5, 3), (5, 3, 2, 4), (5, 3, 1, 1))] == [
        (5,), (5, 3), (5, 3, 8), (5, 3),
    ]  # fmt: skip
    net = cases.conv_net()
    every, head = blocks_of(net, ("*",), ()), blocks_of(net, ("head",), ())
    assert len(every) == len(net.shapes) and len(head) == 2
    assert head[0].places[0] == slice(0, head[0].axes[0] ** 2)
    unfrozen = blocks_of(net, ("*",), ("BatchNorm2d",))
    assert len(unfrozen) == len(net.shapes) - 4


# ---- planted errors ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class NotTransposed(Curvature):
    """The adjoint of the gradient goes through M, not through M'."""

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        back = super().pullback(net, dd, dstate, phi, g, state, factors)
        return Pullback(self.product(net, dd), back.state, back.phi)


@dataclass(frozen=True, eq=False)
class NotDifferentiated(Curvature):
    """The matrices have no gradient."""

    def of_matrices(self, net, D, g):
        return 0 * super().of_matrices(net, D, g)


@dataclass(frozen=True, eq=False)
class SidesExchanged(Curvature):
    """The adjoint of a matrix is transposed."""

    def of_matrices(self, net, D, g):
        return super().of_matrices(net, g + 0 * D, D)


@dataclass(frozen=True, eq=False)
class WithoutTheOthers(Curvature):
    """The adjoint of a matrix leaves the other matrices out."""

    def of_matrices(self, net, D, g):
        plain = replace(self, matrices=method_identities(self))
        return Curvature.of_matrices(plain, net, D, g)


@dataclass(frozen=True, eq=False)
class NoCurvatureInTheAdjoint(Curvature):
    """lam goes through H without the matrices."""

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        super().pullback(net, dd, dstate, phi, g, state, factors)
        return Pullback(dd, dstate)


def method_identities(rule):
    return np.concatenate([np.eye(n).ravel() for block in rule.blocks for n in block.axes])


def planted(kind):
    class Wrong(rm.MetaCurvature):
        def curvature(self, net, meta):
            right = super().curvature(net, meta)
            return kind(right.blocks, right.matrices, right.rule)

    return Wrong(0.2, 3, spread=0.1, seed=1)


@pytest.fixture(scope="module")
def truth():
    meta, batch = case_of()
    return meta, batch, method_checks.truth_by_steps(METHOD, NET, meta, batch)


def test_it_is_the_derivative_by_the_complex_step(truth):
    meta, batch, expected = truth
    check = method_checks.meta_gradient_check(METHOD, NET, meta, batch, expected)
    assert check.passed and check.error < PRECISE, check


@pytest.mark.parametrize(
    "kind",
    [NotTransposed, NotDifferentiated, SidesExchanged, WithoutTheOthers, NoCurvatureInTheAdjoint],
)
def test_a_planted_error_is_caught(kind, truth):
    meta, batch, expected = truth
    check = method_checks.meta_gradient_check(planted(kind), NET, meta, batch, expected)
    assert not check.passed and check.error > 1e-3, check


# ---- settings ------------------------------------------------------------------------


def test_hypergradients_are_those_of_the_rule_behind_the_matrices():
    method = rm.MetaCurvature((0.1, 0.2), 2, spread=0.1, rule=rm.SGD(momentum=0.5), anchor=0.3)
    meta, batch = case_of(method=method, tasks=1)
    checks = rule_checks.hypergradient_checks(method, NET, meta, batch)
    assert {c.quantity for c in checks} >= {"dM/d(inner_lr)", "dM/d(momentum)", "dM/d(anchor)"}
    assert all(c.passed for c in checks), checks


def test_bits_depend_neither_on_chunks_nor_on_recomputed_passes():
    meta, batch = case_of(tasks=5)
    grad = METHOD.meta_gradient(NET, meta, batch).grad
    for chunk in (1, 2):
        assert np.array_equal(METHOD.meta_gradient(NET, meta, batch, chunk=chunk).grad, grad)
    again = replace(METHOD, recompute=True).meta_gradient(NET, meta, batch).grad
    assert np.array_equal(again, grad)


def test_single_precision_and_the_cpu_kernels_agree():
    meta, batch = case_of()
    exact = METHOD.meta_gradient(NET, meta, batch).grad
    cpu = METHOD.meta_gradient(NET.with_kernels("cpu"), meta, batch).grad
    assert relative_error(cpu, exact) < tolerance(float, 1000)
    single = METHOD.meta_gradient(NET, meta.astype(np.float32), batch).grad
    assert single.dtype == np.float32
    assert relative_error(single, exact) < tolerance(np.float32, 1000)


def test_only_the_head_adapts_and_only_it_has_matrices():
    method = replace(METHOD, adapts=("head",))
    meta, batch = case_of(method=method)
    O, I = list(NET.shapes.values())[-2]
    assert len(meta) == NET.num_params + 2 * O * O + I * I
    assert method_checks.meta_gradient_check(method, NET, meta, batch).error < PRECISE


def test_a_quadratic_has_one_matrix():
    """phi_K = c + (I - alpha M A)^K (theta - c): dM by the complex step on it."""
    rng = np.random.default_rng(0)
    A, c, d = rng.standard_normal((3, 3)), rng.standard_normal(3), rng.standard_normal(3)
    A = A @ A.T + np.eye(3)
    method, net = rm.MetaCurvature(0.1, 4, spread=0.2), rm.Quadratic(3)
    meta = method.init(net, rng.standard_normal(3))
    grad = method.meta_gradient(net, meta, rm.Batch(A[None], c[None], A[None], d[None])).grad

    def M(rows):
        values = []
        for row in rows:
            step = np.eye(3) - 0.1 * row[3:].reshape(3, 3) @ A
            off = c + np.linalg.matrix_power(step, 4) @ (row[:3] - c) - d
            values.append(0.5 * off @ A @ off)
        return np.array(values)

    assert relative_error(grad, complex_step.gradient(M, meta)) < PRECISE


def test_the_matrices_learn():
    """Gradient descent on [theta, M] ends lower than on theta alone."""
    net, rng = rm.mlp((1, 8, 1)), np.random.default_rng(0)
    batch = rm.Sinusoids().sample(8, 5, 10, seed=0, dtype=float)
    theta, ends = net.init(rng, float), []
    for method, learned in ((rm.MetaCurvature(0.05, 1), True), (rm.MAML(0.05, 1), False)):
        meta = method.init(net, theta)
        for _ in range(60):
            out = method.meta_gradient(net, meta, batch)
            meta = meta - 0.05 * out.grad
        ends.append(method.meta_gradient(net, meta, batch).loss)
        assert learned == (len(meta) > net.num_params)
    assert ends[0] < ends[1]


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: rm.MetaCurvature(0.1, 1, spread=-1), "spread: expected a finite number >= 0"),
        (lambda: rm.MetaCurvature(0.1, 1, seed=0.5), "seed: expected an integer >= 0"),
        (lambda: rm.MetaCurvature(0, 1), "inner_lr: expected a finite number > 0"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
