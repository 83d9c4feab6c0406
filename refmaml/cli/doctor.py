"""`refmaml doctor FILE.py:FUNCTION`: a verdict on a meta-gradient, and its mistake."""

import argparse
import shlex
import textwrap
from pathlib import Path

from refmaml.cli import options, presets
from refmaml.cli.kernels import kernel_set
from refmaml.cli.outputs import check_outputs
from refmaml.cli.user_files import load
from refmaml.errors import DataError, expect
from refmaml.methods.table_heads_and_bayes import HEADS_AND_BAYES
from refmaml.storage.atomic import atomic_write

STATUS = {"right": 0, "wrong": 1, "inconclusive": 3}  # 2 is an error, as in every command
CHECK = (
    "framework",
    "probes",
    "layout",
    "precision",
    "tol",
    "seed",
    "seconds",
    "repeats",
    "kernels",
)
FILES = ("json", "markdown", "junit")
METHOD = (
    "method",
    *presets.INNER_LOOP,
    "regularization",
    "cg_steps",
    "inner_solver",
    "inner_tol",
    "inner_optimizer",
    *(name for entry in HEADS_AND_BAYES for name, option in entry.options.items() if option.field),
)
OWN_LOSS = ("loss", "params", "batch", "forward", "gradient")
MINI_BATCHES = "mini_batches"
DECLARED = ("not_meta_learned", "task_weights", "learned_through", "step_factors")
OWN_NET = "own_net"
NET = (
    "net",
    "n_way",
    "channels",
    "downsample",
    "head",
    "bn_gamma",
    "norm",
    "hidden",
    "width",
    "dim",
    "rank",
    "context",
    "loss_scale",
)
# The options of --help, in groups.
GROUPS = {
    "what FUNCTION is meant to compute": METHOD,
    "what FUNCTION does on purpose": (MINI_BATCHES, *DECLARED),
    "a net that FUNCTION(params, batch) implements": (OWN_NET, *NET),
    "a loss of your own, on any net": OWN_LOSS,
    "how it is checked": CHECK,
    "files": FILES,
}
ABOUT = {
    "what FUNCTION is meant to compute": "The built-in cases change --inner-lr and "
    "--regularization, so that mistakes show: FUNCTION reads both from problem.method.",
    "what FUNCTION does on purpose": "Declared, it is right; if not, it is a mistake with a name. "
    "An update rule is --rule, a proximal term --anchor.",
    "a net that FUNCTION(params, batch) implements": "One in your file, or one of refmaml's by "
    "--net and the options below it. --batch NAME has tasks for it (default: random ones).",
    "a loss of your own, on any net": "--loss, --params and --batch together.",
}
DESCRIPTION = """\
Calls FUNCTION(problem, params, batch) on tasks whose meta-gradients are known, and
names the mistake if there is one. problem.method is the method and problem.loss(params,
x, y) the loss of one task; FUNCTION returns the meta-gradient, {name: array}.
FUNCTION(params, batch) has a net of its own, which --net, --own-net or --loss
describes. Exit status 0: right, 1: wrong, 2: no gradient that can be judged,
3: inconclusive."""
EXAMPLES = """\
NAME is a name in FILE.py, or OTHER.py:NAME. Examples, more in docs/doctor.md:

  refmaml doctor mine.py:gradient --framework torch --method maml --inner-steps 5
  refmaml doctor mine.py:gradient --framework torch --rule "Adam(eps_root=1e-8)"
  refmaml doctor mine.py:gradient --framework torch --loss loss --params net --batch data"""
REPEATED = {name for names in GROUPS.values() for name in names} - {*FILES}


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser(
        "doctor",
        help="name the mistake in a meta-gradient",
        usage="refmaml doctor FILE.py:FUNCTION [options]\n       refmaml doctor --list [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    p.add_argument(
        "function",
        metavar="FILE.py:FUNCTION",
        nargs="?",
        help="the function, and the file it is in",
    )
    p.add_argument(
        "--list",
        action="store_true",
        help="print the mistakes that are known for --method, and what to do about each",
    )
    for title, names in GROUPS.items():
        options.add(p.add_argument_group(title, wrapped(ABOUT.get(title))), names)
    p.set_defaults(func=run)


def wrapped(text):
    """A group's text in lines of a terminal, or None."""
    return text and textwrap.fill(text, 78)


def run(arguments):
    """Load, check, print, write; returns the verdict's exit status."""
    from refmaml.cli import user_keywords
    from refmaml.doctor import check_meta_gradient

    given = options.typed(arguments)
    method, net = method_and_net(given)
    if arguments.list:
        return print_dictionary(method, given.get("framework", "numpy"))
    expect(arguments.function is not None, "function", "FILE.py:FUNCTION", "nothing")
    check_outputs(
        {options.flag(name): given.get(name) for name in FILES},
        {"the function's": arguments.function.rpartition(":")[0]},
    )
    file, fn = load(arguments.function)
    check = {"net": net} | {name: given[name] for name in CHECK if name in given}
    check["layout"] = layout(given.get("layout", []))
    check |= user_keywords.data(given, file) | user_keywords.declared(given, file)
    if "kernels" in check:
        check["kernels"] = kernel_set(check["kernels"])
    method = user_keywords.with_mini_batches(method, given, file)
    report = check_meta_gradient(fn, method, **check)
    report.about["again"] = shlex.join(["refmaml", "doctor", *same_arguments(arguments)])
    return show(report, given)


def show(report, given):
    """Print a report, write it to the files of FILES; its verdict's exit status."""
    print(report)
    texts = {"json": report.to_json, "markdown": report.to_markdown, "junit": report.to_junit}
    for name, text in texts.items():
        if name in given:
            write(given[name], text(), options.flag(name))
    return STATUS[report.verdict]


def print_dictionary(method, framework):
    """Print every known mistake of a method: its row, name and fix."""
    from refmaml.doctor.dictionary import dictionary
    from refmaml.doctor.fitted_mistakes import families

    for mistake in dictionary(method):
        print(f"{mistake.row:>6}  {mistake.name}\n        {mistake.fix_for(framework)}")
    for family in families(method):
        print(f"{family.row:>6}  {family.title}\n        the numbers are fitted")
    return 0


def method_and_net(given):
    """The method, and the net where one is named, else None.

    Every other option has the method's own default; the loss is a mean.
    """
    from refmaml.cli import problem

    name = given.get("method", presets.DEFAULTS["method"])
    config = (
        presets.DEFAULTS
        | {"loss_scale": "mean", "context": 5}
        | options.method_defaults(name, given)
        | {key: value for key, value in given.items() if key in (*METHOD, *NET)}
    )
    if config["net"] == "two_layer_linear":
        config["data"] = "linear"
    elif config["net"] == "mlp":
        config["data"] = "sinusoid"
    expect(
        "net" in given or not set(given) & set(NET),
        "--net",
        "a net that the options describe",
        lambda: f"{', '.join(options.flag(n) for n in given if n in NET)} and no --net",
    )
    method = problem.make_method(config, {key: given[key] for key in METHOD if key in given})
    if "net" not in given:
        return method, None
    return method, problem.make_net(config | {"kernels": "reference"})


def layout(pairs):
    """{"*.weight": "HWIO"} of NAME=AXES pairs."""
    for pair in pairs:
        expect("=" in pair, "--layout", "NAME=AXES, as in x=NHWC", repr(pair))
    return dict(pair.rsplit("=", 1) for pair in pairs) or None


def same_arguments(arguments):
    """The words that repeat the check: every option that was given, without files."""
    words = [arguments.function]
    for name, value in vars(arguments).items():
        if name not in REPEATED:
            continue
        if isinstance(value, bool):
            words.append(options.flag(name if value else f"no_{name}"))
        else:
            words += [options.flag(name), *(value if isinstance(value, list) else [value])]
    return list(map(str, words))


def write(path, text, option):
    """Write the report into a file. Raises DataError in one line where that fails."""
    try:
        with atomic_write(Path(path)) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise DataError(
            f"{option}: expected a file that can be written, got {path}: {error.strerror}"
        ) from None
