"""Whether a function draws random numbers, even from a seed of its own.

A call that draws, or sets a seed, changes the state of a global generator.
"""

import sys

import numpy as np

SEED = 20261130  # another one than a function sets, so that its own seed shows


def draws_random_numbers(function, case):
    """Whether a call of a UserFunction changes the state of NumPy's or PyTorch's global
    generator. Their states are put back."""
    torch = sys.modules.get("torch") if function.lib.name == "torch" else None
    before = np.random.get_state()
    torch_before = None if torch is None else torch.get_rng_state()
    try:
        np.random.seed(SEED)
        started = np.random.get_state()
        if torch is not None:
            torch.manual_seed(SEED)
            torch_started = torch.get_rng_state()
        function.answer(case)
        drawn = not same_state(started, np.random.get_state())
        return drawn or (
            torch is not None and not torch.equal(torch_started, torch.get_rng_state())
        )
    finally:
        np.random.set_state(before)
        if torch is not None:
            torch.set_rng_state(torch_before)


def same_state(a, b):
    """Whether two states of NumPy's global generator agree."""
    return a[2:] == b[2:] and np.array_equal(a[1], b[1])
