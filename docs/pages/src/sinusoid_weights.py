"""Writes sinusoids.json, the weights of the page on sinusoids, from three runs:

    refmaml train --data sinusoid --net mlp --hidden 40 40 --k-shot 10 --k-query 10 \\
        --tasks 25 --steps 15000 --optimizer adam --lr 0.001 --seed 0 --threads 1 \\
        --method maml --inner-lr 0.01 --inner-steps 1 --out runs/sinusoid-maml
        (and the same with --method erm --out runs/sinusoid-erm as its last line)
    refmaml train --data sinusoid --method cnp --steps 30000 --seed 0 \\
        --encoder-seed 0 --kernels reference --out runs/sinusoid-cnp
    python docs/pages/src/sinusoid_weights.py runs/sinusoid-maml runs/sinusoid-erm \\
        runs/sinusoid-cnp

"random" is the start of the first two. Nine digits of a number give its float32
exactly. The CNP's weights are rounded to four, so that the page stays small.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np

import refmaml as rm

TARGET = Path(__file__).with_name("sinusoids.json")
CONTEXT, HIDDEN = 64, (64, 64)  # the CNP's sizes, as the command line's defaults


def digits(theta, count=9):
    """A vector of float32 as numbers of some digits."""
    return [float(f"{w:.{count}g}") for w in theta.astype(np.float32)]


def meta_of(folder):
    """The meta-parameters of a run."""
    with np.load(Path(folder) / "checkpoint.npz") as checkpoint:
        return checkpoint["meta"]


def neural_process(meta):
    """The CNP's two nets: sizes of their layers, and weights layer by layer.

    The decoder's first layer is the context, whose numbers are not used.
    """
    decoder, encoder = [1 + CONTEXT, *HIDDEN, 2], [2, *HIDDEN, CONTEXT]
    P = CONTEXT + sum(O * (I + 1) for I, O in itertools.pairwise(decoder))
    theta, eta = digits(meta[CONTEXT:P], 4), digits(meta[P:], 4)
    return {"decoder": decoder, "encoder": encoder, "theta": theta, "eta": eta}


def main(maml, erm, cnp):
    """Write the weights of the three runs, and those of the start of two."""
    weights = {"maml": digits(meta_of(maml)), "erm": digits(meta_of(erm))}
    weights["random"] = digits(rm.mlp((1, 40, 40, 1)).init(seed=0))
    weights["cnp"] = neural_process(meta_of(cnp))
    compact = {"separators": (",", ":")}
    lines = ",\n".join(
        f'"{name}": {json.dumps(w, **(compact if name == "cnp" else {}))}'
        for name, w in weights.items()
    )
    TARGET.write_text("{" + lines + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
