"""Random bits as a pure function of integers: SplitMix64, counted and not iterated.

Entry i of a key is mix(key + (i + 1) GAMMA), the (i + 1)-th number of the generator
SplitMix64 that starts at `key`. Nothing is drawn in sequence, so any part of an array
of bits can be computed alone, by array operations on integers, which give the same bits
on every kernel set.
Source: Steele, Lea, Flood 2014, figure 17 and section 5 (mix64variant13 of Stafford).
"""

from typing import Any

import numpy as np

GAMMA = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, rounded to an odd number
STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT, WORD = 31, 2**64
SIGNIFICANT = 53  # leading bits of a word: as many as float64 has


def mix(z: Any) -> Any:
    """A bijection of 64-bit words that flips half of the bits for any change of one.

    z  an array of uint64, whose products wrap around
    """
    for shift, factor in STEPS:
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(LAST_SHIFT))


def mix_integer(z: int) -> int:
    """`mix` of one of Python's integers, which do not wrap around."""
    for shift, factor in STEPS:
        z = (z ^ (z >> shift)) * factor % WORD
    return z ^ (z >> LAST_SHIFT)


def key_of(*words: int) -> int:
    """One 64-bit key from several integers in [0, 2^64), in their order."""
    key = 0
    for word in words:
        key = mix_integer((key + GAMMA) % WORD ^ word)
    return key


def uniform_words(xp: Any, key: int, count: int) -> Any:
    """(count,) of uint64, uniform in [0, 2^53): entries 0 .. count - 1 of the key."""
    counter = xp.arange(1, count + 1, dtype="uint64")
    return mix(counter * np.uint64(GAMMA) + np.uint64(key)) >> np.uint64(64 - SIGNIFICANT)
