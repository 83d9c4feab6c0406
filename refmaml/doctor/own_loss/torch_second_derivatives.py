"""In which module of the user's an operation's second derivative is wrong.

Forward hooks record what each module receives. Then each module is looked at alone: its
vector-Jacobian product u'J at these inputs, differentiated along a direction, against
4th-order differences of u'J. Modules inside a module come before it, so that the first
wrong one holds the operation itself. Of a loss without modules, the autograd.Functions
of the user's own in its graph are named."""

import numpy as np
import torch
from torch.func import functional_call

from refmaml.doctor.own_loss.second_derivatives import compare


def wrong_module(functions, w, x, y):
    """The name and class of the innermost module that is wrong, or ""."""
    if functions.module is None:
        return ""
    module, inputs = functions.module.module, {}
    names = {m: name for name, m in module.named_modules()}

    def record(m, args, output):
        tensors = all(isinstance(a, torch.Tensor) for a in args)
        if tensors and isinstance(output, torch.Tensor):
            inputs.setdefault(m, [a.detach() for a in args])

    hooks = [m.register_forward_hook(record) for m in names]
    try:
        leaves = functions.leaves(w)
        functions.value(leaves, x, y)
    finally:
        for hook in hooks:
            hook.remove()
    tensors = (leaf.detach() for leaf in leaves)
    parameters = dict(zip(functions.parameters.shapes, tensors, strict=True))
    for m in sorted(inputs, key=lambda m: -depth(names[m])):
        if ModuleAlone(m, parameters_of(parameters, names[m]), inputs[m]).is_wrong():
            return f"{names[m] or 'itself'} ({type(m).__name__})"
    return ""


def depth(name):
    """How deep a module is: the number of names in its path."""
    return len(name.split(".")) if name else 0


def parameters_of(parameters, name):
    """{name inside the module: tensor}."""
    prefix = f"{name}." if name else ""
    return {n.removeprefix(prefix): p for n, p in parameters.items() if n.startswith(prefix)}


class ModuleAlone:
    """A module at recorded inputs, with u'J as a function of parameters and inputs.

    parameters {name: tensor}, inputs [tensor]; `live` are those that hold real numbers,
    and vectors are NumPy's, all live tensors one after another.
    """

    def __init__(self, module, parameters, inputs):
        self.module, self.names = module, list(parameters)
        self.tensors = [*parameters.values(), *inputs]
        self.live = [i for i, a in enumerate(self.tensors) if a.is_floating_point()]
        self.start = self.vector([self.tensors[i] for i in self.live]) if self.live else None

    def vector(self, tensors):
        """The NumPy vector of live tensors."""
        parts = [t.detach().double().reshape(-1).cpu() for t in tensors]
        return torch.cat(parts).numpy()

    def leaves(self, vector):
        """All tensors, the live ones from a vector and with a gradient."""
        out, at = list(self.tensors), 0
        for i in self.live:
            like = self.tensors[i]
            part = torch.tensor(vector[at : at + like.numel()]).reshape(like.shape)
            out[i] = part.to(like.device, like.dtype).requires_grad_()
            at += like.numel()
        return out

    def vjp(self, leaves, create_graph=False):
        """u'J as tensors; u and the module's random numbers are the same each time."""
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            own = dict(zip(self.names, leaves, strict=False))
            output = functional_call(self.module, own, tuple(leaves[len(self.names) :]))
            torch.manual_seed(1)
            u = torch.randn(output.shape, dtype=torch.float64).to(output)
            live = [leaves[i] for i in self.live]
            grads = torch.autograd.grad(
                output, live, u, create_graph=create_graph, allow_unused=True
            )
        return [torch.zeros_like(a) if g is None else g for a, g in zip(live, grads, strict=True)]

    def is_wrong(self):
        """Whether the derivative of u'J, symmetric in its vectors, is wrong."""
        if not self.live:
            return False
        d = np.random.default_rng(0).standard_normal(len(self.start))
        d /= np.linalg.norm(d)
        try:
            exact = self.second_derivative(d)
        except RuntimeError:  # an operation without a second derivative
            return True

        def along(s):
            return self.vector(self.vjp(self.leaves(self.start + s * d)))

        size = np.abs(along(0.0)).max()  # u'J of a linear module has no derivative at all
        return compare(exact, along, size).error > 0

    def second_derivative(self, d):
        """The derivative of u'J along d, by reverse over reverse."""
        leaves = self.leaves(self.start)
        grads = self.vjp(leaves, True)
        at, dotted = 0, 0.0
        for g in grads:
            part = torch.tensor(d[at : at + g.numel()]).reshape(g.shape).to(g)
            dotted, at = dotted + (g * part).sum(), at + g.numel()
        live = [leaves[i] for i in self.live]
        if not dotted.requires_grad:
            return np.zeros_like(d)
        second = torch.autograd.grad(dotted, live, allow_unused=True)
        return self.vector(
            [torch.zeros_like(a) if s is None else s for a, s in zip(live, second, strict=True)]
        )


def own_functions(functions, w, x, y):
    """Names of the user's own autograd.Functions in the loss's graph."""
    value = functions.value(functions.leaves(w), x, y)
    found, seen, waiting = {}, set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            found[type(node).__name__.removesuffix("Backward")] = True
        waiting += [parent for parent, _ in node.next_functions]
    return list(found)
