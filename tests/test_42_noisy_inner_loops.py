"""Noise in the start and in mini-batches: pathwise, score and enumerated gradients."""

import json
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

import refmaml as rm
from refmaml.methods.anchor_map import anchor_map
from refmaml.oracles import complex_step
from refmaml.oracles.noisy_inner_loops import (
    Runs,
    gradients,
    over_paths,
    paths_of,
    quadratic_moments,
    runs_from,
)
from refmaml.oracles.tolerance import relative_error

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import double_well  # noqa: E402  the benchmarks are scripts beside the package

COMMITTED = json.loads((ROOT / "benchmarks" / "double_well.json").read_text())
PRECISE = 1e-12


# ---- the double well -----------------------------------------------------------------


@pytest.mark.parametrize("K", [1, 3, 10, 30, 60])
def test_with_exact_quadrature_all_forms_agree_however_long_the_loop_is(K):
    (row,) = (row for row in COMMITTED["rows"] if row["K"] == K)
    found = double_well.exact(K)
    for estimate, name in zip(found[1:], row["exact"], strict=True):
        committed = row["exact"][name]
        assert estimate.mean[0] == pytest.approx(committed["mean"], rel=PRECISE)
        assert estimate.deviation[0] == pytest.approx(committed["deviation"], rel=1e-9)
    assert found.pathwise.mean[0] == pytest.approx(found.score.mean[0], rel=PRECISE)
    # Differences of fourth order: rounding over 1e-3.
    assert row["differences"] == pytest.approx(found.score.mean[0], rel=1e-11)


def test_a_finer_quadrature_changes_nothing():
    coarse, fine = (double_well.exact(30, cell=cell) for cell in (0.02, 0.013))
    assert coarse.pathwise.mean[0] == pytest.approx(fine.pathwise.mean[0], rel=1e-12)
    assert coarse.pathwise.deviation[0] == pytest.approx(fine.pathwise.deviation[0], rel=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("K", [1, 3, 10, 30])
def test_equidistant_nodes_give_the_committed_numbers(K):
    (row,) = (row for row in COMMITTED["rows"] if row["K"] == K)
    found = double_well.numbers(double_well.equidistant(K))
    for name, committed in row["equidistant"].items():
        for key, value in committed.items():
            # Runs near the edge double a rounding in every other step.
            assert found[name][key] == pytest.approx(value, rel=1e-6), (name, key)


def test_the_table_has_the_digits_that_were_derived_before_it():
    """Pathwise, score and differences to 8 digits up to K = 10; then the spikes."""
    rows = {row["K"]: row for row in COMMITTED["rows"]}
    wanted = {1: (-0.06736680, 0.416), 3: (-0.16204742, 0.565), 10: (-0.40385092, 3.087)}
    for K, (slope, deviation) in wanted.items():
        for name in ("pathwise", "score", "score, centred"):
            assert round(rows[K]["equidistant"][name]["mean"], 8) == slope
        assert round(rows[K]["equidistant"]["pathwise"]["deviation"], 3) == deviation
    assert round(rows[30]["equidistant"]["score"]["mean"], 8) == -0.45464195
    assert round(rows[30]["equidistant"]["pathwise"]["mean"], 8) == -0.06654053
    assert round(rows[60]["equidistant"]["score"]["mean"], 8) == -0.45471056
    assert rows[60]["equidistant"]["pathwise"]["mean"] > 1e4
    centred = [row["equidistant"]["score, centred"]["deviation"] for row in rows.values()]
    assert [round(d, 1) for d in centred] == [0.6, 0.6, 0.5, 0.5, 0.5]
    assert round(COMMITTED["limit"], 8) == -0.45471753


def test_the_loop_tends_to_the_limit_of_endless_steps():
    slope, _ = double_well.limit()
    assert slope == pytest.approx(COMMITTED["limit"], rel=1e-14)  # sums of other processors
    errors = [abs(double_well.exact(K).score.mean[0] - slope) for K in (10, 30, 60)]
    assert errors[0] > 1e-2 > errors[1] > 1e-5 > 1e-8 > errors[2]


def test_imaml_misses_the_second_influence():
    """At the minima its gradient is 0; the probabilities of the wells still change."""
    xi = np.linspace(-4, 4, 801)
    weights = np.exp(-(xi**2) / 2)
    starts, strength = double_well.THETA + double_well.SIGMA * xi, 1e-4
    method = rm.IMAML(strength, 400, 0.3, cg_steps=3)
    x = double_well.SUPPORT
    ends = anchor_map(double_well.NET, starts, x, x, method)
    slopes = double_well.query(ends.phi, None, 1) * ends.slope
    implicit = weights @ slopes / weights.sum()
    missing = double_well.exact(60).score.mean[0]
    assert abs(implicit) < 2e-4 < 0.45 < abs(missing)
    batch = rm.Batch(x, x, double_well.QUERY, x)
    one = method.meta_gradient(double_well.NET, starts[600:601], batch)
    assert one.grad[0] == pytest.approx(slopes[600], rel=1e-9)


@pytest.mark.parametrize(
    "planted", ["noise of the other sign", "sigma left out", "first-order slopes", "no noise"]
)
def test_a_planted_error_is_caught(planted):
    K = 3
    truth = double_well.exact(K).score.mean[0]
    nodes = double_well.noisy_inner_loops.nodes_around(-double_well.THETA / double_well.SIGMA)
    found = double_well.runs(K, double_well.SIGMA * nodes.distance)
    sigma, weights = double_well.SIGMA, nodes.weights
    wrong = {
        "noise of the other sign": gradients(found, -nodes.xi, sigma, weights).score,
        "sigma left out": gradients(found, nodes.xi, 1.0, weights).score,
        "first-order slopes": gradients(first_order(K, nodes), nodes.xi, sigma, weights).pathwise,
        "no noise": gradients(found, nodes.xi, sigma, 1.0 * (weights == weights.max())).pathwise,
    }[planted]
    assert abs(wrong.mean[0] / truth - 1) > 1e-2


def first_order(K, nodes):
    """Runs whose slopes are g'(phi_K), as first-order MAML has them."""
    starts = double_well.SIGMA * nodes.distance
    phi = starts[:, 0]
    for _ in range(K):
        phi = phi - double_well.ALPHA * double_well.wells(phi, None, 1)
    return Runs(double_well.query(phi, None, 0), double_well.query(phi, None, 1)[:, None])


# ---- nets: frozen noise --------------------------------------------------------------

NET = rm.Sequential([rm.Linear(2, 4), rm.Tanh(), rm.Linear(4, 1)], rm.MSE(), (2,))
RNG = np.random.default_rng(0)
SETS = [RNG.standard_normal(shape) for shape in ((2, 4, 2), (2, 4, 1), (2, 4, 2), (2, 4, 1))]
BATCH, THETA = rm.Batch(*SETS), 0.8 * RNG.standard_normal(NET.num_params)
METHOD = rm.MAML(0.2, 2)


def test_with_the_noise_held_fixed_the_pathwise_gradient_is_the_recursion():
    """Of the mean over frozen starts: the complex step through the engine's adapt."""
    xi, sigma, task = RNG.standard_normal((5, len(THETA))), 0.3, BATCH[:1]
    runs = runs_from(NET, METHOD, THETA + sigma * xi, task)
    found = gradients(runs, xi, sigma, np.full(5, 0.2)).pathwise.mean

    def M(rows):
        total = 0
        for row in rows[:, None] + sigma * xi:
            phi = [METHOD.adapt(NET, w, task.x_support, task.y_support)[0] for w in row]
            x, y = (np.repeat(a, 5, axis=0) for a in (task.x_query, task.y_query))
            total = (
                [*total, NET.loss(np.array(phi), x, y).mean()]
                if total
                else [NET.loss(np.array(phi), x, y).mean()]
            )
        return np.array(total)

    assert relative_error(found, complex_step.gradient(M, THETA)) < PRECISE


def test_the_score_of_a_net_has_the_same_expectation():
    xi = np.random.default_rng(1).standard_normal((40_000, len(THETA)))
    runs = runs_from(NET, METHOD, THETA + 0.3 * xi, BATCH[:1])
    found = gradients(runs, xi, 0.3, np.full(len(xi), 1 / len(xi)))
    off = abs(found.centred.mean - found.pathwise.mean)
    both = np.hypot(found.centred.deviation, found.pathwise.deviation)
    assert (off < 5 * both / np.sqrt(len(xi))).all()  # five standard deviations
    assert found.pathwise.deviation.max() < found.centred.deviation.max()


def test_the_runs_need_one_task():
    with pytest.raises(rm.ArgumentError, match="task: expected a batch with one task, got 2"):
        runs_from(NET, METHOD, THETA[None], BATCH)


# ---- mini-batches --------------------------------------------------------------------

PARTS = [[0, 1], [2, 3], [1, 2]]
MINI = rm.MAML(0.2, 3)


def test_the_mean_over_all_paths_is_the_derivative_of_the_mean_loss():
    assert len(list(paths_of(PARTS, 3))) == 27
    loss, grad = over_paths(NET, MINI, THETA, BATCH, PARTS)

    def M(rows):
        return np.array([mean_loss(row) for row in rows])

    assert abs(mean_loss(THETA) - loss) < 1e-14
    assert relative_error(grad, complex_step.gradient(M, THETA)) < PRECISE


def mean_loss(theta):
    """The mean of g(phi_3) over 27 paths and the tasks, step by step."""
    total, (x, y, xq, yq) = 0, SETS
    for path in paths_of(PARTS, 3):
        phi = np.repeat(theta[None], len(x), axis=0)
        for part in path:
            phi = phi - 0.2 * NET.gradient(phi, x[:, part], y[:, part])
        total = total + NET.loss(phi, xq, yq).mean()
    return total / 27


def test_other_sets_of_paths_are_told_apart():
    _, grad = over_paths(NET, MINI, THETA, BATCH, PARTS)
    whole = MINI.meta_gradient(NET, THETA, BATCH).grad
    one = replace(MINI, inner_batch=lambda k, n: np.array(PARTS[k]))
    without = np.mean(
        [replace(MINI, inner_batch=lambda k, n, p=p: np.array(PARTS[p[k]]))
         .meta_gradient(NET, THETA, BATCH).grad for p in permutations(range(3))], axis=0,
    )  # fmt: skip
    wrong = {"whole": whole, "one path": one.meta_gradient(NET, THETA, BATCH).grad,
             "without replacement": without}  # fmt: skip
    for name, other in wrong.items():
        assert relative_error(other, grad) > 1e-4, name


def quadratics():
    rng = np.random.default_rng(3)
    A = rng.standard_normal((3, 2, 2))
    A = A @ A.swapaxes(1, 2) / 2 + 0.3 * np.eye(2)
    B = np.array([[1.2, 0.3], [0.3, 0.7]])
    return A, rng.standard_normal((3, 2)), rng.standard_normal(2), B, rng.standard_normal(2)


def enumerated(A, c, theta, B, d, K=3, alpha=0.3):
    """(M, dM/dtheta) by all 27 paths of dense matrices."""
    values, slopes = [], []
    for path in np.ndindex(3, 3, 3):
        phi, J = theta, np.eye(2)
        for b in path:
            phi, J = phi - alpha * A[b] @ (phi - c[b]), (np.eye(2) - alpha * A[b]) @ J
        values.append((phi - d) @ B @ (phi - d) / 2)
        slopes.append(J.T @ B @ (phi - d))
    return np.mean(values), np.mean(slopes, axis=0)


def test_the_moments_of_quadratics_follow_a_linear_recursion():
    A, c, theta, B, d = quadratics()
    value, slope = quadratic_moments(A, c, theta, 0.3, 3, B, d)
    expected = enumerated(A, c, theta, B, d)
    assert value == pytest.approx(expected[0], rel=1e-14)
    assert relative_error(slope, expected[1]) < 1e-14


def test_the_mean_quadratic_is_not_the_mean_over_paths():
    """Neither with the mean matrix, nor without the noise, nor one step less."""
    A, c, theta, B, d = quadratics()
    expected = enumerated(A, c, theta, B, d)[1]
    mean_A = A.mean(axis=0)
    mean_c = np.linalg.solve(mean_A, np.einsum("bij,bj->i", A, c) / 3)
    wrong = [
        quadratic_moments(mean_A[None], mean_c[None], theta, 0.3, 3, B, d)[1],
        quadratic_moments(A, 0 * c + c.mean(axis=0), theta, 0.3, 3, B, d)[1],
        quadratic_moments(A, c, theta, 0.3, 2, B, d)[1],
    ]
    assert all(relative_error(other, expected) > 1e-3 for other in wrong)


# ---- the document --------------------------------------------------------------------


def table_row(row):
    """A row of the table in docs/mathematics/stochastic.md."""
    exact, equal = row["exact"], row["equidistant"]
    seen = equal["pathwise"]["mean"]
    seen = f"{seen:.0f}" if abs(seen) > 10 else f"{seen:.8f}"
    return (
        f"| {row['K']} | {exact['score']['mean']:.8f} | {exact['pathwise']['mean']:.8f} | "
        f"{exact['pathwise']['deviation']:.3g} | {exact['score, centred']['deviation']:.2f} | "
        f"{seen} | {equal['score']['mean']:.8f} |"
    )


def test_the_table_of_the_chapter_is_the_committed_one():
    text = (ROOT / "docs" / "mathematics" / "stochastic.md").read_text()
    for row in COMMITTED["rows"]:
        assert table_row(row) in text, table_row(row)
    assert f"{COMMITTED['limit']:.8f}" in text
