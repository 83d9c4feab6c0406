"""What a wrong factor is made of: 1/B, N, alpha, 1/lambda, 1/2 and products of two.

An expression is accepted if it has the fitted value on every case.
"""

from itertools import combinations

import numpy as np

AGREE = {np.float64: 1e-7, np.float32: 1e-3}  # relative accuracy of a fitted factor
NUMBERS = {"2": 2.0, "1/2": 0.5}
MEANING = {
    "B": "the number of tasks",
    "N": "the number of support examples",
    "M": "the number of query examples",
    "C": "the number of outputs",
    "K": "the number of inner steps",
    "alpha": "the inner step size",
    "lambda": "the regularization",
}


def value_of(case, terms):
    """The value of a product ((symbol or number, power), ...) on a case.

    A symbol whose value is 1 there is not in case.symbols.
    """
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


def expression(terms, sign):
    """ "-N / B" and the like, with the meaning of each symbol."""
    above = [name for name, power in terms if power > 0 and name != "1/2"]
    below = [name for name, power in terms if power < 0]
    below += ["2" for name, _ in terms if name == "1/2"]
    text = " * ".join(above) or "1"
    if below:
        text += f" / {below[0]}" if len(below) == 1 else f" / ({' * '.join(below)})"
    text = f"{'-' if sign < 0 else ''}{text}".replace("1 / ", "1/")
    meanings = [f"{name} = {MEANING[name]}" for name, _ in terms if name in MEANING]
    return text + (f" ({', '.join(meanings)})" if meanings else "")


def name_of(cases, scales):
    """(text, whether it is 1) of the fitted scale of each case.

    None where the scales are neither one expression nor one number.
    """
    scales = np.asarray(scales)
    agree = AGREE[max((c.dtype for c in cases), key=lambda d: np.finfo(d).eps)]
    sign = np.sign(scales[0])
    found = []
    for terms in products(cases):
        if found and len(terms) > len(found[0]):
            break
        values = np.array([sign * value_of(case, terms) for case in cases])
        if np.all(np.abs(scales - values) <= agree * np.abs(values)):
            found.append(terms)
    if found:
        is_one = found[0] == () and sign > 0
        return " or ".join(expression(terms, sign) for terms in found), is_one
    if np.all(np.abs(scales - scales[0]) <= agree * np.abs(scales[0])):
        return f"{scales[0]:.10g}", False
    return None
