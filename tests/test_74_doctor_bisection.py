"""Mistakes that are in no dictionary: called wrong, given no name, and located to the first stage and tensor that disagree."""

from types import SimpleNamespace

import numpy as np
import pytest
from implementations import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    META_SGD,
    REPTILE,
    adapting,
    average,
    back,
    descend,
    dot,
    maml,
    one_task,
    plus,
    proximal,
    tasks,
    times,
)
from torch_implementations import torch_adapt, torch_rates

import refmaml as rm
from refmaml.autodiff.formulas import why_not

SMOOTH = ("quadratic", "mlp")


def located(fn, method=MAML, probes=("mlp",), **options):
    """(stage, tensor) of the first finding, once the verdict is seen to be without a name."""
    options = {"precision": "float64", "repeats": 0, "seconds": 0.5, **options}
    report = rm.check_meta_gradient(fn, method, probes=probes, **options)
    assert report.verdict == "wrong" and report.diagnosis.startswith(
        "no mistake of the dictionary"
    ), str(report)
    assert report.stages, str(report)
    return report.stages[0]


def strange(problem, gradient=None, hvp=None, query=None):
    """The problem with one of its derivatives spoilt: each a function of {name: array}."""
    return SimpleNamespace(
        method=problem.method,
        net=problem.net,
        gradient=lambda w, x, y: (gradient or (lambda g: g))(problem.gradient(w, x, y)),
        hvp=lambda w, x, y, v: (hvp or (lambda h: h))(problem.hvp(w, x, y, v)),
        query=lambda w, x, y: (query or (lambda g: g))(problem.gradient(w, x, y)),
    )


def spoilt(name, factor):
    return lambda named: {n: a * (factor if n == name else 1) for n, a in named.items()}


def recursion(problem, params, batch, **spoil):
    """MAML on spoilt derivatives."""
    p, rows = strange(problem, **spoil), []
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


@pytest.mark.parametrize("name", ["0.weight", "2.bias"])
def test_an_inner_gradient_that_is_off_in_one_tensor_is_found_from_the_meta_gradient_alone(name):
    assert located(lambda *a: recursion(*a, gradient=spoilt(name, 1.3))) == ("inner gradient", name)


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "2.weight"])
def test_a_hessian_vector_product_that_is_off_in_one_tensor_is_found(name):
    assert located(lambda *a: recursion(*a, hvp=spoilt(name, 0.9))) == (
        "Hessian-vector product",
        name,
    )


def test_a_query_gradient_that_is_off_in_one_tensor_is_found():
    def distorted(named):
        return {n: a + 0.01 * a**2 if n == "2.weight" else a for n, a in named.items()}

    assert located(lambda *a: recursion(*a, query=distorted)) == ("query gradient", "2.weight")


def test_a_hessian_at_the_wrong_parameters_is_found_where_steps_move():
    def late(problem, params, batch):
        A, rows = adapting(problem, params), []
        for xs, ys, xq, yq in tasks(batch):
            phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
            lam = problem.gradient(phis[-1], xq, yq)
            for phi in phis[:0:-1]:  # H at phi_{k+1}
                lam = plus(-1, problem.hvp(phi, xs, ys, times(A, lam)), lam)
            rows.append(lam)
        return average(rows)

    stage, _ = located(late)
    assert stage == "one whole inner step"


def test_a_mistake_between_steps_is_found_at_the_second():
    def shrinking(problem, params, batch):
        rows, A = [], adapting(problem, params)
        for xs, ys, xq, yq in tasks(batch):
            phis = [params]
            for k in range(problem.method.inner_steps):
                phis.append(plus(-(0.7**k), times(A, problem.gradient(phis[-1], xs, ys)), phis[-1]))
            lam = problem.gradient(phis[-1], xq, yq)
            for k in range(problem.method.inner_steps - 1, -1, -1):
                lam = plus(-(0.7**k), problem.hvp(phis[k], xs, ys, times(A, lam)), lam)
            rows.append(lam)
        return average(rows)

    stage, _ = located(shrinking)
    assert stage == "inner step 2"


def test_tasks_that_are_not_averaged_are_found():
    def largest(problem, params, batch):
        rows = [one_task(problem, params, *task) for task in tasks(batch)]
        return {n: np.median([r[n] for r in rows], axis=0) for n in rows[0]}

    assert located(largest, probes=SMOOTH) == ("mean over tasks", "")


@pytest.mark.parametrize(
    ("method", "spoil", "expected"),
    [
        (FOMAML, {"gradient": spoilt("2.weight", 1.3)}, ("inner gradient", "2.weight")),
        (ANIL, {"hvp": spoilt("0.weight", 0.9)}, ("Hessian-vector product", "0.weight")),
    ],
)
def test_other_methods_with_an_inner_loop_are_taken_apart_as_well(method, spoil, expected):
    assert located(lambda *a: recursion(*a, **spoil), method) == expected


def test_reptile_is_taken_apart():
    def patient(problem, params, batch):
        p = strange(problem, gradient=spoilt("0.bias", 1.3))
        return average(
            [
                plus(
                    -1,
                    descend(
                        p, params, xs, ys, adapting(problem, params), problem.method.inner_steps
                    )[-1],
                    params,
                )
                for xs, ys, _, _ in tasks(batch)
            ]
        )

    assert located(patient, REPTILE) == ("inner gradient", "0.bias")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        ({"hvp": spoilt("2.weight", 0.9)}, ("linear system", None)),
        ({"query": spoilt("0.weight", 1.1)}, ("query gradient", "0.weight")),
    ],
)
def test_imaml_is_taken_apart(spoil, expected):
    def patient(problem, params, batch):
        p, lam, rows = strange(problem, **spoil), problem.method.regularization, []
        for xs, ys, xq, yq in tasks(batch):
            phi = proximal(problem, params, xs, ys, lam)
            names = list(params)
            sizes = [params[n].size for n in names]

            def flat(named, names=names):
                return np.concatenate([named[n].ravel() for n in names])

            def named(v, names=names, sizes=sizes):
                return {
                    n: part.reshape(params[n].shape)
                    for n, part in zip(names, np.split(v, np.cumsum(sizes)[:-1]), strict=True)
                }

            columns = [flat(p.hvp(phi, xs, ys, named(e))) for e in np.eye(sum(sizes))]
            rows.append(
                named(
                    np.linalg.solve(
                        np.eye(sum(sizes)) + np.stack(columns, axis=1) / lam,
                        flat(p.query(phi, xq, yq)),
                    )
                )
            )
        return average(rows)

    stage, tensor = located(patient, IMAML)
    assert stage == expected[0] and expected[1] in (None, tensor)


def test_meta_sgd_s_step_sizes_are_looked_at_as_well():
    from implementations import meta_sgd

    patient = located(
        lambda p, w, b: meta_sgd(strange(p, hvp=spoilt("2.weight", 0.9)), w, b), META_SGD
    )
    assert patient == ("Hessian-vector product", "2.weight")


def test_a_single_inner_gradient_that_torch_detaches_is_found():
    if reason := why_not("torch"):
        pytest.skip(reason)
    import torch

    def patient(problem, params, batch):
        losses, start = [], {n: p.clone().requires_grad_() for n, p in params.items()}
        for xs, ys, xq, yq in tasks(batch):
            phi, rates = start, torch_rates(problem, params)
            for A in rates:
                new = torch_adapt(problem, phi, [A], xs, ys)[-1]
                phi = {
                    **new,
                    "2.weight": phi["2.weight"] + (new["2.weight"] - phi["2.weight"]).detach(),
                }
            losses.append(problem.loss(phi, xq, yq))
        grads = torch.autograd.grad(torch.stack(losses).mean(), list(start.values()))
        return dict(zip(start, grads, strict=True))

    stage, _ = located(patient, framework="torch")
    assert stage == "Hessian-vector product"


def test_a_function_that_cannot_be_asked_anything_else_is_wrong_all_the_same():
    def particular(problem, params, batch):
        assert problem.name == "mlp" and len(batch.x_query) > 1
        return {n: g + 0.1 * g**2 for n, g in maml(problem, params, batch).items()}

    report = rm.check_meta_gradient(
        particular, MAML, probes=("mlp",), precision="float64", repeats=0, seconds=0.5
    )
    assert (
        report.verdict == "wrong"
        and not report.stages
        and "first seen on the mlp probe, in" in report.diagnosis
    )


# ---- stages that the function returned -------------------------------------------------------------------------------


def returned(problem, params, batch, spoil=None, **more):
    """MAML with everything on the way: an object with grad, loss, inner_grad, phi, query_grad, hvp."""
    p, A, K = (
        strange(problem, **(spoil or {})),
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
    ("spoil", "expected"),
    [
        ({"gradient": spoilt("2.bias", 1.3)}, ("inner gradient", "2.bias")),
        ({"query": spoilt("2.weight", 1.3)}, ("query gradient", "2.weight")),
        ({"hvp": spoilt("0.weight", 1.3)}, ("Hessian-vector product", "0.weight")),
    ],
)
def test_what_the_function_returns_beside_its_gradient_is_compared_stage_by_stage(spoil, expected):
    assert located(lambda *a: returned(*a, spoil=spoil)) == expected


def test_a_loss_and_adapted_parameters_in_a_tuple_are_compared_too():
    def patient(problem, params, batch):
        out = returned(problem, params, batch)
        distorted = {n: g + 0.01 * g**2 for n, g in out["grad"].items()}
        return distorted, np.mean(out["loss"]) * 1.1, out["phi"][-1]

    assert located(patient) == ("query loss", "")


def test_a_net_of_one_s_own_whose_batch_norm_is_frozen_on_queries_is_recognised():
    net = rm.Sequential(
        [
            rm.Conv2d(1, 3, 3, bias=False),
            rm.BatchNorm2d(3, eps=1e-3),
            rm.Tanh(),
            rm.Flatten(),
            rm.Linear(27, 2),
        ],
        rm.CrossEntropy(),
        (1, 5, 5),
    )

    def frozen(layer_kernels):
        def forward(y, xh, s, x, gamma, beta, eps):
            s[...] = 1 / np.sqrt(0.37 + eps)  # running statistics nobody knows
            xh[...] = s[:, None, :, None] * (x - 0.21)
            y[...] = gamma[:, None, :, None] * xh + beta[:, None, :, None]

        def backward(dx, dgamma, dbeta, dy, xh, s, gamma):
            dgamma[...], dbeta[...] = (dy * xh).sum(axis=(1, 3)), dy.sum(axis=(1, 3))
            dx[...] = (s * gamma)[:, None, :, None] * dy

        return layer_kernels.replace(batch_norm_forward=forward, batch_norm_backward=backward)

    judged = net.with_kernels(frozen(net.kernels))

    def patient(params, batch):
        theta = net.flat(params)
        phi = MAML.adapt(net, theta, batch.x_support, batch.y_support)
        return judged.gradient(phi, batch.x_query, batch.y_query).mean(axis=0)

    stage, _ = located(patient, FOMAML, net=net, probes=None)
    assert stage == "batch-norm"


def test_nothing_of_this_costs_a_right_function_its_verdict():
    assert dot({"a": np.ones(2)}, {"a": np.ones(2)}) == 2
    assert rm.check_meta_gradient(lambda *a: recursion(*a), MAML, probes=("mlp",), repeats=0)
    assert rm.check_meta_gradient(maml, ANIL, probes=("mlp",), repeats=0)
