"""Policies' meta-gradients, right and wrong, and what the check should say of each."""

import numpy as np
import rl_implementations as ways
from rl_by_hand import ByHand, sums_over_episodes
from rl_implementations import Way

import refmaml as rm
from refmaml.checks.rl import probe

STEPS = {"over": "steps"}
TWO = {"inner_steps": 2}
MEAN = 1 / (probe.N * probe.H)

# name: (function by hand, the same in a framework or None, options, verdict, words)
CASES = {
    "dice": (ByHand("dice"), Way(ways.dice), {}, "right", "it estimates the gradient of J_II,"),
    "dice, declared": (
        ByHand("dice"), Way(ways.dice), {"estimator": "dice", **TWO}, "right", "DiCE:",
    ),
    "dice, independent": (
        ByHand("dice", independent=True), None, {}, "right", "independent batches",
    ),
    "emaml": (
        ByHand("naive", score=1.0), Way(score=ways.summed), {}, "right", "the gradient of J_I,",
    ),
    "emaml, steps": (
        ByHand("naive", score=1.0), Way(score=ways.summed), {"estimator": "emaml", **STEPS},
        "right", "without a bias",
    ),
    "emaml, two steps": (
        ByHand("naive", score=1.0), Way(score=ways.summed), TWO, "right", "J_I",
    ),
    "emaml with a baseline": (
        ByHand("naive", score=1.0, baseline=0.3), None, {}, "right", "J_I",
    ),
    "of the loss": (
        ByHand("dice", total=-1.0), Way(ways.dice, sign=-1.0), {"of": "loss"}, "right", "DiCE",
    ),
    "naive": (ByHand("naive"), Way(), {}, "wrong", "the naive surrogate: it estimates the "
              "gradient of neither"),
    "naive, declared": (
        ByHand("naive"), Way(), {"estimator": "naive"}, "right", "neither J_I nor J_II",
    ),
    "lvc": (ByHand("lvc"), Way(ways.lvc), {}, "wrong", "the advantages are detached"),
    "lvc for dice": (
        ByHand("lvc"), Way(ways.lvc_of_data), {"estimator": "dice"}, "wrong",
        "LVC in place of DiCE",
    ),
    "lvc, declared": (
        ByHand("lvc"), Way(ways.lvc_of_data), {"estimator": "lvc"}, "right", "LVC:",
    ),
    "first order": (
        ByHand("none"), Way(first_order=True), {}, "wrong", "the surrogate's second order is",
    ),
    "score on dice": (
        ByHand("dice", score=1.0), Way(ways.dice, score=ways.summed), {}, "wrong", "twice",
    ),
    "averaged": (
        ByHand("dice", averaged=True), Way(ways.dice, averaged=True), {}, "wrong",
        "the log-probability is averaged over the action dimensions",
    ),
    "wrong batch": (
        ByHand("dice", batch=0), Way(ways.dice, batch=0), {}, "wrong",
        "the meta-loss is computed on the wrong batch: that of inner step 0",
    ),
    "wrong batch of two": (
        ByHand("dice", batch=1), Way(ways.dice, batch=1), TWO, "wrong", "that of inner step 1",
    ),
    "score from means": (
        ByHand("naive", score=MEAN), Way(score=ways.of_means), {}, "wrong",
        "the score term is 1/35 times the right one: a mean over 35",
    ),
    "own rewards": (
        ByHand("naive", weights=lambda b, problem: b.rewards),
        Way(ways.own_rewards, ways.own_rewards), {}, "wrong", "its own reward",
    ),
    "not detached": (
        ByHand("none", rate=0.0), Way(ways.not_detached), {}, "wrong",
        "the inner step is 0: the old policy is not detached",
    ),
    "not detached outside": (
        ByHand("none", total=0.0), Way(ways.dice, ways.not_detached), {}, "wrong",
        "the answer is 0: the old policy is not detached in the meta-loss",
    ),
    "divided by the episode count": (
        ByHand(sums=sums_over_episodes),
        Way(ways.divided_by_episodes, ways.divided_by_episodes), {}, "wrong",
        "the weights of the cumulative log-probabilities are divided by the episode count",
    ),
    "counted twice": (
        ByHand(sums=lambda N, H: np.kron(np.eye(N), np.tri(H))),
        Way(ways.prefix_and_to_go, ways.prefix_and_to_go), {}, "wrong",
        "a reward counts once for each earlier step",
    ),
    "a sum over trajectories": (
        ByHand("dice", rate=5.0), None, {}, "wrong", "5 is the number of trajectories",
    ),
    "descends": (ByHand("dice", rate=-1.0), None, {}, "wrong", "descends the return"),
    "the sign": (ByHand("dice", total=-1.0), Way(ways.dice, sign=-1.0), {}, "wrong",
                 "the sign is wrong: it is the gradient of the loss"),
    "a sum over tasks": (ByHand("dice", total=2.0), None, {}, "wrong", "the number of tasks"),
}  # fmt: skip


def judged(name, function, framework):
    _, _, options, verdict, words = CASES[name]
    report = rm.check_rl_meta_gradient(function, framework=framework, **options)
    assert report.verdict == verdict and words in report.diagnosis, str(report)
    return report


# These take longer: two inner steps, or many recipes before the one that fits.
SLOW = {
    "divided by the episode count", "counted twice",
    "wrong batch of two", "emaml, two steps", "emaml, steps", "own rewards", "descends",
    "a sum over trajectories", "dice, declared", "score on dice", "naive, declared",
}  # fmt: skip

# ---- formulas of other libraries, in a few lines -------------------------------------

LIBRARIES = {
    "learn2learn, maml_trpo": (
        Way(ways.naive, ways.lvc, averaged=True, sign=-1.0), {"estimator": "naive"},
        ["the log-probability is averaged over the action dimensions"], "the naive surrogate",
    ),
    "learn2learn, maml_dice": (
        Way(ways.divided_by_episodes, ways.divided_by_episodes, sign=-1.0), {},
        ["the weights of the cumulative log-probabilities are divided by the episode count"], None,
    ),
    "learn2learn, maml_dice and its policy": (
        Way(ways.divided_by_episodes, ways.divided_by_episodes, averaged=True, sign=-1.0), {},
        ["divided by the episode count", "averaged over the action dimensions"], None,
    ),
    "ProMP": (Way(ways.lvc_of_data, ways.lvc_of_data, sign=-1.0), {"estimator": "lvc"}, [], None),
    "ProMP, maml": (Way(sign=-1.0), {"estimator": "naive"}, [], None),
    "ProMP, dice_maml": (Way(ways.dice, sign=-1.0), {"estimator": "dice"}, [], None),
    "ProMP, e_maml": (
        Way(score=ways.of_means, sign=-1.0), {"estimator": "emaml"},
        ["the score term is 1/35 times the right one"], "with the score term",
    ),
    "RLlib, torch": (
        Way(ways.lvc_of_data, ways.lvc_of_data, batch=1, sign=-1.0),
        {"estimator": "lvc", **TWO}, ["wrong batch: that of inner step 1"], "LVC",
    ),
}  # fmt: skip
