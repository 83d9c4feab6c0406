"""Streams: a task's random numbers depend on its address (seed, step, task) only."""

import numpy as np
import pytest

from refmaml.errors import ArgumentError
from refmaml.tasks.orthonormal import random_orthonormal
from refmaml.tasks.streams import build_rng, task_range, task_rng, task_rngs


def test_the_same_address_gives_the_same_numbers():
    assert np.array_equal(task_rng(3, 5, 7).random(100), task_rng(3, 5, 7).random(100))


def test_another_seed_step_or_task_gives_other_numbers():
    addresses = [(3, 5, 7), (4, 5, 7), (3, 6, 7), (3, 5, 8), (3, 7, 5), (5, 3, 7), (7, 5, 3)]
    first = [task_rng(*address).integers(2**63) for address in addresses]
    first += [build_rng(3, 7).integers(2**63), build_rng(3, 5).integers(2**63)]
    assert len(set(first)) == len(first)


def test_moving_one_generator_gives_what_separate_generators_give():
    for task, rng in zip(range(4, 9), task_rngs(1, 2, range(4, 9)), strict=True):
        rng.integers(
            4, dtype=np.uint32
        )  # leaves half a word buffered: it must not reach the next task
        expected = task_rng(1, 2, task)
        expected.integers(4, dtype=np.uint32)
        assert np.array_equal(rng.standard_normal(10), expected.standard_normal(10))


def test_neighbouring_streams_are_uncorrelated():
    addresses = [(0, step, task) for step in range(6) for task in range(6)]
    numbers = np.array([task_rng(*address).standard_normal(1000) for address in addresses])
    correlations = np.corrcoef(numbers)[np.triu_indices(36, 1)]
    # 630 correlations of standard deviation 1/sqrt(1000): the largest passes 5 of them
    # once in 2800 draws.
    assert abs(correlations).max() < 5 / np.sqrt(1000)


@pytest.mark.parametrize(
    "address", [(-1, 0, 0), (0, -1, 0), (0, 0, 2**64), (0, 0.5, 0), ("1", 0, 0)]
)
def test_an_address_outside_64_bits_is_refused(address):
    with pytest.raises(ArgumentError, match="expected an integer in"):
        task_rng(*address)


def test_tasks_are_a_count_or_a_range():
    assert task_range(3) == range(3)
    assert task_range(np.int64(2)) == range(2)
    assert task_range(range(8, 16, 2)) == range(8, 16, 2)


@pytest.mark.parametrize("tasks", [0, -1, 2.0, "3", True, None, range(0), range(-2, 2), [1, 2]])
def test_no_tasks_are_refused(tasks):
    with pytest.raises(ArgumentError, match="^tasks: expected"):
        task_range(tasks)


def test_random_orthonormal_columns_are_orthonormal():
    q = random_orthonormal(build_rng(0), 9, 4)
    # Householder QR is backward stable: |Q'Q - I| is a small multiple of eps times the
    # column length.
    assert abs(q.T @ q - np.eye(4)).max() < 9 * np.finfo(float).eps


def test_random_orthonormal_signs_are_not_lapacks():
    corners = [random_orthonormal(build_rng(0, i), 3, 3)[0, 0] > 0 for i in range(400)]
    # A fair coin 400 times: 5 standard deviations of 10 each about 200; LAPACK's own
    # sign gives 0 or 400.
    assert 150 < sum(corners) < 250
