"""Wrong meta-gradients in NumPy, with the words that each diagnosis must have."""

from typing import Any, NamedTuple

import wrong_implementations as wrong
from implementations import (
    ANIL,
    CAVIA,
    FOMAML,
    IMAML,
    MAML,
    MAMLPP,
    META_SGD,
    REPTILE,
    REPTILE_ADAM,
    K,
    cavia,
    maml_plus_plus,
    meta_sgd,
    planted,
    plus,
    times,
)
from wrong_implementations_other import (
    direct_body,
    everything_adapts,
    implicit,
    leaking,
    nones,
    one_step_reptile,
    reptile_of,
    stopped,
    whole_set,
    zeros,
)

SMOOTH, FLAT = ("quadratic", "mlp"), ("quadratic", "two-layer")


class Implementation(NamedTuple):
    """One wrong function.

    row      its row in the dictionary; words: what the diagnosis must contain
    fn       the function; method: what it should compute; probes: the cases it is tried
             on
    """

    row: str
    words: str
    fn: Any
    method: Any = MAML
    probes: tuple = SMOOTH


IMPLEMENTATIONS = {
    "first-order": Implementation("1", "first-order", planted(h=0.0)),
    "hessian twice": Implementation("1", "Hessian counts twice", planted(h=2.0)),
    "hessian half": Implementation("1", "Hessian counts half", planted(h=0.5)),
    "hessian sign": Implementation("1", "Hessian has the wrong sign", planted(h=-1.0)),
    "gauss-newton": Implementation(
        "1", "Gauss-Newton", wrong.other_product(lambda net, p, v: net.gauss_newton_product(p, v))
    ),
    "second-order": Implementation("1", "second-order, where first-order", planted(h=1.0), FOMAML),
    "zeros": Implementation("2", "graph is cut", zeros),
    "nones": Implementation("3", "None for every parameter", nones),
    "unadapted": Implementation("5", "unadapted parameters", planted(h=0.0, query_at=0)),
    "query is support": Implementation(
        "6", "query loss is measured on the support set", wrong.on_sets(0, 0)
    ),
    "support is query": Implementation("6", "adapts on the query set", wrong.on_sets(2, 2)),
    "both": Implementation("6", "support and query together", wrong.on_both),
    "swapped": Implementation("7", "swapped", wrong.on_sets(2, 0)),
    "first task": Implementation("8", "only the first task", wrong.of_task(0)),
    "last task": Implementation("8", "only the last task", wrong.of_task(-1)),
    "last task, undivided": Implementation(
        "8", "only the last task counts, times B", wrong.of_task(-1, scale=1)
    ),
    "last task, first-order": Implementation("1+8", "first-order", wrong.of_task(-1, h=0.0)),
    "in turn": Implementation("9", "after every task", wrong.in_turn),
    "sum over tasks": Implementation("10", "times B", wrong.scaled(lambda p, b: len(b.x_support))),
    "sum over queries": Implementation(
        "10", "times M", wrong.scaled(lambda p, b: b.x_query.shape[1])
    ),
    "sum inside": Implementation(
        "11",
        "summed over the support examples",
        wrong.inner_scale(lambda p, b: b.x_support.shape[1]),
    ),
    "mean inside twice": Implementation(
        "11",
        "divided by the number of support examples",
        wrong.inner_scale(lambda p, b: 1 / b.x_support.shape[1]),
    ),
    "per shot": Implementation(
        "11",
        "summed over outputs",
        wrong.inner_scale(lambda p, b: p.net.output_shape(p.net.input_shape)[0]),
    ),
    "double step": Implementation("11", "twice as large", wrong.inner_scale(lambda p, b: 2)),
    "ascends": Implementation("11", "loop ascends", wrong.inner_scale(lambda p, b: -1)),
    "accumulated": Implementation("12", "inner losses' own gradients", wrong.accumulating),
    "gradient at start": Implementation(
        "13", "takes the gradient at the initial", wrong.gradient_at_start
    ),
    "step from start": Implementation("13", "starts from the initial", wrong.step_from_start),
    "one step": Implementation("13", "a single inner step", planted(steps=1)),
    "last step only": Implementation(
        "14", "only the last 1 of the inner steps", wrong.truncated(1)
    ),
    "last two steps": Implementation(
        "14", "only the last 2 of the inner steps", wrong.truncated(2)
    ),
    "averaged losses": Implementation(
        "15", "after every step are averaged", wrong.every_step([0, *[1 / K] * K])
    ),
    "averaged from start": Implementation(
        "15", "before, between and after", wrong.every_step([1 / (K + 1)] * (K + 1))
    ),
    "a step less": Implementation("16", "one inner step too few", planted(steps=K - 1)),
    "a step more": Implementation("16", "one inner step too many", planted(steps=K + 1)),
    "direct body": Implementation(
        "17", "lose their second-order term", direct_body, ANIL, ("two-layer", "mlp")
    ),
    "everything adapts": Implementation(
        "17", "adapts every parameter", everything_adapts, ANIL, ("two-layer", "mlp")
    ),
    "cavia direct": Implementation(
        "17", "second-order term", lambda *a: cavia(*a, mixed=False), CAVIA, ("two-layer", "mlp")
    ),
    "rates first-order": Implementation(
        "18",
        "step sizes' gradient is first-order",
        lambda *a: meta_sgd(*a, of_rates=lambda g, lam, q: times(-1, times(q, g))),
        META_SGD,
    ),
    "rates sign": Implementation(
        "18",
        "step sizes' gradient has the wrong sign",
        lambda *a: meta_sgd(*a, of_rates=lambda g, lam, q: times(lam, g)),
        META_SGD,
    ),
    "rates none": Implementation(
        "18",
        "step sizes have no gradient",
        lambda *a: meta_sgd(*a, of_rates=lambda g, lam, q: times(0, g)),
        META_SGD,
    ),
    "softmax constant": Implementation(
        "23",
        "softmax's probabilities",
        wrong.other_product(wrong.softmax_constant),
        probes=("mlp",),
    ),
    "lost pooling": Implementation(
        "22", "max-pooling", wrong.other_product(wrong.pooling_lost), probes=("quadratic", "conv")
    ),
    "adam": Implementation("24", "Adam in the inner loop", wrong.adam_first_order),
    "momentum": Implementation("26", "momentum", wrong.momentum),
    "clipped, constant": Implementation(
        "26", "clipped to norm 0.1, the clipping not", wrong.clipped_inside(0.1, exact=False)
    ),
    "clipped, exact": Implementation(
        "26", "clipped to norm 0.1", wrong.clipped_inside(0.1, exact=True)
    ),
    "entries clipped": Implementation("26", "entries are clipped to [-0.1", wrong.entries_clipped),
    "decayed": Implementation("11", "weight decay 0.01", wrong.decayed),
    "entries cut": Implementation("26", "meta-gradient's entries are clipped", wrong.entries_cut),
    "norm cut": Implementation("26", "meta-gradient is clipped to norm", wrong.norm_cut),
    "thousandth": Implementation("10", "times 1.001", wrong.scaled(1.001)),
    "ascent": Implementation("10", "times -1", wrong.scaled(-1)),
    "biases skipped": Implementation(
        "41",
        "does not adapt every bias",
        wrong.step_sizes(lambda n: 0.0 if n.endswith("bias") else 1.0),
    ),
    "head skipped": Implementation(
        "41",
        "does not adapt the head",
        wrong.step_sizes(lambda n: 0.0 if n[0] == "2" else 1.0),
        probes=("mlp",),
    ),
    "updated twice": Implementation(
        "42",
        "updates 0.weight twice",
        wrong.step_sizes(lambda n: 2.0 if n == "0.weight" else 1.0),
        probes=("mlp",),
    ),
    "one None": Implementation("41", "2.weight", wrong.part_zero),
    "alphabetical": Implementation("order", "alphabetical", wrong.alphabetical),
    "last loss only": Implementation(
        "15",
        "only the loss after the last step",
        lambda *a: maml_plus_plus(*a, weights=[0] * (K - 1) + [1]),
        MAMLPP,
    ),
    "reptile blend": Implementation(
        "38", "2 theta - phi_K", reptile_of(lambda t, p, _: plus(-1, p, times(2, t))), REPTILE
    ),
    "reptile adapted": Implementation(
        "38", "adapted parameters themselves", reptile_of(lambda t, p, _: p), REPTILE
    ),
    "reptile sign": Implementation(
        "38", "times -1", reptile_of(lambda t, p, _: plus(-1, t, p)), REPTILE
    ),
    "reptile rate": Implementation(
        "38",
        "times 1/alpha",
        reptile_of(lambda t, p, m: times(1 / m.method.inner_lr, plus(-1, p, t))),
        REPTILE,
    ),
    "reptile one step": Implementation("39", "a single inner step", one_step_reptile, REPTILE),
    "reptile fomaml": Implementation("39", "first-order MAML", planted(h=0.0), REPTILE),
    "reptile leak": Implementation("25", "carried from task to task", leaking, REPTILE_ADAM),
    "reptile whole set": Implementation("39", "whole support set", whole_set, REPTILE_ADAM),
    "imaml first-order": Implementation(
        "1", "no linear system solved", implicit(system=lambda v, Hv, lam: v), IMAML, FLAT
    ),
    "imaml no prox": Implementation(
        "27", "lacks its proximal term", implicit(prox=False), IMAML, FLAT
    ),
    "imaml 2 lambda": Implementation(
        "28",
        "linear system has 2 lambda",
        implicit(system=lambda v, Hv, lam: plus(0.5 / lam, Hv, v)),
        IMAML,
        FLAT,
    ),
    "imaml half lambda": Implementation(
        "28",
        "linear system has lambda / 2",
        implicit(system=lambda v, Hv, lam: plus(2 / lam, Hv, v)),
        IMAML,
        FLAT,
    ),
    "imaml inner lambda": Implementation(
        "28", "inner problem has 2 lambda", implicit(inner=2.0), IMAML, FLAT
    ),
    "imaml no lambda": Implementation(
        "29", "times 1/lambda", implicit(system=lambda v, Hv, lam: plus(lam, v, Hv)), IMAML, FLAT
    ),
    "imaml sign": Implementation(
        "30",
        "wrong sign in the linear system",
        implicit(system=lambda v, Hv, lam: plus(-1 / lam, Hv, v)),
        IMAML,
        FLAT,
    ),
    "imaml damping": Implementation(
        "31",
        "damping",
        implicit(system=lambda v, Hv, lam: plus(1 / (lam + 10), Hv, times(2, v))),
        IMAML,
        FLAT,
    ),
    "imaml old residual": Implementation("33", "old residual", stopped(3, old=True), IMAML, FLAT),
    # With c = 0.5 three steps enlarge roundings so much that no number can be fitted.
    "imaml long steps": Implementation("34", "too long", stopped(3, c=0.7), IMAML, FLAT),
    "imaml stopped": Implementation("35", "stops after 1 iteration", stopped(1), IMAML, FLAT),
    "imaml stopped at two": Implementation(
        "35", "stops after 2 iterations", stopped(2), IMAML, FLAT
    ),
    "imaml anchor": Implementation("36", "closure", zeros, IMAML, FLAT),
}
