"""Mistakes that the dictionary does not have are wrong, unnamed, and located.

The location is the first stage and tensor that disagree.
"""

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
    descend,
    maml,
    meta_sgd,
    one_task,
    plus,
    proximal,
    tasks,
    times,
)
from torch_implementations import torch_adapt, torch_rates
from wrong_implementations_stages import located, recursion, times_factor, with_wrong_derivatives

import refmaml as rm

pytestmark = pytest.mark.slow

SMOOTH = ("quadratic", "mlp")


@pytest.mark.parametrize("name", ["0.weight", "2.bias"])
def test_an_inner_gradient_that_is_off_in_one_tensor_is_found_from_the_meta_gradient_alone(name):
    assert located(lambda *a: recursion(*a, gradient=times_factor(name, 1.3))) == (
        "inner gradient",
        name,
    )


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "2.weight"])
def test_a_hessian_vector_product_that_is_off_in_one_tensor_is_found(name):
    assert located(lambda *a: recursion(*a, hvp=times_factor(name, 0.9))) == (
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
            for phi, after in zip(phis[-2::-1], phis[:0:-1], strict=True):
                between = plus(0.3, plus(-1, phi, after), phi)  # H between phi_k and phi_{k+1}
                lam = plus(-1, problem.hvp(between, xs, ys, times(A, lam)), lam)
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
                g = problem.gradient(phis[-1], xs, ys)
                shrunk = {n: g[n] * (0.7**k if n == "0.weight" else 1) for n in g}
                phis.append(plus(-1, times(A, shrunk), phis[-1]))
            lam = problem.gradient(phis[-1], xq, yq)
            for k in range(problem.method.inner_steps - 1, -1, -1):
                part = {n: lam[n] * (0.7**k if n == "0.weight" else 1) for n in lam}
                lam = plus(-1, problem.hvp(phis[k], xs, ys, times(A, part)), lam)
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
    ("method", "wrong", "expected"),
    [
        (FOMAML, {"gradient": times_factor("2.weight", 1.3)}, ("inner gradient", "2.weight")),
        (ANIL, {"hvp": times_factor("0.weight", 0.9)}, ("Hessian-vector product", "0.weight")),
    ],
)
def test_a_wrong_stage_of_other_methods_with_an_inner_loop_is_located(method, wrong, expected):
    assert located(lambda *a: recursion(*a, **wrong), method) == expected


def test_a_wrong_stage_of_reptile_is_located():
    def function(problem, params, batch):
        p = with_wrong_derivatives(problem, gradient=times_factor("0.bias", 1.3))
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

    assert located(function, REPTILE) == ("inner gradient", "0.bias")


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"hvp": times_factor("2.weight", 0.9)}, ("linear system", None)),
        ({"query": times_factor("0.weight", 1.1)}, ("query gradient", "0.weight")),
    ],
)
def test_a_wrong_stage_of_imaml_is_located(wrong, expected):
    def function(problem, params, batch):
        p, lam, rows = with_wrong_derivatives(problem, **wrong), problem.method.regularization, []
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

    stage, tensor = located(function, IMAML)
    assert stage == expected[0] and expected[1] in (None, tensor)


def test_a_wrong_stage_of_meta_sgd_is_located():

    function = located(
        lambda p, w, b: meta_sgd(
            with_wrong_derivatives(p, hvp=times_factor("2.weight", 0.9)), w, b
        ),
        META_SGD,
    )
    assert function == ("Hessian-vector product", "2.weight")


@pytest.mark.frameworks("torch")
def test_a_single_detached_inner_gradient_in_torch_is_located():
    import torch

    def function(problem, params, batch):
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

    stage, _ = located(function, framework="torch")
    assert stage == "Hessian-vector product"


def test_a_function_that_fails_under_other_conditions_is_still_wrong():
    def particular(problem, params, batch):
        assert problem.name == "mlp" and len(batch.x_query) > 1
        return {n: g + 0.1 * g**2 for n, g in maml(problem, params, batch).items()}

    report = rm.check_meta_gradient(
        particular, MAML, probes=("mlp",), precision="float64", repeats=0, seconds=0.5
    )
    assert (
        report.verdict == "wrong"
        and not report.stages
        and "first seen on the mlp case, in" in report.diagnosis
    )


def test_batch_norm_frozen_on_queries_is_recognised_on_an_own_net():
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
            s[...] = 1 / np.sqrt(0.37 + eps)  # running statistics of another data set
            xh[...] = s[:, None, :, None] * (x - 0.21)
            y[...] = gamma[:, None, :, None] * xh + beta[:, None, :, None]

        def backward(dx, dgamma, dbeta, dy, xh, s, gamma):
            dgamma[...], dbeta[...] = (dy * xh).sum(axis=(1, 3)), dy.sum(axis=(1, 3))
            dx[...] = (s * gamma)[:, None, :, None] * dy

        return layer_kernels.replace(batch_norm_forward=forward, batch_norm_backward=backward)

    judged = net.with_kernels(frozen(net.kernels))

    def function(params, batch):
        theta = net.flat(params)
        phi = MAML.adapt(net, theta, batch.x_support, batch.y_support)
        return judged.gradient(phi, batch.x_query, batch.y_query).mean(axis=0)

    stage, _ = located(function, FOMAML, net=net, probes=None)
    assert stage == "batch-norm"


def test_right_functions_stay_right():
    assert rm.check_meta_gradient(lambda *a: recursion(*a), MAML, probes=("mlp",), repeats=0)
    assert rm.check_meta_gradient(maml, ANIL, probes=("mlp",), repeats=0)
