"""Trajectories as padded arrays: returns, advantages, and the linear baseline."""

import numpy as np
import pytest

import refmaml as rm


def batch_of(seed=0, T=2, N=3, H=6):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, H + 1, (T, N))
    mask = np.arange(H) < lengths[..., None]
    draw = rng.standard_normal
    states, actions, rewards = draw((T, N, H, 2)), draw((T, N, H, 1)), draw((T, N, H))
    return rm.Trajectories(states, actions, rewards, mask), lengths


def test_returns_count_valid_steps_alone():
    batch, lengths = batch_of()
    for t in range(2):
        for n in range(3):
            r = batch.rewards[t, n, : lengths[t, n]]
            assert np.isclose(batch.returns()[t, n], r.sum(), rtol=1e-14)
            togo = [sum(0.9 ** (u - s) * r[u] for u in range(s, len(r))) for s in range(len(r))]
            got = batch.returns_to_go(0.9)[t, n]
            assert np.allclose(got[: len(r)], togo, rtol=1e-13) and (got[len(r) :] == 0).all()
    assert (batch.num_steps == lengths.sum(axis=1)).all()


def test_generalised_advantages_are_their_sums():
    batch, lengths = batch_of()
    V = np.random.default_rng(1).standard_normal(batch.axes)
    got = batch.gae(V, 0.9, 0.8)
    for t, n in np.ndindex(2, 3):
        L = lengths[t, n]
        r, v = batch.rewards[t, n, :L], np.append(V[t, n, :L], 0)
        d = r + 0.9 * v[1:] - v[:-1]
        truth = [sum(0.72 ** (u - s) * d[u] for u in range(s, L)) for s in range(L)]
        assert np.allclose(got[t, n, :L], truth, rtol=1e-12) and (got[t, n, L:] == 0).all()


def test_advantages_with_lam_1_are_returns_less_the_baseline():
    batch, _ = batch_of()
    V = np.random.default_rng(1).standard_normal(batch.axes)
    truth = (batch.returns_to_go(0.9) - V) * batch.valid
    assert np.allclose(batch.gae(V, 0.9), truth, rtol=1e-12, atol=1e-14)


def test_whitened_advantages_have_mean_0_and_deviation_1_in_each_task():
    batch, _ = batch_of()
    A = batch.whitened(batch.returns_to_go())
    for t in range(2):
        some = A[t][batch.valid[t] == 1]
        assert abs(some.mean()) < 1e-14 and abs(some.std() - 1) < 1e-7
    assert (A[batch.valid == 0] == 0).all()


def test_discounting_multiplies_by_powers():
    batch, _ = batch_of()
    assert np.allclose(batch.discount(np.ones(batch.axes), 0.5)[0, 0], 0.5 ** np.arange(6))


def test_the_baseline_fits_returns_that_its_features_explain():
    batch, _ = batch_of(N=20)
    baseline = rm.LinearBaseline(ridge=1e-12, unit=6)
    w = np.random.default_rng(2).standard_normal((2, 8))
    returns = baseline.predict(batch, w)
    assert np.allclose(baseline.fit(batch, returns), w, rtol=1e-6)
    assert np.allclose(baseline.values(batch, returns), returns, atol=1e-9)


def test_the_baseline_solves_its_normal_equations():
    batch, _ = batch_of(N=20)
    baseline, G = rm.LinearBaseline(ridge=0.1), batch.returns_to_go(0.9)
    w, features = baseline.fit(batch, G), baseline.features(batch)
    for t in range(2):
        F, g = features[t][batch.valid[t] == 1], G[t][batch.valid[t] == 1]
        residual = F.T @ (F @ w[t] - g) + 0.1 * w[t]
        assert np.abs(residual).max() <= 1e-11 * np.abs(F.T @ g).max()


def test_the_trajectories_of_a_slice():
    batch, _ = batch_of()
    some = batch.episodes(slice(1, 3))
    assert some.axes == (2, 2, 6) and (some.rewards == batch.rewards[:, 1:]).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"states": np.zeros((2, 3, 4))}, "states: expected an array"),
        ({"states": [1]}, "states: expected an array"),
        ({"actions": np.zeros((2, 3, 5, 1))}, "actions: expected shape"),
        ({"actions": np.zeros((2, 3, 4))}, "actions: expected shape"),
        ({"rewards": np.zeros((2, 3, 4), int)}, "rewards: expected real numbers"),
        ({"rewards": np.full((2, 3, 4), np.nan)}, "rewards: expected finite numbers"),
        ({"mask": np.zeros((2, 3, 4))}, "mask: expected 1 at the first step"),
        ({"mask": np.full((2, 3, 4), 0.5)}, "mask: expected 0 and 1"),
        ({"mask": np.tile([1, 0, 1, 1], (2, 3, 1))}, "mask: expected 1 up to the end"),
        ({"mask": np.ones((2, 3))}, "mask: expected an array of shape"),
        ({"log_probs": np.ones((2, 3))}, "log_probs: expected shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, words):
    good = {
        "states": np.zeros((2, 3, 4, 2)),
        "actions": np.zeros((2, 3, 4, 1)),
        "rewards": np.zeros((2, 3, 4)),
    }
    assert rm.Trajectories(**good).mask.all()
    with pytest.raises(rm.ArgumentError, match=words):
        rm.Trajectories(**{**good, **change})


def test_other_numbers_are_refused():
    batch, _ = batch_of()
    with pytest.raises(rm.ArgumentError, match=r"gamma: expected a number in \[0, 1\]"):
        batch.returns_to_go(1.5)
    with pytest.raises(rm.ArgumentError, match="values: expected shape"):
        batch.gae(np.zeros(3))
    with pytest.raises(rm.ArgumentError, match="some: expected a slice"):
        batch.episodes(3)
    with pytest.raises(rm.ArgumentError, match="ridge: expected"):
        rm.LinearBaseline(ridge=0)
