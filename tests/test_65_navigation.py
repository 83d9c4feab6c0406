"""2-D navigation: the environment, the outer step, training runs that go on."""

import numpy as np
import pytest
from command_line import error_of, left_in

from refmaml.cli import main
from refmaml.models import mlp
from refmaml.rl import LVC, DiCE, GaussianPolicy, NaiveSurrogate
from refmaml.rl.trust_region import Measured, TrustRegion
from refmaml.tasks import navigation
from refmaml.training.policy_step import Block, PolicyMethod

pytestmark = pytest.mark.usefixtures("folder")

SMALL = (
    *("--data", "navigation", "--tasks", "3", "--trajectories", "4", "--horizon", "8"),
    *("--hidden", "5", "--eval-tasks", "3", "--quiet"),
)


# ---- the environment -----------------------------------------------------------------


def by_one_trajectory(goal, actions):
    """A point's rewards, in Python: clip(0.1 a, -0.1, 0.1), done within 0.01."""
    x, y, rewards = 0.0, 0.0, []
    for a, b in actions:
        x += min(max(0.1 * a, -0.1), 0.1)
        y += min(max(0.1 * b, -0.1), 0.1)
        rewards.append(-(((x - goal[0]) ** 2 + (y - goal[1]) ** 2) ** 0.5))
        if abs(x - goal[0]) < 0.01 and abs(y - goal[1]) < 0.01:
            break
    return rewards


def test_a_batch_of_trajectories_is_that_of_a_loop_over_one():
    draws = navigation.draw(3, 7, 4, 1, 3, horizon=9, dtype=np.float64)
    batch = navigation.walk(lambda s: 0.3 - 2 * s, np.full((1, 2), 0.8), *_first(draws))
    assert batch.mask.all()
    for t, n in np.ndindex(4, 3):
        rewards = by_one_trajectory(draws.goals[t], batch.actions[t, n])
        assert np.allclose(rewards, batch.rewards[t, n], rtol=1e-12)


def _first(draws):
    return draws.goals, draws.noise[0]


def test_a_trajectory_ends_at_the_goal():
    goals, noise = np.array([[0.2, -0.1]]), np.zeros((1, 2, 6, 2))
    batch = navigation.walk(lambda s: 10 * (goals[:, None] - s), np.ones((1, 2)), goals, noise)
    assert batch.mask[0].tolist() == [[1, 1, 0, 0, 0, 0]] * 2
    assert (batch.rewards[0, :, 2:] == 0).all() and (batch.states[0, :, 2:] == 0).all()
    assert batch.rewards[0, 0].sum() == pytest.approx(navigation.best_returns(goals)[0])


def test_no_policy_beats_the_best_return():
    rng = np.random.default_rng(0)
    goals = rng.uniform(-0.5, 0.5, (50, 2))
    noise = np.zeros((50, 1, navigation.HORIZON, 2))
    best = navigation.best_returns(goals)
    for gain in (2.0, 9.0, 10.0, 11.0):
        batch = navigation.walk(
            lambda s, gain=gain: gain * (goals[:, None] - s), np.ones((1, 2)), goals, noise
        )
        assert (batch.returns()[:, 0] <= best + 1e-12).all()
    assert -1.5 < best.mean() < -0.5


def test_goals_and_noise_of_a_step_do_not_depend_on_other_tasks():
    many, few = (navigation.draw(1, 5, n, 2, 3, 4) for n in (7, 3))
    assert (many.goals[:3] == few.goals).all() and (many.noise[:, :3] == few.noise).all()
    other = navigation.draw(1, 6, 3, 2, 3, 4)
    assert not np.isclose(few.goals, other.goals).any()


# ---- the outer step ------------------------------------------------------------------


def test_the_step_of_the_trust_region_has_its_divergence_to_second_order():
    rng = np.random.default_rng(0)
    root, g = rng.standard_normal((9, 9)), rng.standard_normal(9)
    F = root @ root.T + 9 * np.eye(9)
    region = TrustRegion(limit=0.03, cg_steps=9)
    step = region.step(g, lambda v: F @ v)
    assert step @ F @ step / 2 == pytest.approx(0.03, rel=1e-4)
    assert np.allclose(step / np.linalg.norm(step), -unit(np.linalg.solve(F, g)), atol=1e-6)


def unit(x):
    return x / np.linalg.norm(x)


def test_the_step_keeps_the_precision_of_the_gradient():
    step = TrustRegion().step(np.ones(3, np.float32), lambda v: 2 * v)
    assert step.dtype == np.float32


def test_the_line_search_shortens_a_step_until_loss_and_divergence_fit():
    theta, step, region = np.zeros(1), np.ones(1), TrustRegion(limit=0.2)
    found = region.search(theta, step, 0.0, lambda p: Measured(-p[0], p[0] ** 2))
    assert found.tries == 5 and found.at.kl <= 0.2 < (0.8**3) ** 2
    none = region.search(theta, step, 0.0, lambda p: Measured(p[0], 0.0))
    assert none.tries == 0 and none.theta is theta


def block(name, estimator, steps=2):
    """A Block of three tasks, in float64."""
    policy = GaussianPolicy(mlp((2, 5, 2), "tanh"), -0.3)
    method = PolicyMethod(name, estimator, inner_lr=0.4, inner_steps=steps)
    theta = policy.init(1)
    draws = navigation.draw(0, 0, 3, method.batches, 4, 6, np.float64)
    return Block(method, policy, theta, draws), theta


@pytest.mark.parametrize("estimator", [NaiveSurrogate(), LVC(), DiCE()])
def test_the_product_is_symmetric_and_the_second_derivative_of_the_divergence(estimator):
    """Central differences of the mean KL, whose gradient is 0 at theta.

    The batch has four trajectories, so the share of the products is one of them.
    """
    here, theta = block("maml", estimator)
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, len(theta)))
    assert u @ here.product(v) == pytest.approx(v @ here.product(u), rel=1e-10)
    assert v @ here.product(v) > 0


def test_the_product_of_erm_is_the_second_derivative_of_the_divergence():
    """Central differences of order 2: an error of about h^2, or eps / h^2."""
    here, theta = block("erm", NaiveSurrogate())
    here.outer = here.outer.episodes(slice(0, 1))  # the share that products take
    v = np.random.default_rng(0).standard_normal(len(theta))
    h = 1e-4
    second = (here.measure(theta + h * v)[1] + here.measure(theta - h * v)[1]) / h**2
    assert v @ here.product(v) == pytest.approx(second, rel=1e-5)


def test_the_gradient_of_fomaml_leaves_the_hessians_out():
    here, _ = block("fomaml", NaiveSurrogate())
    lam = here.method.objective(here.policy, here.outer).gradient(here.phi)
    assert np.array_equal(here.gradient, lam.sum(axis=0))
    assert not np.allclose(block("maml", NaiveSurrogate())[0].gradient, here.gradient)


def test_the_gradient_of_reptile_is_the_way_to_the_adapted_policies():
    here, theta = block("reptile", NaiveSurrogate())
    assert np.array_equal(here.gradient, (here.phi - theta).sum(axis=0))


# ---- the command ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["maml", "fomaml", "erm", "reptile"])
def test_a_run_of_each_method_goes_on_as_if_it_had_not_stopped(capsys, method):
    train = ["train", *SMALL, "--method", method, "--estimator", "dice"]
    assert main([*train, "--steps", "3", "--out", "whole"]) == 0
    assert main([*train, "--steps", "2", "--out", "parts"]) == 0
    resumed = ["train", "--resume", "--out", "parts", "--steps", "3", "--quiet"]
    assert main(resumed) == 0
    (meta, _, table, config), other = left_in("whole"), left_in("parts")
    assert meta == other[0] and config == other[3]
    header = table[0]
    assert "return_before" in header and "sigma" in header and "cg_residual" not in header
    seconds = [i for i, name in enumerate(header) if "seconds" in name]
    for row, same in zip(table, other[2], strict=True):
        pairs = [p for i, p in enumerate(zip(row, same, strict=True)) if i not in seconds]
        assert all(a == b for a, b in pairs)
    assert f"{method} on navigation: return -" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, message",
    [
        (("--method", "imaml"), "--method: expected one of maml, fomaml, erm, reptile, got imaml"),
        (("--k-shot", "3"), "--k-shot: expected no such option beside --data navigation, got 3"),
        (("--lr", "0.5"), "--lr: expected --method reptile beside it, got maml"),
        (("--discount", "1.5"), "--discount: expected a number <= 1, got 1.5"),
        (("--inner-lr", "0.5,0.2"), "--inner-lr: expected one number beside --data navigation"),
        (("--net", "resnet12"), "--hidden: expected --net mlp beside it, got --net resnet12"),
        (("--estimator", "lvc2"), "--estimator: expected one of naive, lvc, dice, got 'lvc2'"),
        (("--trajectories", "9" * 9), "configuration: expected trajectories that fit into"),
    ],
)
def test_options_that_navigation_cannot_use_are_one_line(capsys, more, message):
    assert error_of(capsys, "train", *SMALL, *more).startswith(message)


def test_an_option_of_policies_is_refused_beside_other_data(capsys):
    line = error_of(capsys, "train", "--data", "sinusoid", "--estimator", "lvc")
    assert line == "--estimator: expected --data navigation beside it, got --data sinusoid"


def test_a_policy_that_overflows_ends_the_run_with_one_line(capsys):
    assert main(["train", *SMALL, "--inner-lr", "1e30", "--out", "run"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "meta-step 1: trajectories of a policy" in line and "smaller inner_lr" in line
