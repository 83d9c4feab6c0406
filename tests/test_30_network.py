"""Whole nets: gradients, products, parameters flat and by name, refused arguments."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles import cases, dense
from refmaml.oracles.net_checks import net_terms, network_checks
from refmaml.oracles.tolerance import relative_error, tolerance

NETS = {
    "conv": cases.conv_net(),
    "conv with FiLM": cases.conv_net(True),
    "smooth conv": cases.smooth_net(),
    "strided conv4": rm.conv4(3, channels=2, image=(1, 9, 9)),
    "max-pool conv4, flat head": rm.conv4(
        3, channels=2, image=(2, 16, 16), downsample="max_pool", head="flatten", bn_gamma=True
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_gradients_and_products_of_whole_nets_agree_with_dense_matrices(name):
    for check in network_checks(NETS[name], name):
        assert check.passed and check.error < 1e-13, check


def inputs(net, T=2, N=4, seed=0):
    rng = np.random.default_rng(seed)
    batch = cases.tasks_for(net, rng, tasks=T, support=N)
    return cases.start(net, rng), batch.x_support, batch.y_support


def test_shared_parameters_give_the_same_numbers_as_equal_parameters_per_task():
    net = cases.conv_net(True)
    theta, x, y = inputs(net)
    v = np.random.default_rng(1).standard_normal((1, net.num_params))
    each = np.repeat(theta[None], len(x), axis=0)
    shared, own = net.primal(theta[None], x, y), net.primal(each, x, y)
    limit = tolerance(float, net_terms(net, x.shape[1]))
    assert relative_error(shared.grad, own.grad) <= limit
    assert relative_error(net.hvp(shared, v), net.hvp(own, np.repeat(v, len(x), axis=0))) <= limit


def test_tasks_do_not_see_each_other():
    net = cases.conv_net()
    theta, x, y = inputs(net, T=3)
    together = net.primal(theta[None], x, y)
    alone = [net.primal(theta[None], x[t : t + 1], y[t : t + 1]) for t in range(3)]
    limit = tolerance(float, net_terms(net, x.shape[1]))
    assert relative_error(together.grad, np.concatenate([a.grad for a in alone])) <= limit
    assert relative_error(together.loss, np.concatenate([a.loss for a in alone])) <= limit


def test_the_hessian_operator_is_the_mean_over_tasks_and_works_with_scipy():
    from scipy.sparse.linalg import cg, eigsh

    net = cases.smooth_net()
    theta, x, y = inputs(net, T=3)
    H = net.hessian(theta, x, y)
    exact = np.mean(
        [dense.hessian(net, theta, x[t : t + 1], y[t : t + 1]) for t in range(3)], axis=0
    )
    assert relative_error(H @ np.eye(net.num_params), exact) <= 3 * tolerance(
        float, net_terms(net, x.shape[1])
    )
    assert H.shape == exact.shape and H.dtype == np.float64
    top = np.linalg.eigvalsh(exact)[-1]
    # Lanczos stops at a residual of 1e-10, and the error of an eigenvalue is at most
    # its residual.
    assert abs(eigsh(H, k=1, which="LA", tol=1e-10)[0][0] - top) <= 1e-9 * top
    G = net.gauss_newton(theta, x, y)
    b = np.ones(net.num_params)
    damped = exact_gauss_newton(net, theta, x, y) + np.eye(net.num_params)
    from scipy.sparse.linalg import aslinearoperator

    solution, status = cg(G + aslinearoperator(np.eye(net.num_params)), b, rtol=1e-12)
    assert status == 0 and relative_error(
        solution, np.linalg.solve(damped, b)
    ) <= 1e-12 * np.linalg.cond(damped)


def exact_gauss_newton(net, theta, x, y):
    return np.mean(
        [dense.gauss_newton(net, theta, x[t : t + 1], y[t : t + 1]) for t in range(len(x))], axis=0
    )


def test_a_product_reuses_the_stored_primal_pass_and_runs_no_forward_pass():
    calls = []

    def counted(name):
        kernel = getattr(NETS["conv"].kernels, name)
        return lambda *args: (calls.append(name), kernel(*args))[1]

    names = (
        "conv2d_forward",
        "conv2d_r_forward",
        "max_pool2d_forward",
        "batch_norm_forward",
        "activation_forward",
        "cross_entropy_forward",
    )
    net = NETS["conv"].with_kernels(NETS["conv"].kernels.replace(**{n: counted(n) for n in names}))
    theta, x, y = inputs(net)
    primal = net.primal(theta[None], x, y)
    forward = len(calls)
    net.hvp(primal, np.ones((1, net.num_params)))
    # Tangents only: conv(x, rw) in the first layer, conv(rx, w) + conv(x, rw) in the
    # second.
    assert calls[forward:] == ["conv2d_forward", "conv2d_r_forward"]


def test_names_and_shapes_are_those_of_a_torch_sequential():
    net = rm.conv4(5, channels=8, bn_gamma=True)
    assert list(net.shapes)[:4] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert net.shapes["0.weight"] == (8, 1, 3, 3) and net.shapes["13.weight"] == (5, 8)
    assert net.num_params == sum(int(np.prod(s)) for s in net.shapes.values())


def test_flat_and_named_parameters_share_memory_and_convert_back_unchanged():
    net = cases.conv_net(True)
    theta = net.init(0)
    named = net.named(theta)
    assert all(np.shares_memory(a, theta) for a in named.values())
    assert np.array_equal(net.flat(named), theta) and net.flat(named).dtype == np.float32


def test_running_statistics_of_a_torch_state_dict_are_left_out():
    net = cases.conv_net()
    state = dict(net.named(net.init(0)))
    state.update(
        {
            "1.running_mean": np.zeros(4),
            "1.running_var": np.ones(4),
            "1.num_batches_tracked": np.array(3),
        }
    )
    assert np.array_equal(net.flat(state), net.init(0))


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda s: s.pop("0.bias"), "nothing for ['0.bias']"),
        (lambda s: s.update({"12.weight": np.zeros(3)}), "an unknown name ['12.weight']"),
        (
            lambda s: s.update({"0.weight": np.zeros((4, 1, 3, 2))}),
            "0.weight: expected shape (4, 1, 3, 3), got (4, 1, 3, 2)",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_by_name(change, message):
    net = cases.conv_net()
    state = dict(net.named(net.init(0)))
    change(state)
    with pytest.raises(rm.ArgumentError) as error:
        net.flat(state)
    assert message in str(error.value)


def test_patterns_select_parameters_by_name_class_head_and_body():
    net = cases.conv_net(True)
    count = {
        p: int(net.mask((p,)).sum())
        for p in ("*", "head", "body", "BatchNorm2d", "*.bias", "context", "0.weight")
    }
    assert count == {
        "*": net.num_params,
        "head": 15,
        "body": net.num_params - 15,
        "BatchNorm2d": 16,
        "*.bias": 4 + 4 + 4 + 4 + 8 + 3,
        "context": 3,
        "0.weight": 36,
    }
    with pytest.raises(
        rm.ArgumentError, match="patterns: expected a name, wildcard or layer class"
    ):
        net.mask(("batchnorm",))


NET = cases.conv_net()
THETA, X, Y = inputs(NET)
REFUSED = [
    (lambda: NET.primal(THETA[None, 1:], X, Y), "w: expected shape (tasks, 219), got (1, 218)"),
    (
        lambda: NET.primal(np.repeat(THETA[None], 3, 0), X, Y),
        "w: expected a row for each of 2 tasks, or one for all, got 3 rows",
    ),
    (lambda: NET.primal(THETA[None], X[0, 0], Y), "layer 0: input of Conv2d"),
    (lambda: NET.primal(THETA[None], X[:, :, :, 1:], Y), None),
    (
        lambda: NET.primal(THETA[None], X[:0], Y[:0]),
        "x: expected at least one task and one example, got shape (0, 4, 1, 9, 9)",
    ),
    (
        lambda: NET.primal(THETA[None], X[:, :0], Y[:, :0]),
        "x: expected at least one task and one example",
    ),
    (
        lambda: NET.primal(THETA[None], X.astype(int), Y),
        "x: expected real numbers, got dtype int64",
    ),
    (lambda: NET.primal(THETA[None], X, Y + 5), "y: expected labels in 0..2"),
    (lambda: NET.primal(THETA[None], X, Y - 3), "y: expected labels in 0..2, got a label -"),
    (
        lambda: NET.primal(THETA[None], X, Y.astype(float)),
        "y: expected integer labels, got dtype float64",
    ),
    (
        lambda: NET.primal(THETA[None], X, Y[:, 1:]),
        "y: expected shape (2, 4), a label for each example, got (2, 3)",
    ),
    (lambda: NET.hessian(THETA[1:], X, Y), "theta: expected shape (219,), got (218,)"),
    (
        lambda: rm.Sequential([rm.Conv2d(1, 2, 3), rm.BatchNorm2d(3)], input_shape=(1, 5, 5)),
        "layer 1: input of BatchNorm2d",
    ),
    (lambda: rm.Sequential([rm.ReLU()]), "layers: expected at least one layer with parameters"),
    (
        lambda: rm.conv4(5, downsample="pool"),
        "downsample: expected 'stride' or 'max_pool', got 'pool'",
    ),
    (lambda: rm.conv4(1), "n_way: expected at least 2 classes, got 1"),
    (lambda: rm.mlp((3,)), "sizes: expected at least an input and an output size"),
]


@pytest.mark.parametrize("make,message", REFUSED, ids=[str(m) for _, m in REFUSED])
def test_what_does_not_fit_is_refused_in_one_line(make, message):
    if message is None:  # 8 x 9 images still fit this net: nothing to refuse
        make()
        return
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
