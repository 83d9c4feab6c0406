"""MAML with momentum in its inner loop beside plain MAML, on glyphs.

    python benchmarks/inner_momentum.py --steps 300 --out benchmarks/inner_momentum.json

Both train for the same number of meta-steps, on the same tasks, from the same starts,
for three seeds. With momentum 0.9 five steps of length a move phi by up to 13.1 a
times a constant gradient, without it by 5 a; the step sizes account for that.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from refmaml.cli.main import main as refmaml
from refmaml.environment import circumstances
from refmaml.storage.atomic import atomic_write

SEEDS = (0, 1, 2)
RULES = {
    "plain": ("--inner-lr", "0.1"),
    "momentum": ("--inner-lr", "0.04", "--rule", "SGD(momentum=0.9)"),
}
COMMON = ("--data", "glyphs", "--inner-steps", "5", "--tasks", "8", "--eval-tasks", "400")


def accuracy(rule, seed, steps, folder):
    """(accuracy, half width of its 95 % interval) on held-out tasks, in per cent."""
    out = str(Path(folder) / f"{rule}-{seed}")
    options = [*COMMON, *RULES[rule], "--steps", str(steps), "--seed", str(seed), "--out", out]
    status = refmaml(["train", *options])
    if status:
        raise SystemExit(f"refmaml train: expected exit status 0, got {status}")
    result = json.loads((Path(out) / "result.json").read_text())
    return 100 * result["accuracy"], 100 * result["interval"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=300, help="meta-steps (default 300)")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            {"rule": rule, "seed": seed, "accuracy": value, "interval": interval}
            for seed in SEEDS
            for rule in RULES
            for value, interval in [accuracy(rule, seed, args.steps, folder)]
        ]
    means = {r: np.mean([row["accuracy"] for row in rows if row["rule"] == r]) for r in RULES}
    record = {
        "command": f"python benchmarks/inner_momentum.py --steps {args.steps}",
        **circumstances(),
        "options": {rule: " ".join((*COMMON, *options)) for rule, options in RULES.items()},
        "rows": rows,
        "means": means,
    }
    with atomic_write(args.out) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
    print({rule: round(float(mean), 1) for rule, mean in means.items()})


if __name__ == "__main__":
    main()
