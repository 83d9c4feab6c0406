"""Rung 5: methods on models whose meta-gradients are known in closed form."""

import numpy as np

from refmaml.execution import Sequential
from refmaml.layers import MSE, Linear
from refmaml.methods import (
    ANIL,
    ERM,
    IMAML,
    MAML,
    FirstOrderANIL,
    FirstOrderMAML,
    Reptile,
    conjugate_gradients,
)
from refmaml.models import two_layer_linear
from refmaml.oracles import closed_forms
from refmaml.oracles.closed_forms import QuadraticTask
from refmaml.oracles.tolerance import Check, relative_error, tolerance
from refmaml.quadratic import Quadratic
from refmaml.tasks import LinearRegression, Quadratics, TwoLayerLinear

ALPHA, K, STRENGTH = 0.2, 5, 2.0
SOLVED = {
    "regularization": STRENGTH,
    "inner_steps": 30,
    "solver": "newton_cg",
    "cg_steps": 50,
    "cg_tol": 1e-15,
}

METHODS = [
    (MAML(ALPHA, K), closed_forms.maml_gradient, (ALPHA, K)),
    (FirstOrderMAML(ALPHA, K), closed_forms.first_order_gradient, (ALPHA, K)),
    (Reptile(ALPHA, K), closed_forms.reptile_direction, (ALPHA, K)),
    (IMAML(**SOLVED), closed_forms.imaml_gradient, (STRENGTH,)),
]

LINEAR_METHODS = [
    (MAML, closed_forms.maml_update),
    (FirstOrderMAML, closed_forms.fo_maml_update),
    (ANIL, closed_forms.anil_update),
    (FirstOrderANIL, closed_forms.fo_anil_update),
]


def row(subject, quantity, value, reference, terms):
    return Check(
        "5 closed form",
        subject,
        quantity,
        "closed form",
        relative_error(value, reference),
        tolerance(float, terms),
    )


def quadratic_checks(dim=7):
    """Random quadratics: phi_K, and every method's gradient."""
    batch, net = Quadratics(dim).sample(tasks=5, seed=0), Quadratic(dim)
    theta = net.init(seed=1)
    tasks = [
        QuadraticTask(*task)
        for task in zip(batch.x_support, batch.y_support, batch.x_query, batch.y_query, strict=True)
    ]
    rows = method_rows("quadratics", net, theta, batch, tasks, terms=K * dim * dim)
    phi = MAML(ALPHA, K).adapt(net, theta, batch.x_support, batch.y_support)
    rows.append(
        row(
            "quadratics",
            "phi_K",
            phi,
            [closed_forms.adapted(t, theta, ALPHA, K) for t in tasks],
            K * dim * dim,
        )
    )
    return rows


def method_rows(subject, net, theta, batch, tasks, terms):
    """A row per method: its gradient against the mean over tasks of the closed form."""
    return [
        row(
            subject,
            type(method).__name__,
            method.meta_gradient(net, theta, batch).grad,
            np.mean([formula(t, theta, *arguments) for t in tasks], axis=0),
            terms,
        )
        for method, formula, arguments in METHODS
    ]


def regression_checks(dim=4, k_shot=12):
    """Linear regression by a one-layer net: a quadratic with H = (2/N) X'X."""
    batch = LinearRegression(dim).sample(tasks=5, k_shot=k_shot, k_query=k_shot + 3, seed=0)
    net = Sequential([Linear(dim, 1, bias=False)], MSE(), (dim,))
    theta = net.init(seed=1, dtype=np.float64)
    tasks = [
        QuadraticTask(
            *closed_forms.quadratic_of_regression(X, y[:, 0]),
            *closed_forms.quadratic_of_regression(Z, z[:, 0]),
        )
        for X, y, Z, z in zip(
            batch.x_support, batch.y_support, batch.x_query, batch.y_query, strict=True
        )
    ]
    return method_rows("linear regression", net, theta, batch, tasks, terms=2 * K * dim * k_shot)


def one_dimension_check():
    """dphi*/dtheta = 1 / (1 + f''/lambda) of a quadratic in one dimension.

    The engine's value is the solution of (I + H/lambda) u = 1 by conjugate gradients.
    """
    curvature = np.array([[0.5], [1.0], [3.0]])
    u = conjugate_gradients(lambda v: v + curvature * v / STRENGTH, np.ones((3, 1)), maxiter=2).x
    return row("one dimension", "dphi*/dtheta", u, 1 / (1 + curvature / STRENGTH), 1)


def two_layer_checks(dim=6, rank=2, alpha=0.3):
    """The two-layer linear model on population losses: updates in matrices."""
    model, net = TwoLayerLinear(dim, rank, seed=3), two_layer_linear(dim, rank)
    batch = model.population(tasks=4, seed=0)
    rng = np.random.default_rng(0)
    B, w = rng.standard_normal((dim, rank)), rng.standard_normal(rank)
    theta = np.concatenate([B.T.ravel(), w])
    # A whitened design, X'X / N = I, makes b = B_* w_*t the regression X'y / N itself.
    targets = [
        X.T @ y[:, 0] / len(X) for X, y in zip(batch.x_support, batch.y_support, strict=True)
    ]
    rows = []
    for kind, formula in [*LINEAR_METHODS, (None, closed_forms.erm_update)]:
        method, arguments = (kind(alpha, 1), (alpha,)) if kind else (ERM(), ())
        updates = [formula(B, w, b, *arguments) for b in targets]
        expected = np.concatenate(
            [
                np.mean([dB for dB, _ in updates], axis=0).T.ravel(),
                np.mean([dw for _, dw in updates], axis=0),
            ]
        )
        rows.append(
            row(
                "two-layer linear",
                type(method).__name__,
                method.meta_gradient(net, theta, batch).grad,
                expected,
                4 * dim * dim * rank,
            )
        )
    return rows


def closed_form_checks():
    """Every check of rung 5, as a list."""
    return [*quadratic_checks(), *regression_checks(), one_dimension_check(), *two_layer_checks()]
