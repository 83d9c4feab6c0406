"""Mistakes in the inner loop forward, and in what autodiff goes through."""

from dataclasses import replace

from arithmetic import mapped
from kind import (
    INNER,
    MEAN,
    QUERY,
    WAY_BACK,
    Kind,
    by_norm,
    clipped,
    drawn,
    first_half,
    one_tensor,
    one_tensor_of_meta,
    rolled,
    scaled,
    slip,
    stopped,
    with_both,
    without_last_query,
)
from slip import Slip

# Autodiff through the loop (PyTorch, JAX), and the same slips in the recursion.
FORWARD = [
    Kind("step too many", slip(steps=lambda K: K + 1), ("too many", "many")),
    Kind("step too few", slip(steps=lambda K: K - 1), ("too few", "missing", "unadapted")),
    Kind("no step", slip(steps=lambda K: 0), ("unadapted", "no inner step", "without")),
    Kind("query is support", slip(query=lambda t, lib: t[:2]), ("measured on the support",)),
    Kind("support is query", slip(support=lambda t, k, lib: t[2:4]), ("adapts on the query",)),
    Kind(
        "sets swapped",
        slip(support=lambda t, k, lib: t[2:4], query=lambda t, lib: t[:2]),
        ("swapped",),
    ),
    Kind("support is both", slip(support=with_both), ("support and query together",)),
    Kind(
        "step size factor",
        lambda rng, fn, m: replace(
            fn, slip=Slip(rate=scaled(float(rng.choice([0.25, 0.7, 1.5, 3]))))
        ),
        ("step size", "steps are", "as long", "times"),
    ),
    Kind("ascent", slip(rate=scaled(-1)), ("wrong sign", "ascends")),
    Kind(
        "inner loss summed",
        lambda rng, fn, m: replace(
            fn, slip=Slip(gradient=lambda g, *_: mapped(lambda a: a * 3, g))
        ),
        ("times", "summed", "step size", "as large"),
        INNER,
    ),
    Kind(
        "carried to the next task",
        slip(start=lambda theta, last, lib: theta if last is None else last),
        ("starts where the last",),
    ),
    Kind(
        "carried, stopped",
        slip(start=lambda theta, last, lib: theta if last is None else mapped(lib.stopped, last)),
        ("starts where the last", "first task"),
    ),
    Kind(
        "weight decay inside",
        drawn(
            lambda u: Slip(
                gradient=lambda g, phi, *_: mapped(lambda a, p: a + (0.02 + u / 5) * p, g, phi)
            )
        ),
        ("decay",),
        INNER,
    ),
    Kind(
        "proximal term inside",
        drawn(
            lambda u: Slip(
                gradient=lambda g, phi, start, lib, k: mapped(
                    lambda a, p, s: a + (0.1 + u) * (p - s), g, phi, start
                )
            )
        ),
        ("proximal", "anchor", "regular"),
        INNER,
    ),
    Kind(
        "one tensor never adapts",
        slip(gradient=one_tensor(lambda a, *_: a * 0)),
        ("never adapt", "does not adapt", "adapts"),
        INNER,
    ),
    Kind("one label moved", slip(support=lambda t, k, lib: (t[0], rolled(t[1]))), (), INNER, False),
    Kind("half of the support set", slip(support=first_half), (), (*INNER, "mini-batch"), False),
    Kind("last query example left out", slip(query=without_last_query), (), QUERY, False),
    Kind(
        "query set of another task", slip(query=lambda t, lib: t[6:8]), (), (*QUERY, *MEAN), False
    ),
    Kind(
        "support set of another task",
        slip(support=lambda t, k, lib: t[4:6]),
        (),
        (*INNER, *MEAN),
        False,
    ),
    Kind(
        "one tensor's gradient too large",
        drawn(lambda u: Slip(gradient=one_tensor(lambda a, *_: a * (1.1 + u)))),
        (),
        INNER,
        False,
    ),
    Kind(
        "one tensor's gradient has the wrong sign",
        slip(gradient=one_tensor(lambda a, *_: -a, last=False)),
        (),
        INNER,
        False,
    ),
    Kind(
        "the gradient goes through tanh",
        slip(gradient=lambda g, p, s, lib, k: mapped(lambda a: lib.tanh(a), g)),
        (),
        INNER,
        False,
    ),
    Kind(
        "the gradient has a term 0.1 g^2",
        slip(gradient=lambda g, *_: mapped(lambda a: a + 0.1 * a * a, g)),
        (),
        INNER,
        False,
    ),
    Kind(
        "a constant is added to the gradient",
        slip(gradient=lambda g, *_: mapped(lambda a: a + 0.05, g)),
        (),
        INNER,
        False,
    ),
    Kind(
        "the second step is half as long",
        slip(rate=lambda alpha, problem, k: mapped(lambda a: a * (0.5 if k == 1 else 1), alpha)),
        ("step size", "steps"),
        INNER,
        False,
    ),
]

# Only where a library differentiates the loop.
AUTODIFF = [
    Kind("first-order", slip(gradient=stopped), ("first-order",)),
    Kind(
        "only the last step is differentiated",
        lambda rng, fn, m: replace(
            fn,
            slip=Slip(
                gradient=lambda g, p, s, lib, k, K=m.inner_steps: (
                    g if k == K - 1 else mapped(lib.stopped, g)
                )
            ),
        ),
        ("last", "differentiated"),
    ),
    Kind("gradient at the start", slip(point=lambda phi, start, k: start), ("initial parameters",)),
    Kind(
        "steps from the start",
        slip(step=lambda phi, after, start, lib: {n: start[n] + after[n] - phi[n] for n in phi}),
        ("initial parameters",),
    ),
    Kind(
        "parameters stopped between steps",
        slip(step=lambda phi, after, start, lib: mapped(lib.stopped, after)),
        ("0 everywhere", "no gradient", "0 throughout", "unadapted", "detached"),
        WAY_BACK,
    ),
    Kind(
        "losses before and after",
        slip(losses=lambda ls: (ls[0] + ls[-1]) / 2),
        ("averaged", "before and after", "before, between and after"),
    ),
    Kind(
        "losses after every step",
        slip(losses=lambda ls: sum(ls[1:]) / max(len(ls) - 1, 1)),
        ("each step", "every step", "averaged"),
    ),
    Kind("query loss at theta", slip(losses=lambda ls: ls[0]), ("unadapted",)),
    Kind("loss is summed over tasks", slip(total=sum), ("times B",)),
    Kind("first task alone", slip(total=lambda ls: ls[0] / len(ls)), ("first task",)),
    Kind("last task alone", slip(total=lambda ls: ls[-1] / len(ls)), ("last task",)),
    Kind("last task left out", slip(total=lambda ls: sum(ls[:-1]) / len(ls)), ("left out", "task")),
    Kind(
        "tasks weighted",
        slip(total=lambda ls: sum((i + 1) * a for i, a in enumerate(ls)) / len(ls) ** 2),
        ("weight",),
    ),
    Kind("wrong sign of the loss", slip(total=lambda ls: -sum(ls) / len(ls)), ("times -1",)),
    Kind("largest loss alone", slip(total=lambda ls: max(ls)), (), ("task",), False),
    Kind(
        "squared losses",
        slip(total=lambda ls: sum(a * a for a in ls) / len(ls)),
        ("weight",),
        ("task", *QUERY),
        False,
    ),
    Kind(
        "clipped by value",
        drawn(lambda u: Slip(gradient=clipped(0.05 + 0.1 * u))),
        ("clip", "limit"),
        INNER,
    ),
    Kind(
        "clipped by norm",
        drawn(lambda u: Slip(gradient=by_norm(0.1 + 0.2 * u))),
        ("clip", "norm"),
        INNER,
    ),
    Kind(
        "the outer gradient is clipped",
        slip(meta=lambda g, lib: mapped(lambda a: lib.clip(a, 0.02), g)),
        ("clip", "limit"),
    ),
    Kind(
        "one outer tensor is 0",
        slip(meta=one_tensor_of_meta(lambda a: a * 0)),
        ("0", "zero", "None"),
    ),
    Kind(
        "one outer tensor is too large",
        drawn(lambda u: Slip(meta=one_tensor_of_meta(lambda a: a * (1.2 + u)))),
        (),
        ("in one", "tensor", "gradient of", "weight", "bias"),
        False,
    ),
    Kind(
        "the loss has a term 0.01 |phi|^2",
        slip(meta=lambda g, lib: mapped(lambda a: a + 0.01, g)),
        (),
        ("",),
        False,
    ),
]
