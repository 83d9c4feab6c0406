"""The intermediate arrays of a method, and the formula of each."""

from dataclasses import replace

import numpy as np

from refmaml.methods import IMAML, R2D2, MAMLPlusPlus, Reptile
from refmaml.methods.features import body_of
from refmaml.methods.inner_loop import InnerLoop
from refmaml.methods.solved_head import of_head

INPUTS = {
    "theta": "(P,) the parameters",
    "v": "(P,) a direction",
    "x_support": "(T, N, ...) inputs of the support sets; quadratic: (T, P, P) the matrices A of f",
    "y_support": "(T, N) labels or (T, N, D) targets of the support sets; quadratic: "
    "(T, P) the centres c of f",
    "x_query": "as x_support, of the query loss g",
    "y_query": "as y_support, of the query loss g",
    "support_loss": "(T,) f(theta)",
    "support_grad": "(T, P) grad f(theta)",
    "support_hvp": "(T, P) H v, H the Hessian of f at theta",
    "support_gnvp": "(T, P) J' H_L J v: J the Jacobian of the outputs in theta, H_L the "
    "Hessian of the loss in the outputs",
    "y": "y.i: (T, N, ...) the output of layer i",
    "dy": "dy.i: d f / d y.i",
    "ry": "ry.i: the derivative of y.i along v",
    "rdy": "rdy.i: the derivative of dy.i along v",
}

LOOP = {
    "meta": "(M,) what is differentiated by: theta, then the method's learned rates",
    "A": "(K, P) step sizes",
    "phi": "(K+1, T, P) phi[0] = theta; phi[k+1] = phi[k] - A[k] * inner_grad[k]",
    "inner_grad": "(K, T, P) grad f at phi[k]",
    "query_grad": "(T, P) q = grad g at phi[K]",
    "lam": "(K+1, T, P) lam[K] = query_grad; lam[k] = lam[k+1] - hvp[k]",
    "hvp": "(K, T, P) H (A[k] * lam[k+1]), H the Hessian of f at phi[k]",
    "task_losses": "(T,) g(phi[K])",
    "grad": "(M,) mean over tasks of lam[0]",
    "grad_float32": "(M,) grad by refmaml in float32: what float32 can be expected to reach",
}

ON_HEAD = "(K, P) step sizes: alpha on the last layer with parameters, 0 elsewhere"
FIRST_ORDER = "(1, T, P) lam[0] = query_grad"

BY_METHOD = {
    "ERM": {
        "phi": "(1, T, P) phi[0] = theta",
        "query_grad": "(T, P) grad g(theta)",
        "task_losses": "(T,) g(theta)",
        "grad": "(M,) mean over tasks of query_grad",
    },
    "FirstOrderMAML": {"lam": FIRST_ORDER},
    "ANIL": {"A": ON_HEAD},
    "FirstOrderANIL": {"A": ON_HEAD, "lam": FIRST_ORDER},
    "MetaSGD": {
        "meta": "(2P,) theta, then a step size for every parameter",
        "A": "(K, P) the same in every step: meta[P:]",
        "grad": "(2P,) mean over tasks of lam[0], then of sum_k -inner_grad[k] * "
        "lam[k+1] (0 where a parameter is frozen)",
    },
    "MAMLPlusPlus": {
        "meta": "(P + K L,) theta, then alpha (K, L): for each step one for each named array",
        "A": "(K, P) alpha[k, l] on the parameters of array l",
        "query_grads": "(K, T, P) grad g at phi[1] .. phi[K]",
        "lam": "(K+1, T, P) lam[K] = v_K query_grads[K-1]; lam[k] = lam[k+1] - hvp[k] + "
        "v_k query_grads[k-1], "
        "the last term for k > 0; v: loss_weights",
        "task_losses": "(T,) sum over k = 1..K of v_k g(phi[k])",
        "grad": "(M,) mean over tasks of lam[0], then of sum over the parameters of "
        "array l of -inner_grad[k] * lam[k+1]",
    },
    "CAVIA": {
        "phi": "(K+1, T, P) phi[0] = theta with 0 for the context; phi[k+1] = phi[k] - "
        "A[k] * inner_grad[k]",
        "A": "(K, P) step sizes: alpha on the context, 0 elsewhere",
        "grad": "(M,) mean over tasks of lam[0], 0 on the context",
    },
    "Reptile": {
        "mini_batches": "(K, B) the support examples that step k sees, in every task",
        "inner_grad": "(K, T, P) grad f at phi[k] on mini_batches[k]",
        "phi": "(K+1, T, P) phi[0] = theta; sgd: phi[k+1] = phi[k] - A[k] * "
        "inner_grad[k]; adam: v[k+1] = beta2 v[k] + (1 - beta2) "
        "inner_grad[k]^2 from v[0] = 0, phi[k+1] = phi[k] - A[k] * inner_grad[k] / "
        "(sqrt(v[k+1] / (1 - beta2^(k+1))) + eps)",
        "grad": "(M,) mean over tasks of theta - phi[K]",
    },
    "IMAML": {
        "phi": "gradient_descent: (K+1, T, P) phi[0] = theta, phi[k+1] = phi[k] - "
        "inner_lr (grad f(phi[k]) + lambda (phi[k] - "
        "theta)); newton_cg: (2, T, P) theta, and the minimiser phi* of f(phi) + "
        "lambda/2 |phi - theta|^2",
        "u": "(T, P) x after cg_steps iterations of conjugate gradients on (I + "
        "H/lambda) x = query_grad from x = 0, H the "
        "Hessian of f at the last phi (newton_cg: its solution)",
        "hvp": "(T, P) H u",
        "cg_residuals": "(iterations + 1, T) |query_grad - (I + H/lambda) x| after 0, "
        "1, ... iterations",
        "query_grad": "(T, P) q = grad g at the last phi",
        "grad": "(M,) mean over tasks of u",
    },
    "R2D2": {
        "meta": "(P + 3,) theta, log lambda, alpha, beta",
        "features": "(T, N, F) X: what the last layer reads of x_support at theta",
        "phi": "(2, T, P) phi[0] = theta; phi[1] = theta with alpha W for the last weight and "
        "beta for each last bias, W (C, F) = Y'X (X'X + lambda I)^-1, Y (N, C) the targets, or "
        "labels as unit vectors",
        "query_grad": "(T, P) q = grad g at phi[1]",
        "u": "(T, C, F) U = alpha q_w (X'X + lambda I)^-1, q_w the last weight's part of q",
        "dfeatures": "(T, N, F) (Y - X W') U - X U' W: d g / d X",
        "task_losses": "(T,) g(phi[1])",
        "grad": "(P + 3,) mean over tasks of q + (dX/dtheta)' dfeatures, with 0 for the last "
        "layer, then of -lambda <U, W>, <q_w, W>, and the sum of q over the last bias",
    },
}


def meaning(method, name):
    """The formula of an array of a method's file."""
    return (LOOP | BY_METHOD.get(type(method).__name__, {}))[name]


def intermediates(net, method, meta, batch):
    """{name: array} of one method, in float64 but for grad_float32."""
    out = method.meta_gradient(net, meta, batch, trace=True)
    phi = points(net, method, meta, batch, out)
    arrays = {
        "meta": meta,
        "phi": np.stack(phi),
        "query_grad": net.gradient(phi[-1], batch.x_query, batch.y_query),
    }
    arrays |= {
        name: np.stack(out.trace[name])
        for name in ("inner_grad", "lam", "hvp")
        if out.trace.get(name)
    }
    if isinstance(method, InnerLoop):
        arrays["A"] = np.stack(method.start(net, meta)[1])
    arrays |= OF_METHOD.get(type(method), lambda *_: {})(net, method, meta, batch, out)
    single = method.meta_gradient(net, meta.astype(np.float32), batch).grad
    return arrays | {"task_losses": out.task_losses, "grad": out.grad, "grad_float32": single}


def points(net, method, meta, batch, out):
    """[phi_0, .., phi_K], each (T, P), of a method with the MetaGradient `out`.

    iMAML traces the first and the last. For gradient descent those between are solves
    with fewer steps.
    """
    phi = list(out.trace["phi"])
    if isinstance(method, IMAML) and method.solver == "gradient_descent":
        phi[1:1] = [
            replace(method, inner_steps=k).adapt(net, meta, batch.x_support, batch.y_support)
            for k in range(1, method.inner_steps)
        ]
    return phi


def of_weighted_losses(net, method, meta, batch, out):
    """MAML++: the query gradient after each step."""
    return {
        "query_grads": np.stack(
            [net.gradient(phi, batch.x_query, batch.y_query) for phi in out.trace["phi"][1:]]
        )
    }


def of_reptile(net, method, meta, batch, out):
    """Reptile: its mini-batches and their gradients."""
    places = method.mini_batches(batch.x_support.shape[1])
    x, y = batch.x_support, batch.y_support
    return {
        "mini_batches": np.stack(places).astype(np.int64),
        "inner_grad": np.stack(
            [
                net.gradient(phi, x[:, p], y[:, p])
                for phi, p in zip(out.trace["phi"], places, strict=False)
            ]
        ),
    }


def of_implicit(net, method, meta, batch, out):
    """iMAML: its linear system."""
    u, primal = (
        out.trace["u"][0],
        net.primal(out.trace["phi"][-1], batch.x_support, batch.y_support),
    )
    # The number of iterations of a solve to rounding depends on the roundings: no
    # other implementation can reproduce it.
    residuals = (
        {}
        if method.solver == "newton_cg"
        else {"cg_residuals": np.concatenate(out.trace["cg_residuals"], axis=1).T}
    )
    return {"u": u, "hvp": net.hvp(primal, u), **residuals}


def of_solved_head(net, method, meta, batch, out):
    """R2-D2: its features, their adjoint, and the adjoint system's solution."""
    here = method.solve(net, body_of(net), meta, batch.x_support, batch.y_support)
    q = out.trace["query_grad"][0]
    dX, _, adjoints = method.head.backward(net.kernels, here.solved, *of_head(net, q))
    return {"features": here.solved.system.x, "u": adjoints.U, "dfeatures": dX}


OF_METHOD = {
    MAMLPlusPlus: of_weighted_losses,
    Reptile: of_reptile,
    IMAML: of_implicit,
    R2D2: of_solved_head,
}
