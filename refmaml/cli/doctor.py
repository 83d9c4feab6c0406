"""`refmaml doctor FILE.py:FUNCTION`: a verdict on somebody's meta-gradient, and the name of its mistake."""

import importlib.util
import sys
from pathlib import Path

from refmaml.cli import options, presets
from refmaml.cli.kernels import kernel_set
from refmaml.cli.outputs import check_outputs
from refmaml.errors import ArgumentError, DataError, expect
from refmaml.storage.atomic import atomic_write

STATUS = {"right": 0, "wrong": 1, "inconclusive": 3}  # 2 is an error, as everywhere
HOW = ("framework", "probes", "layout", "precision", "tol", "seed", "seconds", "kernels")
FILES = ("json", "markdown", "junit")
METHOD = (
    "method",
    "inner_lr",
    "inner_steps",
    "adapts",
    "frozen",
    "regularization",
    "cg_steps",
    "inner_solver",
    "inner_optimizer",
    "inner_batch",
)
NET = (
    "net",
    "n_way",
    "channels",
    "downsample",
    "head",
    "bn_gamma",
    "hidden",
    "dim",
    "rank",
    "context",
    "loss_scale",
)


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser(
        "doctor",
        help="name the mistake in somebody's meta-gradient",
        description="Calls FUNCTION(problem, params, batch), or FUNCTION(params, batch) with --net, on problems "
        "whose meta-gradients are known, and names the mistake if there is one. Exit status 0: right, 1: wrong, 2: "
        "no gradient that can be judged, 3: inconclusive.",
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
    options.add(p, (*HOW, *FILES))
    options.add(p.add_argument_group("what it is meant to compute"), METHOD)
    options.add(p.add_argument_group("a net of your own, checked along with the probes"), NET)
    p.set_defaults(func=run)


def run(arguments):
    """Load, check, print, write; the verdict's exit status."""
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
    how = {name: given[name] for name in HOW if name in given} | {
        "layout": layout(given.get("layout", []))
    }
    if "kernels" in how:
        how["kernels"] = kernel_set(how["kernels"])
    report = check_meta_gradient(load(arguments.function), method, net=net, **how)
    report.about["again"] = "refmaml doctor " + " ".join(quoted(word) for word in again(arguments))
    print(report)
    for name, text in (
        ("json", report.to_json),
        ("markdown", report.to_markdown),
        ("junit", report.to_junit),
    ):
        write(given.get(name), text, options.flag(name))
    return STATUS[report.verdict]


def print_dictionary(method, framework):
    """Every known mistake of a method with its row, and what to do about it in a framework."""
    from refmaml.doctor.dictionary import dictionary

    for mistake in dictionary(method):
        print(f"{mistake.row:>6}  {mistake.name}\n        {mistake.repair(framework)}")
    return 0


def method_and_net(given):
    """The method, and the net where one is named: every other option at its method's own default, the loss a mean, all layers adapting."""
    from refmaml.cli import problem

    config = (
        presets.DEFAULTS
        | {"loss_scale": "mean", "context": 5}
        | presets.BY_METHOD[given.get("method", presets.DEFAULTS["method"])]
        | {name: value for name, value in given.items() if name in (*METHOD, *NET)}
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
    method = problem.make_method(
        config, {name: value for name, value in given.items() if name in METHOD}
    )
    if "net" not in given:
        return method, None
    return method, problem.make_net(config | {"kernels": "reference"})


def load(text):
    """The function FILE.py:FUNCTION names. Raises ArgumentError in one line where there is none."""
    file, colon, name = text.rpartition(":")
    expect(colon and file and name.isidentifier(), "function", "FILE.py:FUNCTION", repr(text))
    path = Path(file)
    expect(
        path.is_file(),
        "function",
        "a Python file",
        lambda: f"{file}, which does not exist" if not path.exists() else f"{file}",
    )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    expect(spec is not None, "function", "a Python file, *.py", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.resolve().parent))  # as python FILE.py would find its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script's own sys.exit(0) is no verdict
        raise ArgumentError(
            f"function: expected {file} to import, got {type(error).__name__}: {error}".splitlines()[
                0
            ]
        ) from error
    found = getattr(module, name, None)
    expect(
        callable(found),
        "function",
        f"a function in {file}",
        lambda: (
            f"{name!r}, which is not one"
            if found is not None
            else f"{name!r}, which it does not have"
        ),
    )
    return found


def layout(pairs):
    """{"*.weight": "HWIO"} of NAME=AXES pairs."""
    for pair in pairs:
        expect("=" in pair, "--layout", "NAME=AXES, as in x=NHWC", repr(pair))
    return dict(pair.rsplit("=", 1) for pair in pairs) or None


def again(arguments):
    """The words that would run the same check again: every option as it was typed, but for files."""
    words = [arguments.function]
    for name, value in vars(arguments).items():
        if name in (*HOW, *METHOD, *NET):
            typed = [options.flag(name), *(value if isinstance(value, list) else [value])]
            words += switch(name, value) if isinstance(value, bool) else typed
    return words


def switch(name, value):
    """--name or --no-name."""
    return [options.flag(name) if value else options.flag(f"no_{name}")]


def quoted(word):
    """A word as a shell reads it back."""
    import shlex

    return shlex.quote(str(word))


def write(path, text, option):
    """The report as text into a file, where one is asked for."""
    if path is None:
        return
    try:
        with atomic_write(Path(path)) as file:
            file.write(text().encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise DataError(
            f"{option}: expected a file that can be written, got {path}: {error.strerror}"
        ) from None
