"""A Finding: which stage and tensor of a wrong gradient disagree first."""

from typing import NamedTuple

import numpy as np

MARGIN = 10.0  # how many times what rounding allows an entry may be off in these tests


class Finding(NamedTuple):
    """stage: the first wrong stage; tensor: the first named array in it that is wrong,
    "" where none can be named; text: both, and how it was found."""

    stage: str
    tensor: str
    text: str


def first_wrong_tensor(case, g):
    """The first named array that is off by more than rounding, or None."""
    for name, place in case.places.items():
        if (np.abs(g[place] - case.truth[place]) > MARGIN * case.allowed[place]).any():
            return name
    return None


def wrong_stage(stage, tensor, how):
    """The Finding that `stage` is the first wrong one; how: the evidence."""
    return Finding(stage, tensor, f"the first stage that is wrong is the {stage}, in {tensor}{how}")
