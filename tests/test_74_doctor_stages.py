"""Stages that a function returns beside its gradient are compared one by one."""

import numpy as np
import pytest
from implementations import MAML, adapting, average, descend, plus, tasks, times
from wrong_implementations_stages import located, times_factor, with_wrong_derivatives

import refmaml as rm


def returned(problem, params, batch, wrong=None, **more):
    """MAML with every stage, as a dict."""
    p, A, K = (
        with_wrong_derivatives(problem, **(wrong or {})),
        adapting(problem, params),
        problem.method.inner_steps,
    )
    rows = {
        "grad": [],
        "loss": [],
        "inner_grad": [[] for _ in range(K)],
        "phi": [[] for _ in range(K)],
        "query_grad": [],
        "hvp": [[] for _ in range(K)],
    }
    for xs, ys, xq, yq in tasks(batch):
        phis = descend(p, params, xs, ys, A, K)
        lam = p.query(phis[-1], xq, yq)
        rows["loss"].append(problem.loss(phis[-1], xq, yq))
        rows["query_grad"].append(lam)
        for k in range(K - 1, -1, -1):
            product = p.hvp(phis[k], xs, ys, times(A, lam))
            rows["inner_grad"][k].append(p.gradient(phis[k], xs, ys))
            rows["phi"][k].append(phis[k + 1])
            rows["hvp"][k].append(product)
            lam = plus(-1, product, lam)
        rows["grad"].append(lam)

    def stacked(of_tasks):
        return {n: np.stack([r[n] for r in of_tasks]) for n in of_tasks[0]}

    return {
        "grad": average(rows["grad"]),
        "loss": rows["loss"],
        "query_grad": stacked(rows["query_grad"]),
        **{name: [stacked(step) for step in rows[name]] for name in ("inner_grad", "phi", "hvp")},
        **more,
    }


def test_stages_of_a_right_function_are_read_and_agree():
    assert rm.check_meta_gradient(returned, MAML, probes=("mlp",), repeats=0)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"gradient": times_factor("2.bias", 1.3)}, ("inner gradient", "2.bias")),
        ({"query": times_factor("2.weight", 1.3)}, ("query gradient", "2.weight")),
        ({"hvp": times_factor("0.weight", 1.3)}, ("Hessian-vector product", "0.weight")),
    ],
)
def test_returned_stages_are_compared_one_by_one(wrong, expected):
    assert located(lambda *a: returned(*a, wrong=wrong)) == expected


def test_a_loss_and_adapted_parameters_in_a_tuple_are_compared_too():
    def function(problem, params, batch):
        out = returned(problem, params, batch)
        distorted = {n: g + 0.01 * g**2 for n, g in out["grad"].items()}
        return distorted, np.mean(out["loss"]) * 1.1, out["phi"][-1]

    assert located(function) == ("query loss", "")
