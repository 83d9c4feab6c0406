"""Writes sinusoids.json, the weights of the page on sinusoids, from two runs:

    refmaml train --data sinusoid --net mlp --hidden 40 40 --k-shot 10 --k-query 10 \\
        --tasks 25 --steps 15000 --optimizer adam --lr 0.001 --seed 0 --threads 1 \\
        --method maml --inner-lr 0.01 --inner-steps 1 --out runs/sinusoid-maml
        (and the same with --method erm --out runs/sinusoid-erm as its last line)
    python docs/pages/src/sinusoid_weights.py runs/sinusoid-maml runs/sinusoid-erm

"random" is the start of both runs. Nine digits of a number give its float32 exactly.
"""

import json
import sys
from pathlib import Path

import numpy as np

import refmaml as rm

TARGET = Path(__file__).with_name("sinusoids.json")


def digits(theta):
    """A vector of float32 as numbers of nine digits."""
    return [float(f"{w:.9g}") for w in theta.astype(np.float32)]


def main(maml, erm):
    """Write the weights of the two runs, and those of their start."""
    runs = {"maml": maml, "erm": erm}
    weights = {}
    for name, folder in runs.items():
        with np.load(Path(folder) / "checkpoint.npz") as checkpoint:
            weights[name] = digits(checkpoint["meta"])
    weights["random"] = digits(rm.mlp((1, 40, 40, 1)).init(seed=0))
    lines = ",\n".join(f'"{name}": {json.dumps(w)}' for name, w in weights.items())
    TARGET.write_text("{" + lines + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
