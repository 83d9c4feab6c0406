"""`refmaml check PART FILE.py:FUNCTION`: a verdict on a gradient, a product, a layer, a
linear solve, a hypergradient or a policy's meta-gradient."""

import argparse
import shlex
from typing import NamedTuple

from refmaml.cli import options
from refmaml.cli.doctor import FILES, show
from refmaml.cli.layer_text import layer_from_text
from refmaml.cli.outputs import check_outputs
from refmaml.cli.user_files import load
from refmaml.errors import ArgumentError, expect

SETTINGS = ("tol", "seed")  # options of every part, beside --precision


class Part(NamedTuple):
    """One check: what it takes beside its function.

    help       for --help
    needed     data that it must have; where the option is missing, the file's own name
    data       data that it may have
    functions  functions that it may have
    numbers    numbers
    choices    {option: values}
    """

    help: str
    needed: tuple = ()
    data: tuple = ()
    functions: tuple = ()
    numbers: tuple = ()
    choices: dict = {}


FRAMEWORKS = ("numpy", "torch", "jax", "cupy")
ESTIMATORS = ("any", "naive", "lvc", "dice", "first_order", "naive+score", "lvc+score",
              "dice+score", "first_order+score", "emaml")  # fmt: skip
PARTS = {
    "gradient": Part(
        "is a gradient the derivative of its loss? fn(params, batch) -> (gradient, loss)",
        needed=("params",),
        data=("batch",),
    ),
    "hvp": Part(
        "which matrix is a Hessian-vector product? product(v), or product(params, v, batch)",
        needed=("params",),
        data=("batch", "batches"),
        functions=("gradient", "loss", "outputs", "output_loss", "example_losses"),
        numbers=("damping",),
        choices={"kind": ("hessian", "gauss_newton", "fisher")},
    ),
    "layer": Part(
        "one layer's backward pass: backward(x, params, dy) -> dx and parameter gradients",
        functions=("forward", "r_forward", "r_backward"),
        choices={"framework": FRAMEWORKS},
    ),
    "solve": Part(
        "does x solve A x = b; is it the product or the solver? product(v)",
        needed=("b", "x"),
        data=("residual",),
        numbers=("damping",),
    ),
    "hypergradient": Part(
        "a derivative in a step size, lambda, ...: fn(values) -> (gradient, loss)",
        needed=("values",),
        data=("method", "net", "theta", "batch"),
        choices={"by": ("differences", "complex step")},
    ),
    "rl-meta-gradient": Part(
        "which estimator a policy's meta-gradient is: fn(problem, params, batch) -> gradient",
        numbers=("inner_steps",),
        choices={
            "estimator": ESTIMATORS,
            "over": ("trajectories", "steps"),
            "of": ("return", "loss"),
            "framework": FRAMEWORKS[:3],
        },
    ),
}
HELP = {
    "params": "the parameters at which it is judged: an array, dict, list or pytree",
    "batch": "the data that the functions get as their last argument; anything",
    "batches": "a list of batches: the product is the mean over all of their examples",
    "gradient": "gradient(params, batch): first derivatives, whose differences it must equal",
    "loss": "PyTorch, JAX: loss(params, batch), in place of --gradient",
    "outputs": "outputs(params, batch); with --output-loss: also compare with Gauss-Newton",
    "output_loss": "output_loss(outputs, batch) -> the loss",
    "example_losses": "example_losses(params, batch) -> (N,): also compare with the Fisher matrix",
    "kind": "the matrix that is meant",
    "forward": "forward(x, params) -> y, or (y, saved): backward then gets saved for x",
    "r_forward": "r_forward(x, params, rx, rparams) -> ry: forward along a tangent",
    "r_backward": "r_backward(x, params, dy, rx, rparams, rdy) -> backward along a tangent",
    "framework": "the library of the function's arrays",
    "b": "the right-hand side",
    "x": "the solver's answer",
    "residual": "the residual b - A x as the solver reports it, or its norm",
    "damping": "d, where A + d I is meant, and the function is A",
    "values": "the hyperparameters: a number, or {name: number}",
    "method": "a method of refmaml that has them, as the reference",
    "net": "the net that the method adapts",
    "theta": "its parameters, one flat vector",
    "inner_steps": "the number of inner steps (default 1)",
    "estimator": "the one that is meant; any: one of the gradient of J_I or J_II",
    "over": "what sums over steps are divided by: N trajectories, or all N H steps",
    "of": "fn returns the gradient of the return J, or of the loss -J",
    "by": "how the derivative of the loss is computed",
}
OF_FILE = (
    "NAME is a name in FILE.py, or OTHER.py:NAME. Data may also be a function without required "
    "arguments, which is called for it."
)
STATUSES = "Exit status 0: right, 1: wrong, 2: nothing that can be judged, 3: inconclusive."


def add(subparsers):
    """Register the command and its parts."""
    p = subparsers.add_parser(
        "check",
        help="judge one part: a gradient, a product, a layer, a solve, a hypergradient, ...",
        description=f"Judges one part of a program. {STATUSES}",
    )
    parts = p.add_subparsers(title="parts", metavar="PART", required=True)
    for name, part in PARTS.items():
        add_part(parts, name, part)


def add_part(parts, name, part):
    """Register one part."""
    p = parts.add_parser(
        name,
        help=part.help,
        usage=f"refmaml check {name} FILE.py:FUNCTION [options]",
        description=f"{part.help}. {STATUSES}",
        epilog="docs/checks.md has an example of each check, and says how to read its report.",
    )
    p.add_argument("function", metavar="FILE.py:FUNCTION", help="the function to judge")
    of_file = p.add_argument_group("from the file", OF_FILE)
    for option in (*part.needed, *part.data, *part.functions):
        own = f" (default: {option}, if the file has it)" if option in defaults(part) else ""
        add_text(of_file, option, "NAME", f"{HELP[option]}{own}")
    for option in part.numbers:
        add_text(p, option, "N", HELP[option])
    for option, values in part.choices.items():
        text = f"{HELP[option]} (default {values[0]})"
        add_text(p, option, "{" + ",".join(values) + "}", text)
    if name == "layer":
        like = 'the layer that it should be: "BatchNorm2d(3)"; or Conv2d, with any sizes'
        p.add_argument("--like", required=True, metavar="LAYER", help=like)
        add_text(p, "input_shape", "C,H,W", "the shape of one example (default: unequal sides)")
    if name == "gradient":
        add_text(p, "directions", "N", "how many random directions (default 3)")
    add_text(p, "precision", "{float64,float32}", "of the function's numbers (default float64)")
    add_text(p, "tol", "N", "the largest relative error (the default depends on --precision)")
    add_text(p, "seed", "N", "of random directions and vectors (default 0)")
    options.add(p, FILES)
    p.set_defaults(func=run, part=name)


def add_text(parser, option, metavar, text):
    """An option that is absent unless it is typed."""
    parser.add_argument(options.flag(option), default=argparse.SUPPRESS, metavar=metavar, help=text)


def defaults(part):
    """Data that is taken from the file under its own name."""
    return (*part.needed, *(("batch",) if part.data == ("batch",) else ()))


def run(arguments):
    """Load, check, print, write; returns the verdict's exit status."""
    import refmaml

    typed, part = vars(arguments), PARTS[arguments.part]
    given = options.typed(arguments)
    file, fn = load(arguments.function)
    check_outputs({options.flag(n): given.get(n) for n in FILES}, {"the function's": file.file})
    keywords = objects(file, typed, part) | settings(typed, given, part)
    check = getattr(refmaml, f"check_{arguments.part.replace('-', '_')}")
    report = check(fn, **keywords)
    words = ["refmaml", "check", arguments.part, arguments.function]
    report.about["again"] = shlex.join([*words, *same_options(typed)])
    return show(report, given)


def objects(file, typed, part):
    """{argument: object} from the user's files."""
    found = {}
    for name in (*part.needed, *part.data):
        if name in typed or (name in defaults(part) and file.has(name)):
            found[name] = file.data(typed.get(name, name), options.flag(name))
        elif name in part.needed:
            raise ArgumentError(
                f"{options.flag(name)}: expected a name in {file.file}, got nothing of that name"
            )
    for name in part.functions:
        if name in typed:
            found[name] = file.find(typed[name], options.flag(name))
    return found


def settings(typed, given, part):
    """{argument: value} of the options that are no objects."""
    found = {name: given[name] for name in (*SETTINGS, "precision", "framework") if name in given}
    for name, values in part.choices.items():
        if name in typed:
            ok = typed[name] in values
            expect(ok, options.flag(name), f"one of {', '.join(values)}", repr(typed[name]))
            found[name] = typed[name]
    for name in (*part.numbers, "directions"):
        if name in typed:
            found[name] = number(typed[name], options.flag(name))
    if "like" in typed:
        found["like"] = layer_from_text(typed["like"])
    if "input_shape" in typed:
        found["input_shape"] = shape(typed["input_shape"])
    return found


def number(text, option):
    """An integer or a number. Raises ArgumentError naming the option."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ArgumentError(f"{option}: expected a number, got {text!r}")


def shape(text):
    """(3, 4, 5) of "3,4,5"."""
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError:
        raise ArgumentError(f"--input-shape: expected C,H,W or C, got {text!r}") from None


def same_options(typed):
    """The words that repeat the check, without files."""
    left_out = {"function", "part", "func", "ranks", *FILES}
    words = []
    for name, value in typed.items():
        if name not in left_out:
            words += [options.flag(name), str(value)]
    return words
