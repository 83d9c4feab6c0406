"""In which module of the user's an operation's second derivative is wrong.

Forward hooks record what each module receives. Then each module is looked at alone: its
vector-Jacobian product u'J at these inputs, differentiated along a direction, against
4th-order differences of u'J. Modules inside a module come before it, so that the first
wrong one holds the operation itself. Of a loss without modules, the autograd.Functions
of the user's own in its graph are named."""

import torch
from torch.func import functional_call

from refmaml.doctor.own_loss.differences import best_difference
from refmaml.doctor.own_loss.second_derivatives import AGREE, UNSURE


def wrong_module(functions, w, x, y):
    """The name and class of the innermost module that is wrong, or ""."""
    if functions.module is None:
        return ""
    module, inputs, hooks = functions.module.module, {}, []
    names = {m: name for name, m in module.named_modules()}

    def record(m, args, output):
        tensors = all(isinstance(a, torch.Tensor) for a in args)
        if tensors and isinstance(output, torch.Tensor) and m not in inputs:
            inputs[m] = tuple(a.detach() for a in args)

    for m in names:
        hooks.append(m.register_forward_hook(record))
    try:
        leaves = functions.leaves(w)
        functions.value(leaves, x, y)
    finally:
        for hook in hooks:
            hook.remove()
    parameters = dict(
        zip(functions.parameters.shapes, (leaf.detach() for leaf in leaves), strict=True)
    )
    for m in sorted(inputs, key=lambda m: -depth(names[m])):
        if is_wrong(m, parameters_of(parameters, names[m]), inputs[m]):
            return f"{names[m] or 'the whole module'} ({type(m).__name__})"
    return ""


def depth(name):
    """How deep a module is: the number of names in its path."""
    return len(name.split(".")) if name else 0


def parameters_of(parameters, name):
    """{name inside the module: tensor}."""
    prefix = f"{name}." if name else ""
    return {n.removeprefix(prefix): p for n, p in parameters.items() if n.startswith(prefix)}


def is_wrong(module, parameters, inputs):
    """Whether the derivative of the module's vector-Jacobian product is wrong."""
    names, arguments = list(parameters), [*parameters.values(), *inputs]
    live = [i for i, a in enumerate(arguments) if a.is_floating_point()]
    if not live:
        return False
    generator = torch.Generator().manual_seed(0)

    def normal(like):
        a = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        return a.to(like.device, like.dtype)

    def output(tensors):
        own = dict(zip(names, tensors, strict=False))
        return functional_call(module, own, tuple(tensors[len(names) :]))

    def moved(s):
        tensors = [a + s * d if d is not None else a for a, d in zip(arguments, ds, strict=True)]
        return [t.detach().requires_grad_(i in live) for i, t in enumerate(tensors)]

    def vjp(tensors, create_graph=False):
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            out = output(tensors)
            grads = torch.autograd.grad(
                out, [tensors[i] for i in live], u, create_graph=create_graph, allow_unused=True
            )
        return [
            torch.zeros_like(tensors[i]) if g is None else g
            for g, i in zip(grads, live, strict=True)
        ]

    ds = [None] * len(arguments)
    for i in live:
        ds[i] = normal(arguments[i])
    size = torch.sqrt(sum((ds[i] ** 2).sum() for i in live))
    for i in live:
        ds[i] = ds[i] / size
    with torch.no_grad():
        u = normal(output(arguments))
    tensors = moved(0.0)
    grads = vjp(tensors, True)
    # <d, derivative of (u'J) along e> by reverse over reverse, against differences
    e = [normal(a) for a in grads]
    dotted = sum((g * b).sum() for g, b in zip(grads, e, strict=True))
    if not dotted.requires_grad:
        exact = 0.0
    else:
        try:
            second = torch.autograd.grad(dotted, [tensors[i] for i in live], allow_unused=True)
        except RuntimeError:
            return True
        exact = sum(
            float((s * ds[i]).sum()) for s, i in zip(second, live, strict=True) if s is not None
        )
    found = best_difference(
        lambda s: float(sum((g * b).sum() for g, b in zip(vjp(moved(s)), e, strict=True)))
    )
    error = abs(exact - found.value)
    return error > UNSURE * found.error and error > AGREE * max(abs(exact), abs(found.value))


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
