"""Golden vectors: every array against its formula, by independent oracles."""

import json

import numpy as np
import pytest
from golden_cases import FILES, KNOWN, ROOT, along, case, close, load

from refmaml.golden.problems import MARGIN, terms
from refmaml.methods import CAVIA, IMAML, R2D2, MAMLPlusPlus, MetaSGD, Reptile
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.oracles import closed_forms, complex_step, dense
from refmaml.oracles.closed_forms import QuadraticTask
from refmaml.oracles.method_checks import truth_by_steps
from refmaml.oracles.solved_heads import features, one_hot, ridge_weights
from refmaml.oracles.tolerance import relative_error, tolerance
from refmaml.quadratic import Quadratic

# ---- inputs --------------------------------------------------------------------------


def test_inputs_and_step_sizes_are_exact_in_float32(golden):
    for name, problem in KNOWN.items():
        given = list(load(golden, name).items())[:6] + [
            (key, load(golden, f"{name}.{key}")["meta"]) for key in problem.methods
        ]
        for array_name, a in given:
            assert a.dtype.kind == "i" or np.array_equal(a, a.astype(np.float32)), array_name


def test_no_right_float32_implementation_meets_a_kink(golden):
    manifest = json.loads((golden / "manifest.json").read_text())
    margins = {name: problem["kink_margin"] for name, problem in manifest["problems"].items()}
    assert (
        all(margins[name] > MARGIN for name in ("conv", "strided", "film", "uneven", "ties"))
        and margins["mlp"] is None
    )


# ---- formulas, each by an oracle -----------------------------------------------------


@pytest.mark.parametrize("name, key", FILES)
def test_every_inner_step_is_a_step_along_the_gradient_by_the_complex_step(golden, name, key):
    net, method, batch, a, limit = case(golden, name, key)
    if "inner_grad" not in a:
        return
    x, y, rng = batch.x_support, batch.y_support, np.random.default_rng(0)
    v = np.zeros_like(a["phi"][0])
    for k, (phi, g, A) in enumerate(zip(a["phi"], a["inner_grad"], a["A"], strict=False)):
        places = a["mini_batches"][k] if "mini_batches" in a else slice(None)
        for _ in range(3):
            d = rng.standard_normal(phi.shape)
            derivative = along(lambda w, p=places: net.loss(w, x[:, p], y[:, p]), phi, d)
            close(
                (g * d).sum(axis=1), derivative, limit * np.sqrt(net.num_params)
            )  # a product of two vectors may cancel
        step = g
        if getattr(method, "optimizer", "sgd") == "adam":
            v = method.beta2 * v + (1 - method.beta2) * g**2
            step = g / (np.sqrt(v / (1 - method.beta2 ** (k + 1))) + method.eps)
        close(a["phi"][k + 1], phi - A * step)


@pytest.mark.parametrize("name", list(KNOWN))
def test_inner_gradients_are_right_entry_by_entry(golden, name):
    net, method, batch, a, limit = case(golden, name, "maml-1")
    for t in range(len(batch)):
        x, y = batch.x_support[t : t + 1], batch.y_support[t : t + 1]
        truth = complex_step.gradient(
            lambda w, x=x, y=y: net.loss(
                w,
                np.broadcast_to(x, (len(w), *x.shape[1:])),
                np.broadcast_to(y, (len(w), *y.shape[1:])),
            ),
            a["phi"][0, t],
        )
        close(a["inner_grad"][0, t], truth, limit)


@pytest.mark.parametrize("name, key", FILES)
def test_the_adjoint_recursion_holds_with_products_by_the_complex_step(golden, name, key):
    net, method, batch, a, limit = case(golden, name, key)
    if not isinstance(method, DifferentiatedLoop):
        return
    x, y = batch.x_support, batch.y_support
    after = (
        a["query_grads"]
        if "query_grads" in a
        else [0] * (method.inner_steps - 1) + [a["query_grad"]]
    )
    weights = getattr(method, "loss_weights", None) or [1] * method.inner_steps
    close(a["lam"][-1], weights[-1] * after[-1])
    for k in range(method.inner_steps - 1, -1, -1):
        close(
            a["hvp"][k],
            along(lambda w: net.gradient(w, x, y), a["phi"][k], a["A"][k] * a["lam"][k + 1]),
            limit,
        )
        close(
            a["lam"][k],
            a["lam"][k + 1] - a["hvp"][k] + (weights[k - 1] * after[k - 1] if k > 0 else 0),
        )


@pytest.mark.parametrize("name, key", FILES)
def test_query_gradients_and_losses_are_those_at_the_last_point(golden, name, key):
    net, method, batch, a, limit = case(golden, name, key)
    d = np.random.default_rng(0).standard_normal(a["phi"][-1].shape)

    def loss(w):
        return net.loss(w, batch.x_query, batch.y_query)

    close(
        (a["query_grad"] * d).sum(axis=1),
        along(loss, a["phi"][-1], d),
        limit * np.sqrt(net.num_params),
    )
    weights = getattr(method, "loss_weights", None) or [1]
    losses = [loss(phi.astype(complex)).real for phi in a["phi"][-len(weights) :]]
    close(a["task_losses"], sum(w * value for w, value in zip(weights, losses, strict=True)), limit)


def of_a_ridge_head(net, batch, a):
    """q and (dX/dtheta)' dfeatures, 0 for the last layer; then three numbers."""
    P, q, (ell, _, _) = net.num_params, a["query_grad"], a["meta"][net.num_params :]

    def inner_product(theta):  # <X, dfeatures> of each task at one theta
        X = features(net, theta[None], batch.x_support)
        return (X * a["dfeatures"]).sum(axis=(1, 2))

    steps = (complex_step.shifted(a["meta"][:P], e) for e in np.eye(P))
    through = np.stack([complex_step.derivative(inner_product(at)) for at in steps], axis=1)
    last = net.parameters.views(q)[-1]
    X, C = a["features"], net.layers[-1].out_features
    W = np.stack(
        [ridge_weights(X[t], one_hot(y, C), np.exp(ell)).T for t, y in enumerate(batch.y_support)]
    )
    dell = -np.exp(ell) * (a["u"] * W).sum(axis=(1, 2))
    dalpha, dbeta = (
        (last["weight"] * W).sum(axis=(1, 2)),
        last.get("bias", 0 * W[..., 0]).sum(axis=1),
    )
    return [(q + through) * ~net.mask(("head",)), np.stack([dell, dalpha, dbeta], axis=1)]


@pytest.mark.parametrize("name, key", FILES)
def test_the_meta_gradient_is_what_its_formula_makes_of_the_intermediates(golden, name, key):
    net, method, batch, a, limit = case(golden, name, key)
    P, parts = net.num_params, []
    if isinstance(method, Reptile):
        parts = [a["meta"] - a["phi"][-1]]
    elif isinstance(method, IMAML):
        parts = [a["u"]]
    elif isinstance(method, R2D2):
        parts = of_a_ridge_head(net, batch, a)
    else:
        first = a["lam"][0] if "lam" in a else a["query_grad"]
        parts = [first * (1 - net.mask(("context",))) if isinstance(method, CAVIA) else first]
    if isinstance(method, (MetaSGD, MAMLPlusPlus)):
        of_rates = -a["inner_grad"] * a["lam"][1:]
        if isinstance(method, MetaSGD):
            parts.append(of_rates.sum(axis=0) * (a["meta"][P:] != 0))
        else:
            parts += [
                of_rates[k][:, block].sum(axis=1, keepdims=True)
                for k in range(len(of_rates))
                for block in net.blocks
            ]
    close(a["grad"], np.concatenate(parts, axis=1).mean(axis=0), limit)
    assert a["grad_float32"].dtype == np.float32
    close(a["grad_float32"], a["grad"], tolerance(np.float32, terms(net, method, batch)))


@pytest.mark.parametrize(
    "key, formula, arguments",
    [
        ("maml-3", closed_forms.maml_gradient, (0.25, 3)),
        ("maml-1", closed_forms.maml_gradient, (0.25, 1)),
        ("fomaml-3", closed_forms.first_order_gradient, (0.25, 3)),
        ("reptile-3", closed_forms.reptile_direction, (0.25, 3)),
        ("imaml-solved", closed_forms.imaml_gradient, (2.0,)),
    ],
)
def test_on_quadratics_every_result_is_the_closed_form(golden, key, formula, arguments):
    net, method, batch, a, limit = case(golden, "quadratic", key)
    tasks = [
        QuadraticTask(*task)
        for task in zip(batch.x_support, batch.y_support, batch.x_query, batch.y_query, strict=True)
    ]
    close(
        a["grad"], np.mean([formula(task, a["meta"], *arguments) for task in tasks], axis=0), limit
    )


@pytest.mark.parametrize(
    "name, key",
    [
        ("conv", "mamlpp-3"),
        ("conv", "meta-sgd-2-frozen-bn"),
        ("strided", "maml-3-frozen-bn"),
        ("film", "cavia-2"),
        ("two-layer-linear", "anil-3"),
        ("mlp", "imaml-solved"),
    ],
)
def test_whole_meta_gradients_are_the_complex_step_s_through_the_inner_loop(golden, name, key):
    net, method, batch, a, limit = case(golden, name, key)
    if isinstance(method, IMAML):  # the oracle's solver is gradient descent
        method = IMAML(method.regularization, inner_lr=0.2)
    close(a["grad"], truth_by_steps(method, net, a["meta"], batch), limit)


@pytest.mark.parametrize("name, key", [case for case in FILES if case[1].startswith("imaml")])
def test_implicit_gradients_solve_their_system(golden, name, key):
    net, method, batch, a, limit = case(golden, name, key)
    x, y, strength = batch.x_support, batch.y_support, method.regularization
    close(a["hvp"], along(lambda w: net.gradient(w, x, y), a["phi"][-1], a["u"]), limit)
    if key == "imaml-solved":
        close(a["u"] + a["hvp"] / strength, a["query_grad"], limit)
        pull = strength * (a["phi"][-1] - a["meta"])
        close(net.gradient(a["phi"][-1], x, y), -pull, limit)
        return
    for k, phi in enumerate(a["phi"][:-1]):
        g = net.gradient(phi, x, y)
        close(a["phi"][k + 1], phi - method.inner_lr * (g + strength * (phi - a["meta"])), limit)
    for t in range(len(batch)):
        A = (
            np.eye(net.num_params)
            + dense_hessian(net, a["phi"][-1, t], x[t : t + 1], y[t : t + 1]) / strength
        )
        b = a["query_grad"][t]
        iterates = [b * 0, *(best_in_krylov(A, b, m) for m in range(1, method.cg_steps + 1))]
        close(a["u"][t], iterates[-1], limit)
        close(a["cg_residuals"][:, t], [np.linalg.norm(b - A @ x) for x in iterates], limit)


def dense_hessian(net, w, x, y):
    return x[0] if isinstance(net, Quadratic) else dense.hessian(net, w, x, y)


def best_in_krylov(A, b, m):
    """The x in span(b, Ab, .., A^(m-1) b) with b - Ax orthogonal to that space.

    This is the result of m iterations of CG.
    """
    V = b[:, None] / np.linalg.norm(b)
    for _ in range(m - 1):
        w = A @ V[:, -1]
        for _ in range(2):  # twice is enough for orthogonality to rounding
            w = w - V @ (V.T @ w)
        V = np.column_stack([V, w / np.linalg.norm(w)])
    return V @ np.linalg.solve(V.T @ A @ V, V.T @ b)


# ---- the guide -----------------------------------------------------------------------


@pytest.mark.parametrize("name", list(KNOWN))
def test_the_guide_is_right_about_wrong_hessians_on_every_net(golden, name):
    """First order, H doubled, H negated: errors over 5 % of the largest entry."""
    net, method, batch, a, _ = case(golden, name, "maml-1")
    q, correction = a["lam"][1], a["hvp"][0]
    for factor in (0, 2, -1):
        assert relative_error((q - factor * correction).mean(axis=0), a["grad"]) > 0.05


def test_the_guide_names_every_net_and_only_those(golden):
    guide = (ROOT / "docs" / "golden.md").read_text()
    assert all(f"| `{name}` |" in guide for name in KNOWN)
    table = guide[guide.index("| net |") :].split("\n\n")[0]
    assert table.count("\n| `") == len(KNOWN)
