"""Numbers by which a result is off: the same everywhere or not, and what they say."""

import numpy as np

AGREE = 1e-4  # relative: a fitted factor this close to an integer is that integer


def agreement(rows):
    """How closely the factors of some Rows must agree to be one: what each allows."""
    return 2 * max(row.allowed for row in rows)


def common(values, agree):
    """The one number that all values are, or None where they differ."""
    values = np.asarray(values, float)
    if not len(values) or not np.isfinite(values).all():
        return None
    middle = float(np.median(values))
    close = np.abs(values - middle) <= agree * max(abs(middle), agree)
    return middle if close.all() else None


def fitted(got, expected):
    """<got, expected> / <expected, expected>: the factor that fits best; NaN at 0."""
    below = float(np.vdot(expected, expected).real)
    return float(np.vdot(expected, got).real) / below if below else float("nan")


def number_text(c, agree=AGREE):
    """A factor as an integer, as one over an integer, or with six digits."""
    for sign, text in ((1, ""), (-1, "-")):
        a = sign * c
        if a > 0.5 and abs(a - round(a)) <= agree * a:
            return f"{text}{round(a)}"
        if 0 < a < 1 and abs(1 / a - round(1 / a)) <= agree / a:
            return f"{text}1/{round(1 / a)}"
    return f"{c:.6g}"


def times_text(c, agree=AGREE):
    """ "3 times", "minus", "-3 times", "0 times"."""
    text = number_text(c, agree)
    return "minus" if text == "-1" else f"{text} times"


def meaning(c, lengths, agree=AGREE):
    """What a factor other than 1 probably is, with the axis that has its length.

    lengths  {length: where}
    """
    if abs(c) <= agree:
        return "it is 0: no gradient arrives"
    if abs(c + 1) <= agree:
        return "the sign is wrong"
    whole = number_text(abs(c), agree)
    sign = "; and the sign is wrong" if c < 0 else ""
    count = int(whole.removeprefix("1/")) if "." not in whole and "e" not in whole else 0
    if count < 2:
        return f"a constant factor{sign}"
    if count == 2 and 2 not in lengths:
        halves = {
            "2": "counted twice, or without a factor 1/2",
            "1/2": "with a factor 1/2 too many",
        }
        return halves[whole] + sign
    where = f" ({count} is {lengths[count]})" if count in lengths else ""
    if whole.startswith("1/"):
        return f"a mean over {count} where the loss has a sum{where}{sign}"
    return f"a sum over {count} where the loss has a mean{where}{sign}"


def fix_of(c, what, agree=AGREE):
    """What to do about a constant factor."""
    if abs(c) <= agree:
        return (
            f"look for what cuts {what} off: .detach(), .data, no_grad(), stop_gradient, "
            "a copy, a name that is assigned twice"
        )
    if abs(c + 1) <= agree:
        return f"change the sign of {what}"
    return f"divide {what} by {number_text(c, agree)}, or change the loss to match"
