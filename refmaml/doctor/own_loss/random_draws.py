"""Losses that draw random numbers in PyTorch, as dropout does.

A function that seeds PyTorch once a call repeats its answer: its losses draw one after
another from the seed. The truth draws in the same order: task by task, the support
losses of the inner steps, then the query loss."""

from dataclasses import dataclass, field

import torch

from refmaml.errors import ArgumentError, RefmamlError

UNUSUAL = 7_919_000_017  # a seed that a user's function will hardly set itself


@dataclass
class RandomDraws:
    """states  {(task, role, number of the pass): the generator's state before it}"""

    states: dict = field(default_factory=dict)

    def set(self, x, number):
        """Set the generator to the state of a pass on one task's x."""
        of_role = [key for key in self.states if key[:2] == (x.task, x.role)]
        if of_role:
            torch.set_rng_state(self.states[of_role[number % len(of_role)]])


def draws_random_numbers(functions, w, x, y):
    """Whether the loss of one task is another number with another state of the
    generator."""
    values = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            values.append(functions.pass_at(w, x, y, 0, False).loss)
    return values[0] != values[1]


def seed_of(function, case):
    """The seed that the user's function sets in a call, or None.

    function  a UserFunction
    """
    state = torch.get_rng_state()
    try:
        torch.manual_seed(UNUSUAL)
        function.answer(case)
        seed = torch.initial_seed()
    except RefmamlError as error:
        raise ArgumentError(str(error)) from error
    finally:
        torch.set_rng_state(state)
    return None if seed == UNUSUAL else seed


def recorded(functions, method, w, batch, seed):
    """The RandomDraws of a seed: the states in the order of the losses."""
    found = RandomDraws()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for t, (xs, ys, xq, yq) in enumerate(batch.tasks):
            passes = [(xs, ys, k) for k in range(getattr(method, "inner_steps", 0))]
            for x, y, number in [*passes, (xq, yq, 0)]:
                found.states[t, x.role, number] = torch.get_rng_state()
                functions.pass_at(w, x, y, number, False)
                torch.set_rng_state(functions.state)
    return found
