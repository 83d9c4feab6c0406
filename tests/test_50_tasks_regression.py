"""Distributions with real targets: shapes, formulas, independence of the sample."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from refmaml.errors import ArgumentError
from refmaml.tasks import LinearRegression, Quadratics, Sinusoids, TwoLayerLinear

SAMPLERS = {
    "sinusoids": Sinusoids().sample,
    "quadratics": Quadratics(4).sample,
    "linear": LinearRegression(3).sample,
    "two_layer": TwoLayerLinear(6, 2, noise=0.1).sample,
    "population": TwoLayerLinear(6, 2).population,
}
EPS = np.finfo(float).eps


def arrays(batch):
    return batch.arrays


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


@pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)
def test_a_task_does_not_depend_on_what_is_sampled_beside_it(sample):
    whole = sample(9, seed=3, step=4)
    assert same(whole, sample(9, seed=3, step=4))
    assert same(whole[:2], sample(2, seed=3, step=4))
    assert same(whole[5:9], sample(range(5, 9), seed=3, step=4))


@pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)
def test_tasks_steps_and_seeds_differ(sample):
    addresses = [(seed, step) for seed in (0, 1) for step in (0, 1)]
    targets = [y for seed, step in addresses for y in sample(2, seed=seed, step=step).y_support]
    assert all(not np.array_equal(a, b) for i, a in enumerate(targets) for b in targets[:i])


@pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)
def test_every_array_has_the_requested_dtype_and_is_contiguous(sample):
    single, double = sample(3, dtype=np.float32), sample(3, dtype=np.float64)
    for a, b in zip(arrays(single), arrays(double), strict=True):
        assert a.dtype == np.float32 and b.dtype == np.float64 and a.flags.c_contiguous
        assert np.array_equal(a, b.astype(np.float32))


@pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize(
    "bad",
    [
        {"tasks": 0},
        {"tasks": 1, "seed": -1},
        {"tasks": 1, "step": 0.5},
        {"tasks": 1, "dtype": np.int32},
        {"tasks": 1, "dtype": "nonsense"},
    ],
)
def test_bad_arguments_are_named_in_one_line(sample, bad):
    with pytest.raises(ArgumentError, match=f"^{list(bad)[-1]}: expected .*, got ") as error:
        sample(**bad)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "sample", [SAMPLERS[name] for name in ("sinusoids", "linear", "two_layer")]
)
def test_support_and_query_have_their_own_sizes_and_examples(sample):
    batch = sample(4, 3, 5)
    assert batch.x_support.shape[:2] == batch.y_support.shape[:2] == (4, 3)
    assert batch.x_query.shape[:2] == batch.y_query.shape[:2] == (4, 5)
    assert not np.isin(batch.x_query, batch.x_support).any()
    for shots in ((0, 5), (3, 0), (1.5, 5)):
        with pytest.raises(ArgumentError, match="^k_"):
            sample(4, *shots)


def test_a_sinusoid_is_one_wave_of_an_allowed_amplitude_and_phase():
    batch = Sinusoids().sample(50, 10, 10, dtype=np.float64)
    x = np.concatenate([batch.x_support, batch.x_query], axis=1)[..., 0]
    y = np.concatenate([batch.y_support, batch.y_query], axis=1)[..., 0]
    assert abs(x).max() <= 5
    for xs, ys in zip(x, y, strict=True):
        # A sin(x - phi) = a sin x - b cos x with a = A cos phi, b = A sin phi: two
        # unknowns, 20 equations.
        (a, b), residual, *_ = np.linalg.lstsq(np.stack([np.sin(xs), -np.cos(xs)], 1), ys)
        assert (
            residual < 20 * (20 * EPS * 5) ** 2
        )  # 20 squares of an error of 20 roundings of at most 5
        assert 0.1 <= np.hypot(a, b) <= 5 and 0 <= np.arctan2(b, a) <= np.pi


def test_quadratics_are_symmetric_with_eigenvalues_in_their_interval():
    batch = Quadratics(6, eigenvalues=(0.5, 3.0)).sample(20)
    assert batch.x_support.shape == (20, 6, 6) and batch.y_support.shape == (20, 6)
    for a in (batch.x_support, batch.x_query):
        assert np.array_equal(a, a.transpose(0, 2, 1))
        s = np.linalg.eigvalsh(a)
        rounding = (
            6 * 6 * 3.0 * EPS
        )  # Weyl: eigenvalues move by |error|, at most P entries of P roundings
        assert s.min() > 0.5 - rounding and s.max() < 3.0 + rounding
    assert not np.isclose(batch.x_support, batch.x_query).any()
    assert not np.isclose(batch.y_support, batch.y_query).any()


def test_linear_regression_without_noise_is_solved_exactly_by_one_weight_vector():
    batch = LinearRegression(3, noise=0.0).sample(5, 8, 8)
    for xs, ys, xq, yq in zip(*arrays(batch), strict=True):
        w = np.linalg.lstsq(xs, ys)[0]
        # Least squares is backward stable: the error is eps times the condition number
        # times the size.
        assert (
            abs(xq @ w - yq).max() < 8 * EPS * np.linalg.cond(xs) * abs(xq).max() * abs(w).sum() * 8
        )


def test_noise_has_the_given_standard_deviation():
    quiet, loud = (LinearRegression(3, noise=n).sample(200, 50, 50).y_support for n in (0.0, 0.7))
    # 10 000 normal draws: their standard deviation is known to 1/sqrt(20 000) of
    # itself; five of those.
    assert abs((loud - quiet).std() / 0.7 - 1) < 5 / np.sqrt(20_000)


def test_the_shared_basis_is_orthonormal_and_chosen_by_the_seed():
    data = TwoLayerLinear(10, 3, seed=1)
    assert (
        abs(data.basis.T @ data.basis - np.eye(3)).max() < 10 * EPS
    )  # as random_orthonormal promises
    assert np.array_equal(data.basis, TwoLayerLinear(10, 3, seed=1).basis)
    assert not np.allclose(data.basis, TwoLayerLinear(10, 3, seed=2).basis)
    with pytest.raises(ValueError, match="read-only"):
        data.basis[0] = 0
    with pytest.raises(FrozenInstanceError):
        data.basis = np.eye(10)


def test_the_whitened_design_has_the_identity_as_its_covariance():
    batch = TwoLayerLinear(6, 2).population(3)
    assert batch.x_support.shape == (3, 6, 6) and batch.y_support.shape == (3, 6, 1)
    for x in (batch.x_support, batch.x_query):
        # Off the diagonal every term is an exact zero; on it, (sqrt d)^2 / d is 1 to
        # two roundings.
        assert abs(x.transpose(0, 2, 1) @ x / 6 - np.eye(6)).max() <= 2 * EPS


def test_a_population_loss_is_the_distance_of_weights():
    data = TwoLayerLinear(6, 2, noise=0.5)
    batch = data.population(4, seed=2)
    b = np.linspace(-1, 1, 6)[:, None]
    for x, y in zip(batch.x_query, batch.y_query, strict=True):
        true_weight = x.T @ y / 6
        assert np.isclose(
            ((x @ b - y) ** 2).mean(), ((b - true_weight) ** 2).sum(), rtol=20 * EPS, atol=0
        )
        assert np.allclose(
            data.basis @ (data.basis.T @ true_weight), true_weight, rtol=0, atol=20 * EPS
        )


def test_the_population_and_the_samples_share_their_tasks():
    data = TwoLayerLinear(6, 2)
    population, sampled = data.population(5, seed=2, step=1), data.sample(5, 9, 9, seed=2, step=1)
    true_weights = population.y_support / np.sqrt(6)
    # Six products of numbers below ten and their sums: far less than 540 EPS.
    assert abs(sampled.x_query @ true_weights - sampled.y_query).max() < 540 * EPS


@pytest.mark.parametrize(
    "build, argument",
    [
        (lambda: Sinusoids(amplitude=(5, 1)), "amplitude"),
        (lambda: Sinusoids(phase=1.0), "phase"),
        (lambda: Sinusoids(x_range=(0, np.inf)), "x_range"),
        (lambda: Quadratics(0), "dim"),
        (lambda: Quadratics(2, eigenvalues=(0.0, 1.0)), "eigenvalues"),
        (lambda: Quadratics(2.5), "dim"),
        (lambda: LinearRegression(True), "dim"),
        (lambda: LinearRegression(3, noise=-1), "noise"),
        (lambda: LinearRegression(3, noise=np.nan), "noise"),
        (lambda: TwoLayerLinear(3, 4), "rank"),
        (lambda: TwoLayerLinear(3, 0), "rank"),
        (lambda: TwoLayerLinear(3, 1, seed=-1), "seed"),
    ],
)
def test_a_distribution_that_makes_no_sense_is_refused(build, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: expected .*, got "):
        build()
