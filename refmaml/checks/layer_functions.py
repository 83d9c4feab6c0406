"""Calling the passes of a hand-written layer, and reading what they return."""

from typing import NamedTuple

import numpy as np

from refmaml.checks.calls import check_function, same_as_bound, user_line
from refmaml.checks.trees import children, described, framework_of, numpy_of
from refmaml.doctor.frameworks import first_line, framework
from refmaml.errors import expect

FORMS = {
    "backward": ("backward(x, params, dy) or backward(x, params, dy, layer)", (3, 4)),
    "forward": ("forward(x, params) or forward(x, params, layer)", (2, 3)),
    "r_forward": ("r_forward(x, params, rx, rparams), and layer", (4, 5)),
    "r_backward": ("r_backward(x, params, dy, rx, rparams, rdy), and layer", (6, 7)),
}


class Result(NamedTuple):
    """What one call gave: {output: array}, or the line of an exception."""

    outputs: dict
    error: str = ""


class LayerFunctions:
    """The user's passes, in a framework and a precision.

    keeps   whether forward returns (y, saved), and backward takes saved in place of x
    """

    def __init__(self, functions, name, precision):
        self.lib, self.precision = framework(name), precision
        self.functions, self.counts = {}, {}
        self.calls, self.keeps = 0, False
        for pass_name, fn in functions.items():
            if fn is not None:
                form, counts = FORMS[pass_name]
                check_function(fn, pass_name, form)
                self.functions[pass_name] = fn
                self.counts[pass_name] = same_as_bound(fn, form, pass_name, counts)

    def takes_layer(self):
        """Whether every pass is told the layer."""
        return all(self.counts[name] == FORMS[name][1][1] for name in self.functions)

    def array(self, a):
        """A fresh array of the framework."""
        with self.lib.scope():  # outside of it JAX has no float64
            return self.lib.array(a.astype(self.precision))

    def named(self, arrays):
        """Fresh arrays by name."""
        return {name: self.array(a) for name, a in arrays.items()}

    def call(self, pass_name, case, *given):
        """(value, error line) of a pass."""
        self.calls += 1
        more = (case.layer,) if self.counts[pass_name] == FORMS[pass_name][1][1] else ()
        try:
            with self.lib.scope():
                return self.functions[pass_name](*given, *more), ""
        except (Exception, SystemExit) as error:
            return None, f"{first_line(error)}{user_line(error)}"

    def forward(self, case):
        """(Result with "y", saved or None)."""
        value, error = self.call("forward", case, self.array(case.x), self.named(case.params))
        if error:
            return Result({}, error), None
        saved = None
        if isinstance(value, tuple | list):
            expect(len(value) == 2, "forward", "y, or (y, saved)", lambda: described(value))
            value, saved = value
            self.keeps = True
        return Result({"y": self.read(value, "forward")}), saved

    def backward(self, case, dy):
        """The Result of backward for an adjoint dy."""
        first = self.array(case.x)
        if "forward" in self.functions:
            result, saved = self.forward(case)
            if result.error:
                return result
            first = saved if self.keeps else first
        given = first, self.named(case.params), self.array(dy)
        return self.result("backward", case, *given)

    def r_forward(self, case):
        """The Result with "y": the tangent."""
        given = self.array(case.x), self.named(case.params), self.array(case.rx)
        value, error = self.call("r_forward", case, *given, self.named(case.rparams))
        if error:
            return Result({}, error)
        value = value[0] if isinstance(value, tuple | list) else value
        return Result({"y": self.read(value, "r_forward")})

    def r_backward(self, case):
        """The Result of r_backward."""
        given = (
            self.array(case.x),
            self.named(case.params),
            self.array(case.dy),
            self.array(case.rx),
            self.named(case.rparams),
            self.array(case.rdy),
        )
        return self.result("r_backward", case, *given)

    def result(self, pass_name, case, *given):
        """The Result of a pass that returns adjoints."""
        value, error = self.call(pass_name, case, *given)
        if error:
            return Result({}, error)
        return Result(self.adjoints(value, case, pass_name))

    def adjoints(self, value, case, pass_name):
        """{"x": dx, name: d_name} of a dict, of arrays in that order, or of dx."""
        names = ("x", *case.params)
        if framework_of(value):
            value = {"x": value}
        elif not isinstance(value, dict):
            wanted = f"a dict with {', '.join(names)}, arrays in that order, or dx alone"
            inner = children(value)
            ok = inner is not None and 1 <= len(inner) <= len(names)
            expect(ok, pass_name, wanted, lambda: described(value))
            value = dict(zip(names, value, strict=False))
        unknown = [str(name) for name in value if name not in names]
        expect(not unknown, pass_name, f"the names {', '.join(names)}", lambda: repr(unknown[0]))
        found = {name: a for name, a in value.items() if a is not None}
        expect(found, pass_name, f"some of {', '.join(names)}", "none")
        return {name: self.read(a, f"{pass_name}[{name!r}]") for name, a in found.items()}

    def read(self, value, what):
        """One array in float64."""
        a = numpy_of(value, what)
        expect(np.isfinite(a).all(), what, "finite numbers", "NaN or infinity")
        return np.asarray(a)
