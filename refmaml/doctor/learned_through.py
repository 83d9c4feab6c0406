"""Step sizes that are a function of what is learned: exp, softplus, sigmoid, a square.

Where a step size is A = f(raw), the gradient with regard to raw is f'(raw) dM/dA. A
case states A, so f' is written as a function of A.
"""

import numpy as np

from refmaml.errors import expect

# {name: A -> f'(raw)}, with raw = f^-1(A)
DERIVATIVES = {
    "exp": lambda A: A,
    "softplus": lambda A: -np.expm1(-A),  # sigmoid(raw) = 1 - exp(-softplus(raw))
    "sigmoid": lambda A: A * (1 - A),
    "square": lambda A: 2 * np.sqrt(A),
    "identity": np.ones_like,
}
LEARNED = "inner_lr"  # the meta-parameters that may be learned through a function


def derivative(function, A):
    """f'(raw) at step sizes A, (n,).

    function   a key of DERIVATIVES, a function A -> f'(raw), or "" for the identity
    """
    if callable(function):
        return np.asarray(function(A), np.float64)
    return DERIVATIVES[function or "identity"](A)


def checked(learned_through):
    """The argument `learned_through` of check_meta_gradient: a dict, or None.

    Raises ArgumentError for another object, an unknown name or an unknown function.
    """
    if learned_through is None:
        return {}
    wanted = '{"inner_lr": function}, as in {"inner_lr": "softplus"}'
    expect(isinstance(learned_through, dict), "learned_through", wanted, repr(learned_through))
    unknown = sorted(set(learned_through) - {LEARNED})
    expect(not unknown, "learned_through", wanted, f"the name {unknown[:1]}")
    names = f"one of {', '.join(DERIVATIVES)}, or a function A -> f'(raw)"
    for name, function in learned_through.items():
        known = callable(function) or function in DERIVATIVES
        expect(known, f"learned_through[{name!r}]", names, repr(function))
    return dict(learned_through)
