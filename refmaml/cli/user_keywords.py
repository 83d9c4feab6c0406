"""`refmaml doctor`: arguments of check_meta_gradient that are in the user's files.

The loss, its parameters and tasks; a net; and what the function does on purpose.
"""

from dataclasses import replace

from refmaml.cli import options
from refmaml.cli.doctor import MINI_BATCHES, OWN_LOSS, OWN_NET
from refmaml.doctor.learned_through import DERIVATIVES
from refmaml.errors import expect

DATA = ("params", "batch")  # which may be functions without arguments


def data(given, file):
    """The keywords that OWN_LOSS and OWN_NET give.

    given   {option: value}; file: the UserFile of the function
    """
    typed = [name for name in OWN_LOSS if name in given]
    nets = [name for name in ("net", OWN_NET) if name in given]
    expect(len(nets) < 2, options.flag(OWN_NET), "no --net beside it", lambda: given["net"])
    for name in typed:
        wanted, beside = "--loss beside it", "loss" in given
        if name == "batch":
            wanted, beside = "--loss, --net or --own-net beside it", beside or nets
        expect(beside, options.flag(name), wanted, "none")
    if "loss" in given:
        for name in DATA:
            expect(name in given, options.flag(name), "NAME beside --loss", "nothing")
    found = {name: value_of(name, given[name], file) for name in typed}
    if OWN_NET in given:
        found["net"] = file.data(given[OWN_NET], options.flag(OWN_NET))
        known = hasattr(found["net"], "with_kernels")
        got = type(found["net"]).__name__
        expect(known, options.flag(OWN_NET), "a net of refmaml; for others there is --loss", got)
    return found


def value_of(option, text, file):
    """The object of an option; of DATA, what it returns where it is a function."""
    if option in DATA:
        return file.data(text, options.flag(option))
    return file.find(text, options.flag(option))


def declared(given, file):
    """The keywords that declare what the function does on purpose."""
    found = {name: tuple(given[name]) for name in ("not_meta_learned",) if name in given}
    if "step_factors" in given:
        found["step_factors"] = tuple(given["step_factors"])
    if "task_weights" in given:
        weights = given["task_weights"]
        named = isinstance(weights, str)
        found["task_weights"] = file.function(weights, "--task-weights") if named else weights
    if "learned_through" in given:
        found["learned_through"] = learned_through(given["learned_through"], file)
    return found


def learned_through(pairs, file):
    """{"inner_lr": "softplus", or a function} of NAME=FUNCTION pairs."""
    option, found = "--learned-through", {}
    for pair in pairs:
        name, equals, function = pair.partition("=")
        expect(equals and name, option, "NAME=FUNCTION, as in inner_lr=softplus", repr(pair))
        in_file = ":" in function or (function not in DERIVATIVES and file.has(function))
        found[name] = file.function(function, option) if in_file else function
    return found


def with_mini_batches(method, given, file):
    """The method whose steps see the support examples that a function chooses."""
    if MINI_BATCHES not in given:
        return method
    option = options.flag(MINI_BATCHES)
    takes = hasattr(method, "inner_batch")
    expect(takes, option, "a method with an inner loop", lambda: type(method).__name__)
    beside = "inner_batch" not in given
    expect(beside, option, "no --inner-batch beside it", lambda: given["inner_batch"])
    return replace(method, inner_batch=file.function(given[MINI_BATCHES], option))
