"""What a factor is made of: 1/B, N, alpha, 1/lambda, 1/2 and their products, as long as they hold on every case at once."""

from itertools import combinations

import numpy as np

from refmaml.doctor.cases import MEANING

AGREE = {np.float64: 1e-7, np.float32: 1e-3}  # how well a fitted factor is known, relative
NUMBERS = {"2": 2.0, "1/2": 0.5}


def value_of(case, terms):
    """The value of a product of symbols and numbers, ((symbol, power), ...), on a case; an extent of 1 is no symbol there, and is 1."""
    out = 1.0
    for name, power in terms:
        out *= NUMBERS[name] if name in NUMBERS else case.symbols.get(name, 1.0) ** power
    return out


def products(cases):
    """Products of at most two factors, simple ones first."""
    symbols = list(dict.fromkeys(name for case in cases for name in case.symbols))
    atoms = [(name, power) for name in symbols for power in (-1, 1)] + [
        (name, 1) for name in NUMBERS
    ]
    pairs = [pair for pair in combinations(atoms, 2) if pair[0][0] != pair[1][0]]
    return [(), *((atom,) for atom in atoms), *pairs]


def spelled(terms, sign):
    """ "-N / B" and the like, with the meaning of each symbol."""
    above = [name for name, power in terms if power > 0 and name != "1/2"]
    below = [name for name, power in terms if power < 0] + [
        "2" for name, _ in terms if name == "1/2"
    ]
    text = " * ".join(above) or "1"
    text = (
        f"{text} / {below[0]}"
        if len(below) == 1
        else f"{text} / ({' * '.join(below)})"
        if below
        else text
    )
    meanings = [f"{name} = {MEANING[name]}" for name, _ in terms if name in MEANING]
    return f"{'-' if sign < 0 else ''}{text}".replace("1 / ", "1/") + (
        f" ({', '.join(meanings)})" if meanings else ""
    )


def name_of(cases, scales):
    """What the fitted scale of each case is: (text, whether it is 1), or None where nothing holds on all of them."""
    scales = np.asarray(scales)
    close = AGREE[max((c.dtype for c in cases), key=lambda d: np.finfo(d).eps)]
    sign = np.sign(scales[0])
    found = []
    for terms in products(cases):
        values = np.array([sign * value_of(case, terms) for case in cases])
        if found and len(terms) > len(found[0]):
            break
        if np.all(np.abs(scales - values) <= close * np.abs(values)):
            found.append(terms)
    if found:
        one = found[0] == () and sign > 0
        return " or ".join(spelled(terms, sign) for terms in found), one
    if np.all(np.abs(scales - scales[0]) <= close * np.abs(scales[0])):
        return f"{scales[0]:.10g}", False
    return None
