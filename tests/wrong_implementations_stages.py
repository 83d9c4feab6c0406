"""MAML with one wrong derivative, and the stage at which it is located."""

from types import SimpleNamespace

from implementations import MAML, adapting, average, back, descend, tasks

import refmaml as rm


def located(fn, method=MAML, probes=("mlp",), **options):
    """(stage, tensor) of the first finding; the diagnosis must be no name."""
    options = {"precision": "float64", "repeats": 0, "seconds": 0.5, **options}
    report = rm.check_meta_gradient(fn, method, probes=probes, **options)
    assert report.verdict == "wrong" and report.diagnosis.startswith(
        "no mistake of the dictionary"
    ), str(report)
    assert report.stages, str(report)
    return report.stages[0]


def with_wrong_derivatives(problem, gradient=None, hvp=None, query=None):
    """The problem with a wrong derivative; arguments: {name: array} -> wrong ones."""
    return SimpleNamespace(
        method=problem.method,
        net=problem.net,
        gradient=lambda w, x, y: (gradient or (lambda g: g))(problem.gradient(w, x, y)),
        hvp=lambda w, x, y, v: (hvp or (lambda h: h))(problem.hvp(w, x, y, v)),
        query=lambda w, x, y: (query or (lambda g: g))(problem.gradient(w, x, y)),
    )


def times_factor(name, factor):
    """{name: array} -> the same with one array multiplied."""
    return lambda named: {n: a * (factor if n == name else 1) for n, a in named.items()}


def recursion(problem, params, batch, **wrong):
    """MAML on a problem with a wrong derivative."""
    p, rows = with_wrong_derivatives(problem, **wrong), []
    for xs, ys, xq, yq in tasks(batch):
        A = adapting(problem, params)
        phis = descend(p, params, xs, ys, A, problem.method.inner_steps)
        rows.append(
            back(
                p,
                phis,
                xs,
                ys,
                A,
                p.query(phis[-1], xq, yq),
                0.0 if isinstance(problem.method, rm.FirstOrderMAML) else 1.0,
            )
        )
    return average(rows)
