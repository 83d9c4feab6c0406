"""got / expected as a function of the value: in which variable was differentiated?"""

from math import exp, expm1, log

from refmaml.checks.factors import common, fix_of, meaning, number_text, times_text

AGREE = 1e-5  # relative: how well a factor must fit at every value that was tried


def sigmoid(v):
    """1 / (1 + e^-v) = softplus'(v)."""
    return 1 / (1 + exp(-v))


# (factor as a function of the value, what it says, the fix)
CHAINS = (
    (
        lambda v: v,
        "is that in log(value): it is the value times too large",
        "divide by the value, or differentiate in the value itself",
    ),
    (
        lambda v: exp(-v),
        "lacks the factor exp'(raw) = exp(raw): it is that in exp(raw)",
        "multiply by exp(raw)",
    ),
    (
        lambda v: exp(v),
        "has the factor exp'(raw) = exp(raw) once too often",
        "divide by exp(raw): autodiff has already applied it",
    ),
    (
        lambda v: 1 / sigmoid(v),
        "lacks the factor softplus'(raw) = sigmoid(raw): it is that in softplus(raw)",
        "multiply by sigmoid(raw)",
    ),
    (
        lambda v: sigmoid(v),
        "has the factor softplus'(raw) = sigmoid(raw) once too often",
        "divide by sigmoid(raw): autodiff has already applied it",
    ),
    (
        lambda v: -expm1(-v),
        "is that in raw, where the value is softplus(raw)",
        "divide by 1 - exp(-value), or differentiate in the value itself",
    ),
    (
        lambda v: 1 / (sigmoid(v) * (1 - sigmoid(v))),
        "lacks the factor sigmoid'(raw): it is that in sigmoid(raw)",
        "multiply by sigmoid(raw) (1 - sigmoid(raw))",
    ),
    (
        lambda v: v * (1 - v),
        "is that in raw, where the value is sigmoid(raw)",
        "divide by value (1 - value), or differentiate in the value itself",
    ),
    (lambda v: 1 / (2 * v), "lacks the factor 2 raw: it is that in raw^2", "multiply by 2 raw"),
    (
        lambda v: v**2,
        "is minus that in 1 / value",
        "divide by value^2, or differentiate in the value itself",
    ),
    (
        lambda v: v * log(10),
        "is that in log10(value)",
        "divide by value log(10), or differentiate in the value itself",
    ),
    (
        lambda v: 1 / v,
        "is divided by the value",
        "multiply by the value, or differentiate in the value itself",
    ),
)


def named_factor(entries):
    """(text, fix) of the factor got / expected at all entries; ("", "") without a name.

    The text continues "the derivative ...".
    """
    usable = [entry for entry in entries if entry.expected]
    if not usable:
        return "", ""
    factors = [entry.got / entry.expected for entry in usable]
    if not any(factors):
        return "is 0: no gradient arrives", fix_of(0.0, "the hyperparameter")
    several = len(usable) > 1
    if several and (constant := common(factors, AGREE)) is not None:
        return of_constant(constant)
    names = [] if several or is_odd(factors[0]) else [of_constant(factors[0])]
    for chain, text, fix in CHAINS:
        for sign in (1, -1):
            if all(fits(chain, sign, e, f) for e, f in zip(usable, factors, strict=True)):
                names.append((text + ("; and the sign is wrong" if sign < 0 else ""), fix))
    if not names:
        return ("", "") if several else of_constant(factors[0])
    return "; or ".join(text for text, _ in names), "; or ".join(fix for _, fix in names)


def is_odd(c):
    """Whether a factor is neither an integer nor one over an integer."""
    return "." in number_text(c) or "e" in number_text(c)


def of_constant(c):
    """(text, fix) of a constant factor."""
    return f"is {times_text(c)} the right one: {meaning(c, {})}", fix_of(c, "the derivative")


def fits(chain, sign, entry, factor):
    """Whether a chain's factor is the one found at an entry."""
    try:
        expected = sign * chain(entry.value)
    except (ArithmeticError, ValueError):
        return False
    return abs(factor - expected) <= AGREE * abs(expected)
