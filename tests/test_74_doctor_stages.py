"""Stages that a function returns beside its gradient are compared one by one."""

import numpy as np
import pytest
from implementations import MAML, adapting, average, descend, plus, tasks, times
from wrong_implementations_stages import located, times_factor, with_wrong_derivatives

import refmaml as rm

pytestmark = pytest.mark.slow


def returned(problem, params, batch, wrong=None, factor=1, leave_out=(), **more):
    """MAML with every stage, as a dict.

    factor      on the step size; leave_out: stages that are not returned
    """
    p, A, K = (
        with_wrong_derivatives(problem, **(wrong or {})),
        times(factor, adapting(problem, params)),
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

    out = {
        "grad": average(rows["grad"]),
        "loss": rows["loss"],
        "query_grad": stacked(rows["query_grad"]),
        **{name: [stacked(step) for step in rows[name]] for name in ("inner_grad", "phi", "hvp")},
        **more,
    }
    return {name: value for name, value in out.items() if name not in leave_out}


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


# ---- each stage at the function's own inputs -----------------------------------------


def test_a_step_that_is_too_long_is_no_wrong_inner_gradient():
    """The inner gradients after it are right, at the function's own parameters."""
    report = rm.check_meta_gradient(
        lambda *a: returned(*a, factor=8), MAML, probes=("two-layer",), repeats=0,
        precision="float64",
    )  # fmt: skip
    assert report.verdict == "wrong" and "the step, 8 times too long" in report.diagnosis
    assert any("the step, inner step 1, 8 times too long" in f for f in report.findings)
    assert "inner gradient, " not in str(report)


def distorted_steps(problem, params, batch):
    """The second step goes astray; every inner gradient is right where it is taken."""
    out = returned(problem, params, batch)
    out["phi"][1] = {n: p + 0.01 * np.sin(p) for n, p in out["phi"][1].items()}
    net, x, y = problem.net, batch.x_support, batch.y_support
    rows = np.stack([net.flat({n: p[t] for n, p in out["phi"][1].items()}) for t in range(len(x))])
    g = net.gradient(rows, x, y)
    out["inner_grad"][2] = {n: np.stack([net.named(r)[n] for r in g]) for n in params}
    out["grad"] = {n: g + 0.01 * g**2 for n, g in out["grad"].items()}
    return out


def test_a_step_that_goes_astray_is_found_at_the_step():
    assert located(distorted_steps) == ("step", "0.weight")


def test_every_stage_right_and_the_way_back_wrong_is_a_result():
    report = rm.check_meta_gradient(
        lambda *a: returned(*a, wrong={"hvp": times_factor("0.weight", 1.3)}, leave_out=("hvp",)),
        MAML, probes=("mlp",), repeats=0, precision="float64", seconds=0.5,
    )  # fmt: skip
    assert report.stages[0] == ("Hessian-vector product", "0.weight"), str(report)
    assert "every stage that was returned is right" in report.diagnosis


def test_the_way_back_is_named_on_a_net_of_one_s_own():
    """Such a function cannot be called under other conditions."""
    net = rm.mlp((3, 8, 2), activation="tanh")
    method = rm.MAML(0.3, 2)

    class Own:
        gradient = staticmethod(lambda w, x, y: net.named(of_one(net.gradient, w, x, y)))
        hvp = staticmethod(lambda w, x, y, v: net.named(product(net, w, x, y, v)))
        loss = staticmethod(lambda w, x, y: of_one(loss_of(net), w, x, y))

    Own.net, Own.method = net, method

    def of_one(function, w, x, y):
        return function(net.flat(w)[None], x[None], y[None])[0]

    def function(params, batch):
        off = {"hvp": times_factor("0.bias", 0.5)}
        return returned(Own, params, batch, wrong=off, leave_out=("hvp",))

    report = rm.check_meta_gradient(
        function, method, net=net, precision="float64", repeats=0, seconds=2
    )
    assert report.verdict == "wrong" and report.stages == (("way back", ""),), str(report)
    assert "the second derivative of an operation" in report.diagnosis and report.fix


def loss_of(net):
    return lambda w, x, y: net.primal(w, x, y).loss


def product(net, w, x, y, v):
    return net.hvp(net.primal(net.flat(w)[None], x[None], y[None]), net.flat(v)[None])[0]
