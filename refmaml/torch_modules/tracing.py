"""The layers that a module's forward calls, in order, by torch.fx.

A module's children say nothing of its forward, which may call them in another order,
leave some out, or call F.relu in between. torch.fx runs the forward on a symbol and
records each call, so the order is exact, and nn.Sequential, nested modules and
functions of torch.nn.functional need no rule of their own.
"""

import inspect
from collections import Counter
from typing import Any, NamedTuple

from refmaml.errors import ArgumentError, expect
from refmaml.torch_modules.layer_table import ADVICE, is_of_torchvision, one_of_known


class Step(NamedTuple):
    """One call in a forward: its name, and the module of torch.nn that computes it.

    A module keeps its own name, "features.0"; a function has its name in the graph,
    with brackets: "relu_1()".
    """

    name: str
    module: Any


def steps(module):
    """The Steps of a module's forward.

    Raises ArgumentError for a forward that is no chain of layers, or that torch.fx
    cannot trace.
    """
    called, calls = [], Counter()
    for node in chain(graph_of(module)):
        if node.op != "call_module":
            called.append(Step(f"{node.name}()", module_of_call(node)))
            continue
        part = module.get_submodule(node.target)
        calls[node.target] += 1
        count = calls[node.target]
        if count > 1:
            has_none = not list(part.parameters())
            expect(has_none, f"layer '{node.target}'", "one call", f"{count} calls")
        called.append(Step(node.target if count == 1 else f"{node.target} (call {count})", part))
    return called


def graph_of(module):
    """The graph of a module's forward; further arguments have their defaults."""
    from torch import fx

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m, module_qualified_name):
            return is_of_torchvision(m) or super().is_leaf_module(m, module_qualified_name)

    alone = Tracer().is_leaf_module(module, "")
    name = type(module).__name__
    expect(not alone, "module", "layers in nn.Sequential or in a module", f"nn.{name} alone")
    parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    fixed = {p.name: p.default for p in parameters if p.default is not p.empty}
    try:
        return Tracer().trace(module, concrete_args=fixed)
    except Exception as error:  # whatever the module's own code raises on a symbol
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArgumentError(
            f"module: expected a forward that torch.fx can trace, got {lines[0]}{ADVICE}"
        ) from None


def chain(graph):
    """The nodes from the input to the output, each the input of the next."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    nodes, node = [], output.args[0]
    while getattr(node, "op", None) in ("call_module", "call_function", "call_method"):
        nodes.append(node)
        node = node.args[0] if node.args else node.kwargs.get("input")
    whole = nodes and node in inputs[:1]
    expect(whole, "module", "a chain of layers from input to output", f"{node}{ADVICE}")
    return nodes[::-1]


# ---- calls of functions and of tensors' methods --------------------------------------


def module_of_call(node):
    """The module of torch.nn that computes a function such as F.relu."""
    name = node.target if isinstance(node.target, str) else node.target.__name__
    make, where = FUNCTIONS.get(name), f"layer '{node.name}()'"
    expect(make is not None, where, f"{one_of_known()} or its function", f"{name}{ADVICE}")
    kwargs = {key: value for key, value in node.kwargs.items() if key != "input"}
    try:
        return make(*node.args[1:], **kwargs)
    except (ArgumentError, TypeError, ValueError) as error:
        raise ArgumentError(f"{where}: {error}") from None


def module_called(name):
    """A function that makes nn.NAME from the arguments of the function of torch.

    Both take them in the same order. Keywords that the module does not have, such as
    F.softmax's dtype, must be None.
    """

    def make(*args, **kwargs):
        from torch import nn

        cls = getattr(nn, name)
        own = inspect.signature(cls.__init__).parameters
        for key, value in kwargs.items():
            expect(key in own or value is None or key == "_stacklevel", key, "None", repr(value))
        return cls(*args, **{key: value for key, value in kwargs.items() if key in own})

    return make


def flatten(start_dim=0, end_dim=-1):
    """torch.flatten begins at axis 0 unless told otherwise, nn.Flatten at axis 1."""
    from torch import nn

    return nn.Flatten(start_dim, end_dim)


def view(*sizes):
    """x.view(len(x), -1) is nn.Flatten(). `comparison` finds other sizes."""
    from torch import nn

    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    expect(len(sizes) == 2, "sizes", "(examples, -1)", lambda: f"{sizes}")
    return nn.Flatten()


def mean(dim=None, keepdim=False):
    """The mean over both axes of an image."""
    from torch import nn

    axes = sorted(dim) if isinstance(dim, (tuple, list)) else dim
    expect(axes in ([2, 3], [-2, -1]) and not keepdim, "dim", "(2, 3) without keepdim", f"{dim}")
    return nn.AdaptiveAvgPool2d(1)


def dropout(p=0.5, training=True, inplace=False):
    """The identity where the module is in eval mode."""
    from torch import nn

    expect(not training, "dropout", "nn.Dropout, which can be switched off", "F.dropout")
    return nn.Identity()


FUNCTIONS = {
    "flatten": flatten,
    "view": view,
    "reshape": view,
    "mean": mean,
    "dropout": dropout,
    "relu_": module_called("ReLU"),
    **{
        name: module_called(cls)
        for name, cls in {
            "relu": "ReLU",
            "leaky_relu": "LeakyReLU",
            "tanh": "Tanh",
            "softplus": "Softplus",
            "sigmoid": "Sigmoid",
            "gelu": "GELU",
            "silu": "SiLU",
            "elu": "ELU",
            "softmax": "Softmax",
            "log_softmax": "LogSoftmax",
            "max_pool2d": "MaxPool2d",
            "avg_pool2d": "AvgPool2d",
            "adaptive_avg_pool2d": "AdaptiveAvgPool2d",
        }.items()
    },
}
