"""R2-D2: a head solved by ridge regression on a meta-learned body."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.methods import features, solved_head
from refmaml.methods.ridge_head import RidgeHead
from refmaml.methods.symmetric_solves import transposed_times
from refmaml.oracles import cases, complex_step, method_checks, solved_heads
from refmaml.oracles.solved_head_checks import hvp_check
from refmaml.oracles.tolerance import relative_error, tolerance

K = kernels.reference()
PROMISE = 1e-12  # what the project promises of every derivative in float64
METHOD = rm.R2D2(0.75, 1.75, 0.25)


def vector_net(features, loss, bias=True):
    layers = [rm.Linear(5, features), rm.Tanh(), rm.Linear(features, 3, bias=bias)]
    return rm.Sequential(layers, loss, (5,))


NETS = {
    "convolutions, cross-entropy": cases.smooth_net(),
    "more features than examples": vector_net(9, rm.CrossEntropy()),
    "fewer features than examples": vector_net(3, rm.CrossEntropy("sum")),
    "a regression without bias": vector_net(4, rm.MSE(), bias=False),
    "a linear body": rm.two_layer_linear(6, 2),
}


def case_on(net, seed=0, method=METHOD):
    rng = np.random.default_rng(seed)
    if net.input_shape is None:
        net = rm.Sequential(net.named_layers, net.loss_function, (net.layers[0].in_features,))
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    return net, method.init(net, theta), batch


# ---- the meta-gradient ---------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_a_meta_gradient_is_the_derivative_through_the_solve(name):
    net, meta, batch = case_on(NETS[name])
    check = method_checks.meta_gradient_check(METHOD, net, meta, batch)
    assert check.passed and check.error < PROMISE, check


@pytest.mark.parametrize("name", NETS)
def test_a_second_derivative_is_that_of_the_meta_gradient(name):
    net, meta, batch = case_on(NETS[name])
    check = hvp_check(METHOD, net, meta, batch, name)
    assert check.passed and check.error < PROMISE, check


def test_second_derivatives_are_symmetric_and_wrong_ones_are_refused(monkeypatch):
    net, meta, batch = case_on(NETS["more features than examples"])
    u, v = np.random.default_rng(2).standard_normal((2, len(meta)))
    left, right = u @ METHOD.hvp(net, meta, batch, v), v @ METHOD.hvp(net, meta, batch, u)
    assert abs(left - right) < 1e-12 * abs(left)
    right = solved_head.joined
    monkeypatch.setattr(  # the query's product without the tangent of the solution
        solved_head, "joined", lambda net, theta, w, b: right(net, theta, 0 * w, b)
    )
    planted = METHOD.hvp(net, meta, batch, v)
    monkeypatch.setattr(solved_head, "joined", right)
    assert relative_error(planted, METHOD.hvp(net, meta, batch, v)) > 1e-3


def test_the_implicit_part_is_a_product_of_the_net_under_squared_error():
    """d/dtheta of -<U, grad_W f>, f = 1/2 |Y - Z|^2, is the net's own product H U."""
    net, meta, batch = case_on(NETS["more features than examples"])
    P, body = net.num_params, features.body_of(net)
    here = METHOD.solve(net, body, meta, batch.x_support, batch.y_support)
    query = net.gradient(here.phi, batch.x_query, batch.y_query)
    _, _, kept = METHOD.head.backward(K, here.solved, *solved_head.of_head(net, query))

    squared = net.with_loss(rm.MSE("sum", 0.5))
    Y = solved_head.targets(net, here.solved.R, batch.y_support)
    at = solved_head.joined(net, meta[None, : body.num_params], here.solved.W, 0 * Y[:, 0])
    along = solved_head.joined(net, 0 * meta[None, : body.num_params], kept.U, 0 * Y[:, 0])
    mixed = squared.hvp(squared.primal(at, batch.x_support, Y), along)
    expected = (query - mixed).mean(axis=0)[: body.num_params]
    grad = METHOD.meta_gradient(net, meta, batch).grad
    assert relative_error(grad[: body.num_params], expected) < PROMISE
    assert (grad[body.num_params : P] == 0).all()


def test_theta_s_own_head_has_no_effect():
    net, meta, batch = case_on(NETS["convolutions, cross-entropy"])
    other = np.where(np.append(net.mask(("head",)), [False] * 3), 7.0, meta)
    a, b = (METHOD.meta_gradient(net, m, batch) for m in (meta, other))
    assert np.array_equal(a.grad, b.grad) and a.loss == b.loss


def test_a_softmax_does_not_see_the_shift_but_a_squared_error_does():
    net, meta, batch = case_on(NETS["convolutions, cross-entropy"])
    grad = METHOD.meta_gradient(net, meta, batch).grad
    assert abs(grad[-1]) < tolerance(float, 100) * np.abs(grad).max()
    assert METHOD.meta_gradient(*case_on(vector_net(4, rm.MSE()))).grad[-1] != 0


def test_the_adapted_head_minimises_the_ridge_objective():
    net, meta, batch = case_on(NETS["fewer features than examples"])
    phi = rm.R2D2(0.75, 1.0, 0.0).adapt(
        net, rm.R2D2(0.75, 1.0, 0.0).init(net, meta[:-3]), batch.x_support, batch.y_support
    )
    X = solved_heads.features(net, phi, batch.x_support)
    for W, x, y in zip(net.parameters.views(phi)[-1]["weight"], X, batch.y_support, strict=True):
        slope = (x @ W.T - np.eye(3)[y]).T @ x + 0.75 * W
        assert np.abs(slope).max() < 1e-13


# ---- precision, chunks, kernels ------------------------------------------------------


def test_chunks_do_not_change_a_bit():
    net, meta, _ = case_on(NETS["convolutions, cross-entropy"])
    batch = cases.tasks_for(net, np.random.default_rng(3), tasks=7)
    whole = METHOD.meta_gradient(net, meta, batch, chunk=7, trace=True)
    for chunk in (1, 2, 5):
        part = METHOD.meta_gradient(net, meta, batch, chunk=chunk, trace=True)
        assert np.array_equal(part.grad, whole.grad)
        assert np.array_equal(part.task_losses, whole.task_losses)
        assert np.array_equal(part.trace["phi"][1], whole.trace["phi"][1])


def test_float32_is_within_its_tolerance_of_float64():
    net, meta, batch = case_on(NETS["convolutions, cross-entropy"])
    exact = METHOD.meta_gradient(net, meta, batch).grad
    single = METHOD.meta_gradient(net, meta.astype(np.float32), batch).grad
    assert single.dtype == np.float32
    limit = tolerance(np.float32, method_checks.method_terms(METHOD, net, batch))
    assert relative_error(single, exact) < limit


@pytest.mark.slow
def test_the_cpu_kernels_agree_with_the_reference():
    net, meta, batch = case_on(cases.conv_net())
    cpu = METHOD.meta_gradient(net.with_kernels("cpu"), meta, batch).grad
    limit = tolerance(float, method_checks.method_terms(METHOD, net, batch))
    assert relative_error(cpu, METHOD.meta_gradient(net, meta, batch).grad) < limit


def test_tasks_of_different_sizes_have_the_bits_of_each_alone():
    net, meta, _ = case_on(NETS["more features than examples"])
    rng = np.random.default_rng(5)
    tasks = [cases.tasks_for(net, rng, 1, support=n) for n in (4, 6, 12)]
    sets = zip(*(task.arrays for task in tasks), strict=True)
    ragged = rm.Batch(*([a[0] for a in arrays] for arrays in sets))
    alone = [METHOD.meta_gradient(net, meta, task) for task in tasks]
    together = METHOD.meta_gradient(net, meta, ragged)
    assert np.array_equal(together.task_losses, [out.loss for out in alone])
    assert relative_error(together.grad, np.mean([out.grad for out in alone], axis=0)) < 1e-15


# ---- errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, line",
    [
        (lambda: rm.R2D2(strength=0.0), "^strength: expected a finite number > 0"),
        (lambda: rm.RidgeHead(scale=np.nan), "^scale: expected a finite number"),
        (lambda: rm.SolvedHead(rm.RidgeHead), "^head: expected a head, such as RidgeHead"),
        (lambda: rm.SolvedHead(3.0), "^head: expected a head, such as RidgeHead"),
    ],
)
def test_a_bad_field_is_refused(make, line):
    with pytest.raises(rm.ArgumentError, match=line):
        make()


@pytest.mark.parametrize(
    "net",
    [rm.Sequential([rm.Linear(2, 3), rm.Linear(3, 3), rm.Tanh()], rm.MSE(), (2,)), rm.Quadratic(3)],
)
def test_a_net_must_end_in_a_linear_layer(net):
    with pytest.raises(rm.ArgumentError, match="^net: expected a Linear layer at its end"):
        METHOD.init(net, np.zeros(net.num_params))


def test_an_overflow_names_the_layer_or_the_solution():
    net, meta, batch = case_on(NETS["a linear body"])
    huge = meta.astype(np.float32)
    huge[0] = 3e38
    with pytest.raises(rm.NonFiniteError, match=r"support set: the outputs of layer 0 \(Linear"):
        METHOD.meta_gradient(net, huge, batch)
    singular = meta.astype(np.float32)
    singular[-3] = -200.0  # lambda = 0 in float32: as many equations as examples lack
    few = batch.astype(np.float32)
    x, y = few.x_support[:, :1], few.y_support[:, :1]
    with pytest.raises(rm.NonFiniteError, match="support set: the head's solution"):
        METHOD.adapt(net, singular, 0 * x, y)


def test_hyper_and_a_direction_of_another_kind_are_refused():
    net, meta, batch = case_on(NETS["a linear body"])
    with pytest.raises(rm.ArgumentError, match="^hyper: expected a method that differentiates"):
        METHOD.meta_gradient(net, meta, batch, hyper=True)
    with pytest.raises(rm.ArgumentError, match="^v: expected a direction like meta"):
        METHOD.hvp(net, meta, batch, meta[:-1])


def test_a_head_of_one_s_own_works_on_any_body():
    class Means(RidgeHead):
        """One class is one row: the mean of its features."""

        def forward(self, k, X, Y, eta):
            W = transposed_times(k, Y, X) / Y.sum(axis=1)[..., None]
            return W, 0 * W[..., 0], None

    net, meta, batch = case_on(NETS["convolutions, cross-entropy"])
    phi = rm.SolvedHead(Means()).adapt(net, meta, batch.x_support, batch.y_support)
    X = solved_heads.features(net, phi, batch.x_support)
    first = X[0][batch.y_support[0] == 0].mean(axis=0)
    assert relative_error(net.parameters.views(phi)[-1]["weight"][0, 0], first) < 1e-14


def test_the_derivative_of_log_lambda_along_one_direction_by_the_complex_step():
    net, meta, batch = case_on(NETS["a regression without bias"])
    ell = np.zeros(len(meta))
    ell[-3] = 1.0

    def M(point):
        phi = METHOD.adapt(net, point, batch.x_support, batch.y_support)
        return net.loss(phi, batch.x_query, batch.y_query).mean()

    slope = complex_step.directional(M, meta, ell)
    assert abs(METHOD.meta_gradient(net, meta, batch).grad[-3] / slope - 1) < PROMISE
