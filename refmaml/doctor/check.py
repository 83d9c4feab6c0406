"""check_meta_gradient: checks its arguments, makes the cases, returns the Report."""

import platform
import re
from dataclasses import MISSING, fields, replace
from time import perf_counter

import numpy as np

from refmaml import update_rules
from refmaml.doctor.builtin_cases import builtin_cases, own_case
from refmaml.doctor.declarations import declarations, with_constants
from refmaml.doctor.examination import PRECISIONS, examine
from refmaml.doctor.frameworks import framework as framework_called
from refmaml.doctor.layouts import Layout
from refmaml.doctor.own_loss.setup import own_loss
from refmaml.doctor.report import Report
from refmaml.doctor.user_function import UserFunction
from refmaml.doctor.verdicts import WRONG
from refmaml.errors import expect
from refmaml.version import __version__

# arguments that the report calls by their names, as it cannot write down their values
BY_NAME = ("net", "batch", "loss", "params", "forward", "gradient")


def check_meta_gradient(
    fn,
    method,
    *,
    net=None,
    batch=None,
    loss=None,
    params=None,
    forward=None,
    gradient=None,
    not_meta_learned=(),
    probes=None,
    framework="numpy",
    layout=None,
    seed=0,
    tol=None,
    precision=None,
    repeats=6,
    seconds=30.0,
    kernels=None,
    task_weights=None,
    learned_through=None,
    step_factors=None,
):
    """Whether a function's meta-gradient is right, and the name of its mistake if not.

    fn          fn(problem, params, batch) -> gradient: `problem` holds the method and a
                loss in the user's framework (problem.py); or fn(params, batch) ->
                gradient, which implements a net of its own and needs `net`
    method      what it should compute, e.g. rm.MAML(inner_lr=0.1, inner_steps=5)
    net         a net of the user's own, checked besides the built-in cases
    batch       tasks for that net; None: random ones
    loss        a loss of the user's own, in place of net: loss(params, x, y) -> the
                mean loss of one task, a number of the framework; see docs/doctor.md
    params      its parameters: a dict of arrays, a pytree, or an nn.Module
    forward     forward(params, x) -> outputs, where the loss is loss(outputs, y); an
                nn.Module is called itself
    gradient    NumPy: gradient(params, x, y), the gradient of a loss that does not take
                complex numbers
    not_meta_learned  names or patterns of parameters that are not meta-learned: their
                gradient is 0, and may be None or missing
    probes      names of the built-in cases: "quadratic", "two-layer", "mlp", "conv";
                None: all
    framework   the arrays of params and batch: "numpy", "torch", "jax", "cupy"
    layout      layouts by name where they are not torch's, e.g. {"*.weight": "HWIO",
                "x": "NHWC"}
    seed        of every random number
    tol         the largest relative error of a tensor; None: what rounding allows, from
                the tensor's own conditioning
    precision   "float64" or "float32"; None: float64, then float32
    repeats     how many times the call on the first case is repeated, to find noise,
                state and growing memory; 0: never. Memory needs at least 6
    seconds     CPU time of the search for a name
    kernels     the kernel set of problem.net, and so of problem.loss, gradient and hvp
                in NumPy and CuPy; None: that of a user's net on a GPU, else the
                reference
    task_weights  w_t in M = (1/T) sum_t w_t M_t: one number for each task, or a
                function of the number of tasks T -> (T,), which fits every case; None:
                1 each
    learned_through  {"inner_lr": "softplus"}: a learned step size is softplus(raw), and
                the function returns the gradient with regard to raw; "exp", "softplus",
                "sigmoid", "square", or a function of the step size A -> f'(raw)

    step_factors  the function's own factors on inner_lr, one for each inner step,
                where it reads a single inner_lr and has a schedule of its own

    Returns a Report. Raises ArgumentError in one line for arguments that mean nothing,
    and for an answer that is no gradient. Units: errors are relative."""
    started = perf_counter()
    options = {"net": net, "batch": batch, "probes": probes, "layout": layout}
    options |= {"tol": tol, "precision": precision}
    options |= {"task_weights": task_weights, "learned_through": learned_through}
    options |= {"step_factors": step_factors}
    options |= {"not_meta_learned": tuple(not_meta_learned) or None}
    declared = declarations(method, tol, task_weights, learned_through, step_factors)
    known = precision is None or precision in PRECISIONS
    expect(known, "precision", "float64 or float32", repr(precision))
    of_refmaml = net is None or hasattr(net, "with_kernels")
    wanted = "a net of refmaml; for a module or a loss of your own: loss=, params=, batch="
    expect(of_refmaml, "net", wanted, type(net).__name__)
    if kernels is None and net is not None and net.kernels.on_device:
        kernels = net.kernels
    lib = framework_called(framework)._replace(kernels=kernels)
    function = UserFunction(fn, lib, Layout(layout))
    precisions = [precision] if precision else list(PRECISIONS)

    def examined(cases, remarks):
        cases, more = with_constants([declared(case) for case in cases], tuple(not_meta_learned))
        remarks = [*remarks, *more]
        return examine(function, cases, precisions, repeats, seconds, remarks)

    of_loss = {"loss": loss, "params": params, "forward": forward, "gradient": gradient}
    if any(value is not None for value in of_loss.values()):
        options |= of_loss
        report = check_own_loss(function, method, lib, options, seed, examined)
    else:
        report = examined(*all_cases(function, method, probes, net, batch, seed))
    about = about_call(fn, method, framework, seed, options)
    return replace(report, about=about | {"seconds": round(perf_counter() - started, 2)})


def check_own_loss(function, method, lib, given, seed, examined):
    """The Report of a check with a loss of the user's own.

    examined  (cases, remarks) -> Report
    """
    expect(given["loss"] is not None, "loss", "a function loss(params, x, y)", "None")
    for name in ("net", "probes", "layout"):
        expect(given[name] is None, name, "nothing beside loss=", type(given[name]).__name__)
    with own_loss(function, method, lib, given, seed) as own:
        if own.finding is not None:
            diagnosis, fix = own.finding
            return Report(WRONG, diagnosis, fix, remarks=tuple(own.remarks))
        return examined(own.cases, own.remarks)


def about_call(fn, method, framework, seed, options):
    """The report's record of a call: its arguments, how to repeat it, versions."""
    return {
        "function": getattr(fn, "__name__", type(fn).__name__),
        "method": repr(method),
        "framework": framework,
        "seed": seed,
        "again": same_call(fn, method, framework, seed, options),
        "versions": versions(),
    }


def all_cases(function, method, names, net, batch, seed):
    """(built-in cases and the user's own, remarks on those left out)."""
    expect(
        function.takes_problem or net is not None,
        "net",
        "the net that a function of (params, batch) implements",
        "None",
    )
    cases, left_out = builtin_cases(method, names, seed) if function.takes_problem else ([], [])
    if net is not None:
        cases.append(own_case(net, method, batch, seed))
    expect(
        cases,
        "probes",
        "at least one that the method fits",
        lambda: "; ".join(f"{name}: {why}" for name, why in left_out),
    )
    return cases, [f"the {name} case was left out: {why}" for name, why in left_out]


def same_call(fn, method, framework, seed, options):
    """The call that repeats the check; a net or a batch by its name only."""
    given = {
        name: name if name in BY_NAME or callable(value) else repr(value)
        for name, value in options.items()
        if value is not None
    }
    text = "".join(f", {name}={value}" for name, value in given.items())
    function = getattr(fn, "__name__", "fn")
    return (
        f"rm.check_meta_gradient({function}, {with_prefix(short(method))}, "
        f"framework={framework!r}, seed={seed}{text})"
    )


def short(method):
    """The repr of a method without the fields that have their defaults."""
    given = {f.name: (getattr(method, f.name), default_of(f)) for f in fields(method)}
    text = ", ".join(f"{n}={value!r}" for n, (value, default) in given.items() if value != default)
    return f"{type(method).__name__}({text})"


def default_of(field):
    """The default of a dataclass's field; MISSING where it has none."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def with_prefix(text):
    """The repr of a method, with rm. in front of its class and of its rule's."""
    names = "|".join(update_rules.__all__)
    return "rm." + re.sub(rf"\b({names})\(", r"rm.\1(", text)


def versions():
    """Versions of refmaml, Python and NumPy."""
    return {"refmaml": __version__, "python": platform.python_version(), "numpy": np.__version__}
