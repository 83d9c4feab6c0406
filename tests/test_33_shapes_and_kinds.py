"""What reaches the kernels has the right shape and kind; what a net returns is its own.

Each test fails on the code that it was written for: vectors of a wrong length read
other memory, a masked array lost its mask, a complex vector its imaginary part, and
nets that begin with a batch-norm had no Hessian-vector products.
"""

import copy
import pickle

import numpy as np
import pytest

import refmaml as rm
from refmaml.execution import kernel_choice
from refmaml.oracles.tolerance import tolerance

KERNELS = ("reference", "cpu")
RNG = np.random.default_rng(0)
TANH = rm.mlp((3, 8, 4), activation="tanh", loss=rm.CrossEntropy())


def tasks(shape, T=4, N=6, classes=3):
    """Inputs (T, N, *shape) and labels (T, N)."""
    return RNG.standard_normal((T, N, *shape)), RNG.integers(0, classes, (T, N))


@pytest.fixture(params=KERNELS)
def case(request):
    net = TANH.with_kernels(request.param)
    theta = net.init(0, np.float64)
    return net, theta, *tasks((3,))


WRONG_VECTORS = {
    "a shorter vector": lambda v: v[:, :-1],
    "a longer vector": lambda v: np.concatenate([v, v], axis=1),
    "three rows for four tasks": lambda v: v[:3],
    "eight rows for four tasks": lambda v: np.concatenate([v, v]),
    "a flat vector": lambda v: v[0],
    "a list": lambda v: v.tolist(),
    "a masked array": lambda v: np.ma.masked_array(v, mask=v > 0),
    "objects": lambda v: v.astype(object),
}


@pytest.mark.parametrize("product", ["hvp", "gauss_newton_product"])
@pytest.mark.parametrize("wrong", WRONG_VECTORS.values(), ids=WRONG_VECTORS)
def test_a_product_refuses_a_wrong_vector_in_one_line(case, product, wrong):
    net, theta, x, y = case
    primal = net.primal(theta[None], x, y)
    v = RNG.standard_normal((4, net.num_params))
    with pytest.raises(rm.ArgumentError, match=r"^v: expected .*, got .*") as error:
        getattr(net, product)(primal, wrong(v))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("product", ["hvp", "gauss_newton_product"])
def test_a_product_with_a_complex_vector_has_both_parts(case, product):
    net, theta, x, y = case
    primal, product = net.primal(theta[None], x, y), getattr(net, product)
    a, b = RNG.standard_normal((2, 4, net.num_params))
    assert np.array_equal(product(primal, a + 1j * b), product(primal, a) + 1j * product(primal, b))


def test_a_product_takes_other_precisions(case):
    net, theta, x, y = case
    primal = net.primal(theta[None], x, y)
    v = RNG.standard_normal((1, net.num_params)).astype(np.float32)
    assert np.array_equal(net.hvp(primal, v), net.hvp(primal, v.astype(float)))
    ones = np.ones((1, net.num_params), int)
    assert np.array_equal(net.hvp(primal, ones), net.hvp(primal, ones.astype(float)))


MASKED = {
    "w": lambda w, x, y: (np.ma.masked_array(w), x, y),
    "x": lambda w, x, y: (w, np.ma.masked_array(x), y),
    "y": lambda w, x, y: (w, x, np.ma.masked_array(y)),
}


@pytest.mark.parametrize("name,mask", MASKED.items(), ids=MASKED)
def test_masked_arrays_are_refused(case, name, mask):
    net, theta, x, y = case
    with pytest.raises(rm.ArgumentError, match=rf"^{name}: expected a NumPy array, got Masked"):
        net.primal(*mask(theta[None], x, y))


def test_complex_inputs_are_for_the_reference_kernels(case):
    net, theta, x, y = case
    if net.kernels.name == "reference":
        assert net.loss(theta[None] + 0j, x, y).dtype.kind == "c"
    else:
        with pytest.raises(rm.ArgumentError, match="^w: expected real numbers"):
            net.loss(theta[None] + 0j, x, y)


IMAGES = [rm.Conv2d(2, 4, 2), rm.BatchNorm2d(4), rm.Tanh(), rm.SpatialMean(), rm.Linear(4, 3)]
FIRST = {
    "batch-norm": ([rm.BatchNorm2d(2), *IMAGES], (2, 6, 6)),
    "batch-norm without gamma": ([rm.BatchNorm2d(2, gamma=False), *IMAGES], (2, 6, 6)),
    "batch-norm without both": ([rm.BatchNorm2d(2, gamma=False, beta=False), *IMAGES], (2, 6, 6)),
    "pooling": ([rm.AvgPool2d(2), rm.BatchNorm2d(2), *IMAGES], (2, 6, 6)),
    "an activation": ([rm.Tanh(), rm.BatchNorm2d(2), *IMAGES], (2, 6, 6)),
    "batch-norm on vectors": ([rm.BatchNorm2d(3), rm.Linear(3, 3)], (3,)),
    "FiLM on vectors": ([rm.FiLM(3, 2), rm.Linear(3, 3)], (3,)),
    "FiLM on images": ([rm.FiLM(2, 3), *IMAGES], (2, 6, 6)),
    "a context": ([rm.Context(2), rm.BatchNorm2d(5), rm.Linear(5, 3)], (3,)),
}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("layers,shape", FIRST.values(), ids=FIRST)
def test_a_net_may_begin_with_any_layer(layers, shape, kernels):
    net = rm.Sequential(layers, rm.CrossEntropy(), shape)
    theta, (x, y) = net.init(0, np.float64), tasks(shape)
    theta += 0.1 * RNG.standard_normal(theta.shape)  # contexts start at 0, where products vanish
    batch, maml = rm.Batch(x, y, x, y), rm.MAML(0.1, 2)
    gradient = maml.meta_gradient(net.with_kernels(kernels), theta, batch).grad
    v, h = RNG.standard_normal(theta.shape), 1e-30
    phi = maml.adapt(net, theta + 1j * h * v, x, y)
    exact = net.loss(phi, x, y).mean().imag / h
    assert abs(gradient @ v - exact) <= tolerance(np.float64, 1000) * np.linalg.norm(gradient) * (
        np.linalg.norm(v)
    )


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_max_pooling_window_may_have_more_places_than_an_int16(kernels):
    net = rm.Sequential(
        [rm.Conv2d(1, 2, 3, padding=1), rm.MaxPool2d(200), rm.Flatten(), rm.Linear(2, 2)]
    )
    theta = net.init(0, np.float64)
    x, y = tasks((1, 200, 200), T=1, N=2, classes=2)
    found = net.with_kernels(kernels).gradient(theta[None], x, y)[0]
    h, v = 1e-30, RNG.standard_normal(theta.shape)
    exact = net.loss((theta + 1j * h * v)[None], x, y)[0].imag / h
    assert abs(found @ v - exact) <= tolerance(np.float64, 200 * 200) * np.linalg.norm(found) * (
        np.linalg.norm(v)
    )


def test_nets_and_methods_can_be_copied_and_pickled(case):
    net, theta, x, y = case
    batch = rm.Batch(x, y, x, y)
    for twin in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        for method in (rm.MAML(0.1, 2), rm.IMAML(2.0)):
            other = pickle.loads(pickle.dumps(copy.deepcopy(method)))
            a = method.meta_gradient(net, theta, batch).grad
            assert np.array_equal(a, other.meta_gradient(twin, theta, batch).grad)


METHODS = (
    rm.MAML(0.1, 2), rm.MetaSGD(0.1, 2), rm.MAMLPlusPlus(0.1, 2), rm.IMAML(2.0), rm.Reptile(0.1),
    rm.IMAML(2.0, solver="newton_cg"), rm.FirstOrderMAML(0.1, 2), rm.ERM(),
    rm.IMAML(2.0, solver="controlled_descent"), rm.ReleasedIMAML(),
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_harmless_underflow_raises_nothing(case, method):
    net, theta, x, y = case
    tiny = 1e-200 * theta
    with np.errstate(all="raise"):
        meta = method.init(net, tiny)
        assert np.isfinite(method.meta_gradient(net, meta, rm.Batch(x, y, x, y)).grad).all()
        assert np.isfinite(method.adapt(net, meta, x, y)).all()


def test_numbers_of_numpy_are_taken_wherever_python_s_are(case):
    net, theta, x, y = case
    batch = rm.Batch(x, y, x, y)
    method = rm.MAML(np.float64(0.1), np.int64(2))
    assert np.array_equal(
        method.meta_gradient(net, theta, batch, chunk=np.int64(3)).grad,
        rm.MAML(0.1, 2).meta_gradient(net, theta, batch, chunk=3).grad,
    )
    with pytest.raises(rm.ArgumentError, match="^inner_lr: expected a finite number > 0"):
        rm.MAML(True)
    with pytest.raises(rm.ArgumentError, match="^inner_steps: expected an integer >= 1"):
        rm.MAML(0.1, True)


def test_the_status_of_imaml_is_that_of_the_whole_answer(case):
    net, theta, x, y = case
    batch = rm.Batch(x, y, x, y)
    unconverged = rm.IMAML(100.0, cg_steps=50).meta_gradient(net, theta, batch).report
    assert (unconverged["cg_status"] == "converged").all() and (
        unconverged["inner_residual"] > 0.1
    ).all()
    assert (unconverged["status"] == "inner_not_converged").all()
    converged = rm.IMAML(100.0, inner_lr=0.009, inner_steps=100, cg_steps=50)
    assert (converged.meta_gradient(net, theta, batch).report["status"] == "converged").all()


def test_a_kernel_set_can_be_named():
    assert TANH.with_kernels("cpu").kernels.name == "cpu"
    assert rm.mlp((1, 4, 1), kernels="reference").kernels.name == "reference"
    with pytest.raises(rm.ArgumentError, match="^kernels: expected a kernel set or one of auto"):
        TANH.with_kernels("gpu")
    with pytest.raises(rm.ArgumentError, match="^kernels: expected a kernel set or one of auto"):
        TANH.with_kernels(rm.kernels.cpu)


def test_a_large_net_on_the_reference_kernels_mentions_the_others_once(case, capsys, monkeypatch):
    net, theta, x, y = case
    net, batch = net.with_kernels(net.kernels.name), rm.Batch(x, y, x, y)
    rm.MAML(0.1, 2).meta_gradient(net, theta, batch)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(kernel_choice, "LARGE", 2 * 4 * 12 * (8 + 8 + 4) - 1)
    for _ in range(2):
        rm.MAML(0.1, 2).meta_gradient(net, theta, batch)
    remarks = [kernel_choice.REMARK] if net.kernels.name == "reference" else []
    assert capsys.readouterr().err.splitlines() == remarks
