"""What the check of policies' meta-gradients says on frozen batches drawn at random.

    python benchmarks/doctor_draws/policies.py --draws 100

Each draw is a seed of the frozen batches, one or two inner steps, and what sums are
divided by. On each, every function of KINDS is judged: right estimators, estimators
that are not meant, and known mistakes, in NumPy by hand. An interrupted run goes on
where it was.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from rl_by_hand import ByHand, sums_over_episodes

import refmaml as rm
from refmaml.environment import circumstances
from refmaml.storage.atomic import atomic_write

HERE = Path(__file__)
SPACING = 10  # between seeds: a check draws batches of a few seeds that follow its own


class Kind(NamedTuple):
    """A function; what the check is told, and what it should say.

    verdict, words   the verdict, and a part of the diagnosis
    """

    function: Any
    verdict: str
    words: str
    estimator: str = "any"


def own_reward(b, problem):
    """The weight of a step without its later rewards."""
    return b.rewards


KINDS = {
    "DiCE": Kind(ByHand("dice"), "right", "DiCE: it estimates the gradient of J_II, with"),
    "DiCE, independent batches": Kind(
        ByHand("dice", independent=True), "right", "independent batches"
    ),
    "E-MAML": Kind(ByHand("naive", score=1.0), "right", "the gradient of J_I,"),
    "E-MAML with a baseline": Kind(
        ByHand("naive", score=1.0, baseline=0.3), "right", "the gradient of J_I,"
    ),
    "naive, meant": Kind(ByHand("naive"), "right", "the naive surrogate: ", "naive"),
    "LVC, meant": Kind(ByHand("lvc"), "right", "LVC: ", "lvc"),
    "first order, meant": Kind(ByHand("none"), "right", "first-order MAML: ", "first_order"),
    "naive": Kind(ByHand("naive"), "wrong", "the naive surrogate: "),
    "LVC (detached advantages)": Kind(ByHand("lvc"), "wrong", "the advantages are detached"),
    "no second order": Kind(ByHand("none"), "wrong", "the surrogate's second order is missing"),
    "log-probability averaged": Kind(
        ByHand("dice", averaged=True), "wrong", "is averaged over the action dimensions"
    ),
    "divided by the episode count": Kind(
        ByHand(sums=sums_over_episodes), "wrong", "are divided by the episode count"
    ),
    "wrong batch": Kind(ByHand("dice", batch=0), "wrong", "the wrong batch: that of inner step 0"),
    "score term from means": Kind(
        ByHand("naive", score=1 / 35), "wrong", "the score term is 1/35 times the right one"
    ),
    "old policy not detached, inside": Kind(
        ByHand("none", rate=0.0), "wrong", "the inner step is 0: the old policy"
    ),
    "old policy not detached, outside": Kind(
        ByHand("none", total=0.0), "wrong", "the answer is 0: the old policy"
    ),
    "own rewards": Kind(ByHand("naive", weights=own_reward), "wrong", "its own reward alone"),
    "a sum over trajectories": Kind(
        ByHand("dice", rate=5.0), "wrong", "5 is the number of trajectories"
    ),
    "the sign of the inner step": Kind(ByHand("dice", rate=-1.0), "wrong", "descends the return"),
}


def options_of(draw):
    """The options of the check on a draw."""
    rng = np.random.default_rng(draw)
    steps = 1 if rng.uniform() < 0.75 else 2
    over = ("trajectories", "steps")[rng.integers(2)]
    return {"seed": SPACING * draw, "inner_steps": steps, "over": over}


def result_of(kind, report):
    """ "as expected", "no name" or "a false name"."""
    if report.verdict == kind.verdict and kind.words in report.diagnosis:
        return "as expected"
    return "no name" if report.diagnosis.startswith("it is none") else "a false name"


def judged(draw, names=tuple(KINDS)):
    """{name: (result, what was said)} of some functions on a draw."""
    found = {}
    for name in names:
        kind = KINDS[name]
        options = {**options_of(draw), "estimator": kind.estimator}
        report = rm.check_rl_meta_gradient(kind.function, **options)
        found[name] = result_of(kind, report), report.diagnosis
    return found


def record_of(draws, seconds):
    """What the file holds: counts, and the words of what was not as expected."""
    counts = {name: Counter(draws[d][name][0] for d in draws) for name in KINDS}
    others = [
        {"draw": d, "function": name, "result": result, "said": said}
        for d, found in draws.items()
        for name, (result, said) in found.items()
        if result != "as expected"
    ]
    total = sum(counts.values(), Counter())
    command = f"python benchmarks/doctor_draws/policies.py --draws {len(draws)}"
    summary = {"draws": len(draws), "functions": len(KINDS), **total}
    about = {"command": command, **circumstances(), "cpu_seconds": round(seconds, 1)}
    return {**about, "summary": summary, "counts": counts, "not as expected": others}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE.with_suffix(".json"))
    parser.add_argument("--draws", type=int, default=100)
    options = parser.parse_args()
    part = options.out.with_suffix(".part.json")
    state = json.loads(part.read_text()) if part.exists() else {"draws": {}, "seconds": 0.0}
    for draw in range(options.draws):
        if str(draw) in state["draws"]:
            continue
        start = time.process_time()
        state["draws"][str(draw)] = judged(draw)
        state["seconds"] += time.process_time() - start
        with atomic_write(part) as file:
            file.write(json.dumps(state).encode())
    record = record_of(state["draws"], state["seconds"])
    with atomic_write(options.out) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())
    part.unlink()
    print(json.dumps(record["summary"], indent=1))


if __name__ == "__main__":
    main()
