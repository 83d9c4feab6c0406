"""How much the meta-gradients of the estimators of policies differ on 2-D navigation.

    python benchmarks/navigation/directions.py runs/navigation/maml-0/step-60.npz
        --out benchmarks/navigation/directions.json

At a policy, each estimator's meta-gradient is computed on SETS sets of tasks, of the
size of a meta-step, the same sets for every estimator. Of each estimator e:

    beside_naive   the cosine between e and the naive surrogate on one set; the mean
                   over sets. 1: a meta-step would go the same way
    repeats        the cosine between e on two sets; the mean over pairs. What is
                   missing to 1 is noise of tasks and trajectories
    length         |e| / |naive| on one set; the mean over sets
"""

import argparse
from dataclasses import replace
from itertools import combinations

import numpy as np

from refmaml.cli import options, policies
from refmaml.environment import circumstances
from refmaml.tasks import navigation
from refmaml.training import checkpoint, files
from refmaml.training.evaluation import HELD_OUT_STEP
from refmaml.training.policy_step import CHUNK, Block

SETS = 6
FIRST = HELD_OUT_STEP - 1  # no meta-step and no evaluation has its streams or those before


def meta_gradient(policy, method, theta, draws):
    """The sum over tasks of the meta-gradient, (P,)."""
    parts = [draws.tasks(slice(i, i + CHUNK)) for i in range(0, len(draws.goals), CHUNK)]
    return sum(Block(method, policy, theta, part).gradient for part in parts)


def cosine(a, b):
    """Of the angle between two vectors."""
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def directions(path):
    """{"step", "sets", "estimators": {name: {"beside_naive", "repeats", "length"}}} at
    the policy of a checkpoint.
    """
    now, saved = checkpoint.load(path)
    config = options.reread(saved)
    policy, method = policies.make_policy(config), policies.make_method(config)
    kinds = {
        name: replace(method, name="maml", estimator=make())
        for name, make in policies.ESTIMATORS.items()
    }
    kinds["first order"] = replace(method, name="fomaml")
    found = {name: [] for name in kinds}
    for i in range(SETS):
        draws = navigation.draw(
            config["seed"], FIRST - i, config["tasks"], method.batches,
            config["trajectories"], config["horizon"], config["dtype"],
        )  # fmt: skip
        for name, kind in kinds.items():
            found[name].append(meta_gradient(policy, kind, now.meta, draws).astype(float))
    compared = {name: comparison(sets, found["naive"]) for name, sets in found.items()}
    return {"step": now.step, "sets": SETS, "estimators": compared}


def comparison(sets, naive):
    """The three numbers of one estimator's meta-gradients."""
    pairs = list(zip(sets, naive, strict=True))
    return {
        "beside_naive": float(np.mean([cosine(a, b) for a, b in pairs])),
        "repeats": float(np.mean([cosine(a, b) for a, b in combinations(sets, 2)])),
        "length": float(np.mean([np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--out", default="benchmarks/navigation/directions.json")
    given = parser.parse_args()
    files.write_json(given.out, directions(given.checkpoint) | circumstances())


if __name__ == "__main__":
    main()
