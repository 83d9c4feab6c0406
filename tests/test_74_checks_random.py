"""Functions drawn at random: no right one is called wrong, no wrong one right."""

import numpy as np
import pytest
from part_functions import corrupted, drawn, gradient, leaves, with_gradient

import refmaml as rm

RIGHT, WRONG = range(300), range(60)
SMALLEST = 1e-4  # a change below this share of the largest entry may hide in rounding


def verdict(seed, change=lambda g: g):
    params, loss = drawn(seed)
    return rm.check_gradient(with_gradient(loss, params, change), params, seed=seed).verdict


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(overflow|invalid|divide).*:RuntimeWarning")
def test_no_right_gradient_is_called_wrong():
    verdicts = [verdict(seed) for seed in RIGHT]
    assert "wrong" not in verdicts
    assert verdicts.count("inconclusive") <= len(RIGHT) // 50  # a kink, or a gradient of 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(overflow|invalid|divide).*:RuntimeWarning")
def test_no_wrong_gradient_is_called_right():
    missed = []
    for seed in WRONG:
        params, loss = drawn(seed)
        right = gradient(loss, params)
        size = max(np.abs(a).max() for a in leaves(right))
        moved = corrupted(right, np.random.default_rng(seed))[2]
        if moved <= SMALLEST * size:
            continue
        found = verdict(seed, lambda g, s=seed: corrupted(g, np.random.default_rng(s))[0])
        missed += [seed] if found != "wrong" else []
    assert missed == []
