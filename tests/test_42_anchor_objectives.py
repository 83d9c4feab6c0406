"""The stochastic and the variational objective of an anchor, in one dimension."""

import numpy as np
import pytest
from scalar_functions import scalar_wavy, scalar_wells

import refmaml as rm
from refmaml.oracles.anchor_objectives import (
    free_energy,
    stationary_points,
    stochastic_objective,
    variational_objective,
)

X = np.zeros((1, 1))
NETS = {"wavy": scalar_wavy(), "wells": scalar_wells()}
CASES = [("wavy", 0.3, 8.0, 0.5), ("wells", 0.3, 1.5, 0.6), ("wells", 1.0, 6.0, 0.2)]
SMALL = 1e-5


def interval(anchor, strength):
    """Outside of it the penalty is steeper than f, whose slope is below 7.2 there."""
    return anchor - 1 - 7.2 / strength, anchor + 1 + 7.2 / strength


def stochastic(name, anchor, strength, sigma):
    ends = interval(anchor, strength)
    return stochastic_objective(NETS[name], anchor, X, strength, sigma, ends)


@pytest.mark.parametrize("name,anchor,strength,sigma", CASES)
def test_the_probabilities_are_those_of_descent_from_many_starts(name, anchor, strength, sigma):
    found = stochastic(name, anchor, strength, sigma)
    starts = anchor + sigma * np.linspace(-4, 4, 4001)
    weights = np.exp(-0.5 * np.linspace(-4, 4, 4001) ** 2)
    w, net = starts, NETS[name]
    step = 1 / (34 + strength)  # max |f''| is 33.7
    for _ in range(3000):
        slope = net.value("df", w[:, None], np.repeat(X, len(w), 0)) + strength * (w - anchor)
        w = w - step * slope
    nearest = abs(w[:, None] - found.solutions).argmin(axis=1)
    assert abs(w - found.solutions[nearest]).max() < 1e-6
    by_descent = [weights[nearest == i].sum() for i in range(len(found.solutions))]
    # A start counts 8/4000 of a deviation at most, at each edge; the tails are 6e-5.
    assert np.allclose(found.probabilities, by_descent / weights.sum(), rtol=0, atol=2e-3)
    assert found.probabilities.sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("name,anchor,strength,sigma", CASES)
def test_both_parts_together_are_the_derivative(name, anchor, strength, sigma):
    up, down = (stochastic(name, anchor + h, strength, sigma).value for h in (SMALL, -SMALL))
    found = stochastic(name, anchor, strength, sigma)
    # Differences: SMALL^2 times a third derivative below 1e3, and rounding over SMALL.
    assert found.moving + found.choosing == pytest.approx((up - down) / 2 / SMALL, abs=2e-7)


def test_the_first_part_alone_is_not_the_derivative():
    found = stochastic(*CASES[1])
    assert abs(found.choosing) > 0.05


def test_without_noise_the_first_part_is_imaml_s_gradient():
    name, anchor, strength, _ = CASES[2]
    found = stochastic(name, anchor, strength, 1e-3)
    method = rm.IMAML(strength, 1000, 1 / (34 + strength), cg_steps=3)
    gradient = method.meta_gradient(NETS[name], np.array([anchor]), rm.Batch(X, X, X, X)).grad
    assert found.moving == pytest.approx(gradient[0], abs=1e-12) and abs(found.choosing) < 1e-12


def test_minima_and_maxima_take_turns():
    minima, maxima = stationary_points(NETS["wavy"], X, 0.3, 2.0, interval(0.3, 2.0))
    assert len(minima) == len(maxima) + 1 > 2
    assert (minima[:-1] < maxima).all() and (maxima < minima[1:]).all()


def test_an_interval_without_a_fall_and_a_rise_is_refused():
    with pytest.raises(rm.ArgumentError, match="interval: expected"):
        stationary_points(NETS["wells"], X, 0.0, 2.0, (5.0, 6.0))


# ---- the variational objective -------------------------------------------------------


def test_the_variational_objective_of_a_quadratic_is_known():
    a, c, strength, anchor = 3.0, 1.2, 2.0, -0.5
    bowl = rm.ScalarFunction(
        lambda w, x: a / 2 * (w - c) ** 2, lambda w, x: a * (w - c), lambda w, x: a + 0 * w
    )
    found = variational_objective(bowl, anchor, X, strength)
    assert found.mean == pytest.approx((strength * anchor + a * c) / (strength + a), abs=1e-14)
    assert found.deviation == pytest.approx((strength + a) ** -0.5, abs=1e-14)
    # -log of the marginal likelihood, which the bound attains for Gaussians
    exact = (anchor - c) ** 2 / (2 / a + 2 / strength) + 0.5 * np.log(1 + a / strength)
    assert found.value == pytest.approx(exact, abs=1e-13)


@pytest.mark.parametrize("name,anchor,strength,sigma", CASES)
def test_its_gradient_is_lambda_times_the_way_from_the_mean(name, anchor, strength, sigma):
    def at(anchor):
        return variational_objective(NETS[name], anchor, X, strength)

    differences = (at(anchor + SMALL).value - at(anchor - SMALL).value) / 2 / SMALL
    found = at(anchor)
    assert found.gradient == pytest.approx(differences, abs=2e-7)
    _, in_mean, in_s = free_energy(NETS[name], anchor, X, strength, found.mean, found.deviation)
    assert abs(in_mean) < 1e-11 and abs(in_s) < 1e-11  # stationary, to rounding


def test_no_distribution_nearby_is_better():
    found = variational_objective(NETS["wells"], -0.4, X, 1.5)
    for mean in (-0.05, 0.05):
        for s in (-0.05, 0.05):
            moved = found.mean + mean, found.deviation + s
            assert free_energy(NETS["wells"], -0.4, X, 1.5, *moved)[0] > found.value
