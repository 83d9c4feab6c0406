"""Three cases in which a library is silently wrong, each in a few lines of its code.

    python benchmarks/conformance/demonstrations.py --out benchmarks/conformance

fused norms  PyTorch's train-mode batch_norm and layer_norm: products with their Hessian
             are right in reverse over reverse and in forward over reverse mode, wrong
             in reverse over forward and in forward over forward, and so is a third
             derivative
jit and max  JAX: a maximum over stacked windows after batch-norm, differentiated
             through two inner steps under jit and vmap
cg           betty: its conjugate gradients, and the same text with one word changed

Writes demonstrations.json, with versions and machine. What is not installed is left
out, with the reason.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from jit_and_max import jit_and_max
from output import add_out

from refmaml.autodiff.formulas import why_not
from refmaml.environment import circumstances
from refmaml.oracles.tolerance import relative_error
from refmaml.training.files import make_folder, write_json

HERE = Path(__file__).resolve().parent
DRAWS = 20


# ---- PyTorch: fused norms ------------------------------------------------------------


def norms():
    """{name: (fused, in primitives)}: norms of x (N, C, H, W) without parameters."""
    from torch.nn import functional as F

    def primitive(axes):
        def norm(x):
            centred = x - x.mean(axes, keepdim=True)
            return centred * ((centred * centred).mean(axes, keepdim=True) + 1e-5) ** -0.5

        return norm

    return {
        "batch_norm": (
            lambda x: F.batch_norm(
                x, None, None, x.new_ones(x.shape[1]), x.new_zeros(x.shape[1]), training=True
            ),
            primitive((0, 2, 3)),
        ),
        "layer_norm": (lambda x: F.layer_norm(x, x.shape[1:]), primitive((1, 2, 3))),
    }


def second_derivatives(f, x, u, v):
    """{mode: derivative} of a scalar function f.

    H v; u'Hv in forward over forward mode; T[v, v] for the third derivative.
    """
    from torch.func import grad, jvp, vjp

    def along(f, v):
        return lambda x: jvp(f, (x,), (v,))[1]

    return {
        "reverse over reverse": vjp(grad(f), x)[1](v)[0],
        "forward over reverse": along(grad(f), v)(x),
        "reverse over forward": grad(along(f, v))(x),
        "forward over forward": along(along(f, u), v)(x),
        "third, all reverse": vjp(lambda x: vjp(grad(f), x)[1](v)[0], x)[1](v)[0],
    }


def fused_norms():
    """{norm: {mode: [least, median, largest] error over random draws}} in float64.

    The function is sum(c * tanh(norm(x))).
    """
    import torch

    found = {name: {} for name in norms()}
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        x, u, v, c = (torch.randn(5, 3, 4, 4, dtype=torch.float64) for _ in range(4))
        for name, versions in norms().items():
            fused, right = (
                second_derivatives(
                    lambda x, norm=norm, c=c: (c * torch.tanh(norm(x))).sum(), x, u, v
                )
                for norm in versions
            )
            for mode, value in right.items():
                found[name].setdefault(mode, []).append(
                    relative_error(fused[mode].numpy(), value.numpy())
                )
    return {
        name: {
            mode: [float(f(errors)) for f in (min, np.median, max)]
            for mode, errors in modes.items()
        }
        for name, modes in found.items()
    }


# ---- JAX: jit and max ----


def without_fusion():
    """jit_and_max in a process in which XLA's fusion is off."""
    flags = {
        "XLA_FLAGS": "--xla_disable_hlo_passes=fusion,cpu-fusion,cpu-instruction-fusion",
        "JAX_PLATFORMS": "cpu",
    }
    code = "import json; from jit_and_max import jit_and_max; print(json.dumps(jit_and_max()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | flags | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


# ---- betty: conjugate gradients ------------------------------------------------------


def conjugate_gradients():
    """{"as released": error, "with the new residual": error} of iMAML's gradient.

    On quadratics, after as many iterations as there are parameters. betty computes
    `p_new` from r; Hestenes and Stiefel compute it from r_new.
    """
    import betty.hypergradient as hypergradient
    from adapters.betty_problems import implicit
    from adapters.library import answer

    import refmaml as rm
    from refmaml.doctor.builtin_cases import builtin_case

    case = builtin_case("quadratic", rm.IMAML(regularization=2.0))
    released = hypergradient.cg
    text = inspect.getsource(released)
    wrong, right = (
        "p_new = [rr + beta * pp for rr, pp in zip(r, p)]",
        "p_new = [rr + beta * pp for rr, pp in zip(r_new, p)]",
    )
    if wrong not in text:
        return {"as released": None, "why": "this release has another text"}
    repaired = dict(released.__globals__)
    exec(compile(text.replace(wrong, right), "betty's cg with r_new", "exec"), repaired)
    found = {}
    for name, function in (("as released", released), ("with the new residual", repaired["cg"])):
        hypergradient.jvp_fn_mapping["cg"] = function
        gradient = implicit(type="cg", cg_iterations=case.net.num_params)
        found[name] = relative_error(answer(gradient, case, "torch"), case.truth)
    hypergradient.jvp_fn_mapping["cg"] = released
    return found


# ---- the command ---------------------------------------------------------------------

DEMONSTRATIONS = {
    "fused norms": ("torch", fused_norms),
    "jit and max": ("jax", jit_and_max),
    "jit and max, XLA without fusion": ("jax", without_fusion),
    "cg": ("betty", conjugate_gradients),
}


def versions():
    """{distribution: version} of what is installed."""
    found = {}
    for name in ("torch", "jax", "jaxlib", "betty-ml"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def main(argv=None):
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_out(parser)
    out = make_folder(parser.parse_args(argv).out)
    about = circumstances()
    about["versions"] |= versions()
    found = {
        name: measure() if why_not(module) is None else {"absent": why_not(module)}
        for name, (module, measure) in DEMONSTRATIONS.items()
    }
    command = "python benchmarks/conformance/demonstrations.py"
    write_json(
        out / "demonstrations.json", {"schema": 1, "command": command, **about, "found": found}
    )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
