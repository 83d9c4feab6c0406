"""Adam, momentum and RMSprop in the inner loops of other libraries, beside refmaml's.

    python benchmarks/update_rules.py --out benchmarks/update_rules.json

The error of a library is max|difference| / max|gradient| between its meta-gradient in
float64 and refmaml's with the same rule, which agrees with the complex step to 1e-14.
"""

import argparse
from contextlib import contextmanager
from importlib import metadata
from math import isfinite, isnan

import numpy as np

import refmaml as rm
from refmaml.autodiff import jax_autodiff, torch_autodiff
from refmaml.autodiff.formulas import mean_over_tasks, task_loss
from refmaml.cli import report
from refmaml.oracles import cases
from refmaml.oracles.method_checks import rule_text
from refmaml.training import files

MODULES = ("torch", "jax", "higher", "torchopt", "optax")
INNER_LR, STEPS = 0.05, 5
RULES = (
    rm.SGD(momentum=0.9),
    rm.SGD(momentum=0.9, nesterov=True),
    rm.RMSprop(0.9, eps=1e-2),
    rm.RMSprop(0.9, eps=1e-2, momentum=0.5),
    rm.Adam(),
    rm.Adam(eps=1e-3),
    rm.Adam(eps=1e-2),
    rm.Adam(eps_root=1e-8),
    rm.Adam(eps_root=1e-2),
    rm.AdamW(eps=1e-2, weight_decay=0.1),
)
SILENT_RULES = (rm.Adam(), rm.Adam(eps_root=1e-8), rm.RMSprop(0.9, eps=1e-2))


def case(silent=False):
    """(net, theta, batch) without kinks; silent: one input is 0 in all examples."""
    layers = [rm.Linear(4, 6), rm.Tanh(), rm.Linear(6, 3)]
    net, rng = rm.Sequential(layers, rm.CrossEntropy(), (4,)), np.random.default_rng(0)
    x, y = rng.standard_normal((2, 2, 6, 4)), rng.integers(0, 3, (2, 2, 6))
    x[..., :1] *= not silent
    return net, cases.start(net, rng), rm.Batch(x[0], y[0], x[1], y[1])


# ---- the libraries: (rule, net, theta, batch) -> meta-gradient, or None --------------


def torch_gradient(net, theta, batch, end):
    """dM/dtheta (P,), where phi_K = end(start, inner_gradient), mean over tasks.

    inner_gradient(phi) is the gradient of the support loss, with its graph.
    """
    import torch

    f = torch_autodiff.framework()

    def of_task(*task):
        xs, ys, xq, yq = map(torch.from_numpy, task)
        start = torch.tensor(theta, dtype=torch.float64, requires_grad=True)

        def inner_gradient(phi):
            return torch.autograd.grad(task_loss(f, net, phi, xs, ys), phi, create_graph=True)[0]

        phi = end(start, inner_gradient)
        return torch.autograd.grad(task_loss(f, net, phi, xq, yq), start)[0]

    return mean_over_tasks(net, of_task, *batch.arrays)


def torchopt_optimizer(rule, **options):
    """TorchOpt's functional optimizer with the fields of a rule."""
    import torchopt

    decay = {"weight_decay": rule.weight_decay}
    if isinstance(rule, rm.Adam):
        name = "adamw" if rule.decoupled else "adam"
        fields = {"betas": rule.betas, "eps": rule.eps, "eps_root": rule.eps_root, **decay}
        return getattr(torchopt, name)(INNER_LR, **fields, **options)
    if isinstance(rule, rm.SGD):
        fields = {"momentum": rule.momentum, "nesterov": rule.nesterov, **decay}
        return torchopt.sgd(INNER_LR, **fields)
    fields = {"alpha": rule.alpha, "eps": rule.eps, "momentum": rule.momentum, **decay}
    return torchopt.rmsprop(INNER_LR, centered=rule.centered, **fields)


@contextmanager
def torch_default(name):
    """A context in which new tensors have that dtype."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name))
    yield
    torch.set_default_dtype(before)


def by_torchopt(rule, net, theta, batch, default="float64", **options):
    """default: PyTorch's default dtype; TorchOpt computes 1 - beta^t in it."""
    import torchopt

    def end(phi, inner_gradient):
        optimizer = torchopt_optimizer(rule, **options)
        state = optimizer.init((phi,))
        for _ in range(STEPS):
            grads = (inner_gradient(phi),)
            updates, state = optimizer.update(grads, state, params=(phi,), inplace=False)
            (phi,) = torchopt.apply_updates((phi,), updates, inplace=False)
        return phi

    with torch_default(default):
        return torch_gradient(net, theta, batch, end)


def by_torchopt_in_float32(rule, net, theta, batch):
    """The same where PyTorch's default dtype is float32, as it is unless changed."""
    return by_torchopt(rule, net, theta, batch, "float32")


def by_torchopt_accelerated(rule, net, theta, batch):
    """TorchOpt's fused Adam; it has no other fused rules."""
    if type(rule) is not rm.Adam:
        return None
    return by_torchopt(rule, net, theta, batch, use_accelerated_op=True)


def torch_optimizer(rule, parameters):
    """The optimizer of torch.optim with the fields of a rule; it has no eps_root."""
    import torch

    fields = {n: getattr(rule, n) for n in rule.__dataclass_fields__ if n != "eps_root"}
    return getattr(torch.optim, type(rule).__name__)(parameters, lr=INNER_LR, **fields)


def by_higher(rule, net, theta, batch):
    """higher's differentiable copies of the optimizers in torch.optim."""
    import higher
    import torch

    if getattr(rule, "eps_root", 0) or type(rule).__name__ not in ("SGD", "Adam", "RMSprop"):
        return None
    f = torch_autodiff.framework()

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(theta, dtype=torch.float64))

        def forward(self, x, y):
            return task_loss(f, net, self.w, x, y)

    def of_task(*task):
        xs, ys, xq, yq = map(torch.from_numpy, task)
        module = Loss()
        optimizer = torch_optimizer(rule, module.parameters())
        with higher.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (inner, steps):
            for _ in range(STEPS):
                steps.step(inner(xs, ys))
            return torch.autograd.grad(inner(xq, yq), module.w)[0]

    return mean_over_tasks(net, of_task, *batch.arrays)


def optax_optimizer(rule):
    """optax's optimizer with the fields of a rule."""
    import optax

    if isinstance(rule, rm.Adam):
        fields = {"b1": rule.betas[0], "b2": rule.betas[1]}
        fields |= {"eps": rule.eps, "eps_root": rule.eps_root}
        if rule.decoupled:
            return optax.adamw(INNER_LR, **fields, weight_decay=rule.weight_decay)
        return optax.adam(INNER_LR, **fields)
    if isinstance(rule, rm.SGD):
        return optax.sgd(INNER_LR, rule.momentum, rule.nesterov)
    fields = {"decay": rule.alpha, "eps": rule.eps, "centered": rule.centered}
    return optax.rmsprop(INNER_LR, **fields, momentum=rule.momentum or None, eps_in_sqrt=False)


def by_optax(rule, net, theta, batch):
    import jax
    import optax

    f, optimizer = jax_autodiff.framework(), optax_optimizer(rule)

    def after_steps(theta, xs, ys, xq, yq):
        def step(carried, _):
            phi, state = carried
            g = jax.grad(lambda w: task_loss(f, net, w, xs, ys))(phi)
            updates, state = optimizer.update(g, state, phi)
            return (optax.apply_updates(phi, updates), state), None

        (phi, _), _ = jax.lax.scan(step, (theta, optimizer.init(theta)), length=STEPS)
        return task_loss(f, net, phi, xq, yq)

    with jax_autodiff.float64():
        gradient = jax.jit(jax.grad(after_steps))
        return mean_over_tasks(net, lambda *task: gradient(theta, *task), *batch.arrays)


LIBRARIES = {
    "higher": by_higher,
    "TorchOpt": by_torchopt,
    "TorchOpt, default dtype float32": by_torchopt_in_float32,
    "TorchOpt, use_accelerated_op": by_torchopt_accelerated,
    "optax": by_optax,
}


# ---- the table -----------------------------------------------------------------------


def error_of(library, rule, silent=False):
    """A library's error; "NaN" where its gradient is; None if it lacks the rule."""
    net, theta, batch = case(silent)
    value = LIBRARIES[library](rule, net, theta, batch)
    if value is None:
        return None
    truth = rm.MAML(INNER_LR, STEPS, rule=rule).meta_gradient(net, theta, batch).grad
    error = float(np.abs(np.asarray(value) - truth).max() / np.abs(truth).max())
    return "NaN" if isnan(error) else error


def measure():
    """The rows: each rule's text, and the error of each library."""
    wanted = [(rule, False) for rule in RULES] + [(rule, True) for rule in SILENT_RULES]
    return [
        {
            "case": rule_text(rule),
            "silent": silent,
            "errors": {library: error_of(library, rule, silent) for library in LIBRARIES},
        }
        for rule, silent in wanted
    ]


def cell(error):
    """An error as the table has it; one beyond rounding is bold."""
    if error is None:
        return "-"
    if not isinstance(error, float) or not isfinite(error):
        return f"**{error}**"
    return f"{error:.0e}" if error < 1e-11 else f"**{error:.1e}**"


def lines(record):
    """The table as lines of markdown."""
    names = list(record["rows"][0]["errors"])
    rows = (
        [f"`{row['case']}`" + ", silent input" * row["silent"], *map(cell, row["errors"].values())]
        for row in record["rows"]
    )
    head = [f"| rule | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="where the result goes")
    given = parser.parse_args(argv)
    record = {"schema": 1, "rows": measure(), **report.circumstances()}
    record["versions"] |= {name: metadata.version(name) for name in MODULES}
    files.write_json(given.out, record)
    print("\n".join(lines(record)))


if __name__ == "__main__":
    main()
