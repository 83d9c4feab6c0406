"""Nets of a user's own in PyTorch, JAX and NumPy, each with a table of mistakes."""

from functools import partial
from time import perf_counter, process_time
from typing import Any, NamedTuple

import refmaml as rm

TORCH = ("residual", "lstm", "attention")
NO_NAME = "no mistake of the dictionary"


class Table(NamedTuple):
    """A net with its mistakes.

    function  changes -> the user's function with them; of {}: the right one
    method    that it implements; given: the other arguments of check_meta_gradient
    mistakes  {what is wrong: (changes, a part of the name that it should get)}
    """

    function: Any
    method: Any
    given: dict
    mistakes: dict


def of_torch(name):
    """The Table of a net of own_loss_nets.py."""
    from own_loss_mistakes import LR, STEPS, maml, variants
    from own_loss_nets import seeded
    from torch.func import functional_call
    from torch.nn import functional as F

    net, batch = seeded(name)

    def loss(params, x, y):
        return F.cross_entropy(functional_call(net, params, (x,)), y)

    given = {"loss": F.cross_entropy, "params": net, "batch": batch, "framework": "torch"}
    table = variants([n for n, _ in net.named_parameters()])
    return Table(lambda changes: maml(loss, **changes), rm.MAML(LR, STEPS), given, table)


def of_jax():
    """The Table of own_loss_jax.py."""
    from own_loss_jax import LR, STEPS, VARIANTS, compiled, example, loss

    params, batch = example()
    given = {"loss": loss, "params": params, "batch": batch, "framework": "jax"}
    return Table(lambda changes: compiled(**changes), rm.MAML(LR, STEPS), given, VARIANTS)


def of_numpy():
    """The Table of own_loss_numpy.py, with the gradient by hand."""
    from own_loss_numpy import LR, STEPS, VARIANTS, example, gradient, loss, maml

    params, batch = example()
    given = {"loss": loss, "params": params, "batch": batch, "gradient": gradient}
    return Table(lambda changes: partial(maml, **changes), rm.MAML(LR, STEPS), given, VARIANTS)


TABLES = {name: partial(of_torch, name) for name in TORCH} | {"jax": of_jax, "numpy": of_numpy}


def right_verdict(table):
    """{"verdict", "error", "seconds", ...} of the right function, with all defaults."""
    began, cpu = perf_counter(), process_time()
    report = rm.check_meta_gradient(table.function({}), table.method, **table.given)
    return {
        "verdict": report.verdict,
        "error": max(r.worst.error for r in report.results if r.precision == "float64"),
        "seconds": round(perf_counter() - began, 2),
        "cpu_seconds": round(process_time() - cpu, 2),
    }


def judged(table, label):
    """{"mistake", "verdict", "said", "result", "cpu_seconds"} of a wrong function, in
    float64; result: "named", "no name" or "a false name"."""
    changes, words = table.mistakes[label]
    cpu = process_time()
    report = rm.check_meta_gradient(
        table.function(changes), table.method, repeats=0, precision="float64", **table.given
    )
    said = report.diagnosis
    result = "named" if words in said else "a false name"
    return {
        "mistake": label,
        "verdict": report.verdict,
        "said": said,
        "result": "no name" if said.startswith(NO_NAME) else result,
        "cpu_seconds": round(process_time() - cpu, 2),
    }
