"""Products of other libraries with the Hessian and the Gauss-Newton matrix, float64.

    python benchmarks/conformance/products.py --out benchmarks/conformance

The nets are modules of PyTorch; refmaml's products are those of rm.from_torch(module).
The error is max|difference| / max|refmaml's product|. Writes products.json. Install
torch==2.13.0, then curvlinops-for-pytorch and backpack-for-pytorch with --no-deps
(BackPACK requires torchvision, which it does not import), and einops, einconv,
unfoldNd, linear_operator, jaxtyping, wadler-lindig.
"""

import argparse
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from output import add_out

import refmaml as rm
from refmaml.environment import circumstances
from refmaml.training.files import make_folder, write_json

VERSIONS = ("torch", "curvlinops-for-pytorch", "backpack-for-pytorch")
SHAPE, EXAMPLES, CLASSES = (2, 5, 7), 11, 3
KINDS = ("hessian", "gauss_newton")


def modules():
    """{name: module}: smooth; ReLU and max-pooling; batch-norm in training besides."""
    from torch import nn

    def conv(*norm):
        head = [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, CLASSES)]
        return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *norm, *head)

    return {
        "mlp": nn.Sequential(nn.Flatten(), nn.Linear(70, 6), nn.Tanh(), nn.Linear(6, CLASSES)),
        "conv": conv(),
        "conv, batch-norm": conv(nn.BatchNorm2d(4, track_running_stats=False)),
        "conv, batch-norm with running statistics": conv(nn.BatchNorm2d(4)),
    }


# ---- the libraries: (kind, module, x, y, [v]) -> [product] ---------------------------


def by_torch_func(mode):
    """Gradient and product by torch.func; mode: what differentiates the gradient."""

    def product(kind, module, x, y, v):
        from torch.func import functional_call, grad, jvp, vjp
        from torch.nn.functional import cross_entropy

        names = [name for name, _ in module.named_parameters()]
        params, tangent = tuple(p.detach() for p in module.parameters()), tuple(v)

        def outputs(params):
            return functional_call(module, dict(zip(names, params, strict=True)), (x,))

        def derivative(f, at, along):
            return jvp(f, (at,), (along,))[1] if mode == "jvp" else vjp(f, at)[1](along)[0]

        if kind == "hessian":
            return derivative(grad(lambda p: cross_entropy(outputs(p), y)), params, tangent)
        z, dz = jvp(outputs, (params,), (tangent,))
        return vjp(outputs, params)[1](derivative(grad(lambda z: cross_entropy(z, y)), z, dz))[0]

    return product


def by_curvlinops(kind, module, x, y, v):
    import curvlinops
    import torch

    name = {"hessian": "HessianLinearOperator", "gauss_newton": "GGNLinearOperator"}[kind]
    params = list(module.parameters())
    operator = getattr(curvlinops, name)(module, torch.nn.CrossEntropyLoss(), params, [(x, y)])
    return operator @ v


def by_backpack(kind, module, x, y, v):
    from backpack.hessianfree.ggnvp import ggn_vector_product
    from backpack.hessianfree.hvp import hessian_vector_product
    from torch.nn.functional import cross_entropy

    z = module(x)
    if kind == "hessian":
        return hessian_vector_product(cross_entropy(z, y), list(module.parameters()), v)
    return ggn_vector_product(cross_entropy(z, y), z, module, v)


LIBRARIES = {
    "curvlinops": by_curvlinops,
    "BackPACK": by_backpack,
    "torch.func, jvp of grad": by_torch_func("jvp"),
    "torch.func, vjp of grad": by_torch_func("vjp"),
}


# ---- the table -----------------------------------------------------------------------


def cell_of(library, kind, net_name):
    """A library's error; or the first sentence with which it refuses."""
    import torch

    torch.manual_seed(0)
    module = modules()[net_name].double()
    x = torch.randn(EXAMPLES, *SHAPE, dtype=torch.float64)
    y = torch.arange(EXAMPLES) % CLASSES
    v = [torch.randn_like(p) for p in module.parameters()]
    net = rm.from_torch(module, SHAPE)
    theta, direction = (
        np.concatenate([a.detach().numpy().ravel() for a in arrays])
        for arrays in (module.parameters(), v)
    )
    truth = getattr(net, kind)(theta, x.numpy()[None], y.numpy()[None]) @ direction
    try:
        product = LIBRARIES[library](kind, module, x, y, v)
    except RuntimeError as error:
        return str(error).split(".")[0].split(" (")[0]
    found = np.concatenate([a.detach().numpy().ravel() for a in product])
    return float(np.abs(found - truth).max() / np.abs(truth).max())


def measure():
    """[{"net", "kind", "errors": {library: error or refusal}}]."""
    return [
        {"net": net, "kind": kind, "errors": {n: cell_of(n, kind, net) for n in LIBRARIES}}
        for net in modules()
        for kind in KINDS
    ]


def cell(error):
    """An error as the table has it; one beyond rounding is bold."""
    if isinstance(error, str):
        return "refuses"
    return f"{error:.0e}" if error < 1e-13 else f"**{error:.1e}**"


def lines(record):
    """The table as lines of markdown."""
    names = list(record["rows"][0]["errors"])
    head = [f"| net | matrix | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    rows = (
        [row["net"], row["kind"].replace("_", "-"), *map(cell, row["errors"].values())]
        for row in record["rows"]
    )
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def main(argv=None):
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_out(parser)
    out = make_folder(parser.parse_args(argv).out)
    about = circumstances()
    about["versions"] |= {name: metadata.version(name) for name in VERSIONS}
    command = "python benchmarks/conformance/products.py"
    record = {"schema": 1, "command": command, **about, "rows": measure()}
    write_json(out / "products.json", record)
    print("\n".join(lines(record)))


if __name__ == "__main__":
    main()
