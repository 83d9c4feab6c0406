"""Rungs 2 to 6 for whole nets and methods: gradients, Hessian products, meta-gradients."""

from dataclasses import replace

import numpy as np

from refmaml.methods import FirstOrderMAML
from refmaml.oracles import cases, complex_step, dense, finite_differences, kinks, unrolled
from refmaml.oracles.tolerance import Check, relative_error, tolerance


def net_terms(net, examples):
    """How many numbers one forward pass sums from end to end: inputs and outputs of every layer, for `examples` examples."""
    shape, terms = net.input_shape, 0
    for layer in net.layers:
        terms += np.prod(shape) * examples
        shape = layer.output_shape(shape)
    return int(terms + net.num_params)


def network_checks(net, name, seed=0):
    """Gradient, Hessian and Gauss-Newton products of a whole net against the complex step, dense matrices and symmetry."""
    rng = np.random.default_rng(seed)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, tasks=1)
    x, y = batch.x_support, batch.y_support
    u, v = rng.standard_normal((2, net.num_params))
    primal = net.primal(theta[None], x, y)
    H, G = dense.hessian(net, theta, x, y), dense.gauss_newton(net, theta, x, y)
    gradient = complex_step.gradient(
        lambda W: net.loss(
            W,
            np.broadcast_to(x, (len(W), *x.shape[1:])),
            np.broadcast_to(y, (len(W), *y.shape[1:])),
        ),
        theta,
    )
    Hu, Hv = net.hvp(primal, u[None])[0], net.hvp(primal, v[None])[0]
    scale = np.linalg.norm(u) * np.linalg.norm(
        Hv
    )  # what u'Hv may be at most: it can cancel to nearly 0
    rows = [
        ("2 backward", "gradient", "complex step", relative_error(primal.grad[0], gradient)),
        ("3 r_backward", "H v", "dense H", relative_error(Hv, H @ v)),
        (
            "3 r_backward",
            "G v",
            "dense J'HJ",
            relative_error(net.gauss_newton_product(primal, v[None])[0], G @ v),
        ),
        ("5 algebra", "u'Hv = v'Hu", "symmetry", abs(u @ Hv - v @ Hu) / scale),
    ]
    limit, margin = (
        tolerance(float, net_terms(net, x.shape[1])),
        kinks.net_margin(net, theta[None], x),
    )
    return [
        Check(rung, name, quantity, oracle, error, limit, margin)
        for rung, quantity, oracle, error in rows
    ]


def method_terms(method, net, batch):
    """How many numbers a meta-gradient sums from end to end: forward, backward and product pass through the net once in every
    inner step, and once on the query set."""
    examples = batch.x_support.shape[1] + batch.x_query.shape[1]
    return 3 * (getattr(method, "inner_steps", 0) + 1) * net_terms(net, examples)


def truth_by_steps(method, net, meta, batch):
    """dM/dmeta, mean over tasks, entry by entry: the complex step through the whole inner loop."""
    M = unrolled.BY_METHOD[type(method).__name__]
    tasks = [batch[t : t + 1] for t in range(len(batch))]
    truth = np.mean(
        [complex_step.gradient(lambda W, t=task: M(net, method, t, W), meta) for task in tasks],
        axis=0,
    )
    if (
        type(method).__name__ == "MetaSGD"
    ):  # rates that start, and stay, at 0 are no meta-parameters
        truth[net.num_params :] *= unrolled.masked(net, method)
    return truth


def meta_gradient_check(method, net, meta, batch, truth=None, margin=np.inf, candidate=None):
    """Rung 4: a meta-gradient against the complex step through the whole inner loop.

    truth: that of `truth_by_steps`, where it is at hand already.
    candidate: what is to be judged, a function (net, meta, batch) -> gradient; the method's own meta_gradient unless given.
    """
    truth = truth_by_steps(method, net, meta, batch) if truth is None else truth
    value = (
        candidate(net, meta, batch) if candidate else method.meta_gradient(net, meta, batch).grad
    )
    return Check(
        "4 meta-gradient",
        describe(method),
        "dM/dmeta",
        "complex step",
        relative_error(value, truth),
        tolerance(float, method_terms(method, net, batch)),
        margin,
    )


def describe(method):
    """ "MAML, K = 5", with what is unusual about it."""
    extra = (
        [f"K = {method.inner_steps}"]
        if hasattr(method, "inner_steps") and not hasattr(method, "solver")
        else []
    )
    extra += [
        f"{name} = {getattr(method, name)}"
        for name in ("optimizer", "solver")
        if hasattr(method, name)
    ]
    extra += ["carried moment"] if getattr(method, "moment", "fresh") == "carried" else []
    extra += (
        [f"mini-batches of {method.inner_batch}"] if getattr(method, "inner_batch", None) else []
    )
    extra += ["weighted losses"] if getattr(method, "loss_weights", None) else []
    extra += [f"frozen {', '.join(method.frozen)}"] if getattr(method, "frozen", ()) else []
    return ", ".join([type(method).__name__, *extra])


def reptile_check(method, net, theta, batch):
    """Reptile against its definition, stepped by hand one task at a time; a moment that is carried, from a few tasks on."""
    meta = method.init(net, theta)
    for task in (batch[:1], batch[1:]) if method.moment == "carried" else ():
        meta = meta - 0.5 * method.meta_gradient(net, meta, task).grad
    reference = unrolled.reptile(net, method, meta, batch)
    limit = tolerance(float, method_terms(method, net, batch))
    return Check(
        "4 meta-gradient",
        describe(method),
        "theta - phi_K",
        "stepped by hand",
        relative_error(method.meta_gradient(net, meta, batch).grad, reference),
        limit,
    )


def imaml_dense_check(method, net, theta, batch):
    """iMAML against a dense Hessian and LAPACK, at the inner solution it found itself."""
    moves, truth, condition = unrolled.masked(net, method), np.zeros_like(theta), 1.0
    for t in range(len(batch)):
        task = batch[t : t + 1]
        phi = method.adapt(net, theta, task.x_support, task.y_support)[0]
        H = dense.hessian(net, phi, task.x_support, task.y_support)
        q = net.gradient(phi[None], task.x_query, task.y_query)[0]
        truth += dense.imaml_gradient(H, q, method.regularization, moves) / len(batch)
        condition = max(condition, np.linalg.cond(np.eye(len(theta)) + H / method.regularization))
    value = method.meta_gradient(net, theta, batch).grad
    # CG stops at a relative residual of cg_tol; the error of its solution is at most that times A's condition number.
    limit = tolerance(float, method_terms(method, net, batch)) + method.cg_tol * condition
    return Check(
        "5 algebra", describe(method), "u", "dense H, LAPACK", relative_error(value, truth), limit
    )


def finite_difference_check(method, net, theta, batch):
    """Rung 6: one directional derivative of M from values of M alone."""
    v = np.random.default_rng(0).standard_normal(len(theta))
    v /= np.linalg.norm(v)

    def M(meta):
        phi = method.adapt(net, meta, batch.x_support, batch.y_support)
        return net.loss(phi, batch.x_query, batch.y_query).mean()

    error = relative_error(
        method.meta_gradient(net, theta, batch).grad @ v,
        finite_differences.directional(M, theta, v),
    )
    # M's own rounding, not that of a single number, is what the step divides: eps grows to eps sqrt(terms).
    grown = np.sqrt(method_terms(method, net, batch))
    return Check(
        "6 other",
        describe(method),
        "<dM/dmeta, v>",
        "finite differences",
        error,
        finite_differences.ERROR * grown,
    )


def autodiff_check(library, meta_gradient, method, net, theta, batch):
    """Rung 6: MAML or first-order MAML against an autodiff library in float64."""
    first_order = isinstance(method, FirstOrderMAML)
    truth = meta_gradient(
        net,
        theta,
        batch,
        method.inner_lr,
        method.inner_steps,
        method.adapts,
        method.frozen,
        first_order,
    )
    return Check(
        "6 other",
        describe(method),
        f"{net.num_params} parameters",
        library,
        relative_error(method.meta_gradient(net, theta, batch).grad, truth),
        tolerance(float, method_terms(method, net, batch)),
    )


def precision_check(method, net, theta, batch):
    """The same meta-gradient in float32 against float64."""
    exact = method.meta_gradient(net, theta, batch).grad
    single = method.meta_gradient(net, theta.astype(np.float32), batch).grad
    assert single.dtype == np.float32
    return Check(
        "7 kernels",
        describe(method),
        "dM/dmeta in float32",
        "float64",
        relative_error(single, exact),
        tolerance(np.float32, method_terms(method, net, batch)),
    )


def wrong_gradients(method, net):
    """Wrong meta-gradients of MAML that have been published or shipped: {name: function (net, meta, batch) -> gradient}."""

    class StepByStep(type(net)):
        def unrolled(self, *args, **options):  # so that hvp is asked
            return None

    class Doubled(StepByStep):
        def hvp(self, primal, v):
            return 2 * super().hvp(primal, v)

    class Flipped(StepByStep):
        def hvp(self, primal, v):
            return -super().hvp(primal, v)

    def on(kind):
        return kind(net.layers, net.loss_function, net.input_shape, net.kernels)

    def gradient_of(other, planted=net):
        return lambda _, meta, batch: other.meta_gradient(planted, meta, batch).grad

    def last_step_only(net, meta, batch):
        """The path through the last inner step alone: all before it detached."""
        steps = replace(method, inner_steps=method.inner_steps - 1)
        phi = steps.adapt(net, meta, batch.x_support, batch.y_support)
        one = replace(method, inner_steps=1)
        return np.mean(
            [one.meta_gradient(net, phi[t], batch[t : t + 1]).grad for t in range(len(batch))],
            axis=0,
        )

    return {
        "first-order gradient": gradient_of(cases.first_order_of(method)),
        "H doubled": gradient_of(method, on(Doubled)),
        "H's sign flipped": gradient_of(method, on(Flipped)),
        "last step only": last_step_only,
        "summed over tasks": lambda net, meta, batch: (
            len(batch) * method.meta_gradient(net, meta, batch).grad
        ),
    }


def planted_errors(method, net, theta, batch, truth):
    """What the check of MAML must refuse: {name: Check}, one for each of `wrong_gradients`."""
    return {
        name: meta_gradient_check(method, net, theta, batch, truth, candidate=f)
        for name, f in wrong_gradients(method, net).items()
    }
