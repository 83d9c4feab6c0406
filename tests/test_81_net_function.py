"""A net as a function in PyTorch and JAX: the same outputs, losses and derivatives of
every layer, under grad, vmap and jit."""

import copy
import pickle
import sys
from contextlib import nullcontext

import numpy as np
import pytest

import refmaml as rm
from refmaml.autodiff import formulas
from refmaml.autodiff.jax_autodiff import float64
from refmaml.oracles.layer_cases import LAYERS, LOSSES, loss_inputs

# As in test_80_autodiff.py: roundings of 1e-16 in sums over some hundred numbers.
AGREES = 1e-11
TASKS, EXAMPLES, CLASSES = 2, 4, 3
CASES = [case for case in LAYERS if type(case.layer) in formulas.FORWARD]


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.frameworks(name)) for name in ("torch", "jax")]
)
def library(request):
    """ "torch" or "jax"; JAX in float64."""
    with float64() if request.param == "jax" else nullcontext():
        yield request.param


def function_of(net, library):
    return net.to_torch() if library == "torch" else net.to_jax()


def arrays(library, *given):
    """NumPy's arrays, or dicts of them, as the library's."""
    if library == "jax":
        import jax.numpy as jnp

        convert = jnp.asarray
    else:
        import torch

        convert = torch.tensor
    return [
        {n: convert(a) for n, a in g.items()} if isinstance(g, dict) else convert(g) for g in given
    ]


def transforms(library):
    """(grad, vmap)."""
    if library == "jax":
        import jax

        return jax.grad, jax.vmap
    import torch

    return torch.func.grad, torch.func.vmap


def compiled(library, function):
    """jax.jit of a function: XLA compiles it once and not operation by operation."""
    if library == "torch":
        return function
    import jax

    return jax.jit(function)


def net_with(layer, shape, loss=None):
    """A net in which the layer has parameters before and behind it."""
    before = rm.Conv2d(shape[0], shape[0], 1) if len(shape) == 3 else rm.Linear(*shape, *shape)
    first = rm.Sequential([before, layer, rm.Flatten()], input_shape=shape)
    (features,) = first.output_shape(shape)
    parts = {"a.b": before, "layer": layer, "flat": rm.Flatten(), "c": rm.Linear(features, CLASSES)}
    return rm.Sequential(parts, loss, shape)


def problem(net, seed=0):
    """(theta, support inputs, labels, query inputs, labels)."""
    rng = np.random.default_rng(seed)
    theta = net.init(rng, np.float64) + 0.1 * rng.standard_normal(net.num_params)
    x = rng.standard_normal((2, TASKS, EXAMPLES, *net.input_shape))
    y = rng.integers(0, CLASSES, (2, TASKS, EXAMPLES))
    if isinstance(net.loss_function, rm.MSE):
        y = rng.standard_normal((2, TASKS, EXAMPLES, CLASSES))
    return theta, x[0], y[0], x[1], y[1]


def error(ours, reference):
    return np.abs(np.asarray(ours) - reference).max() / np.abs(reference).max()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_of_every_layer_are_the_nets(case, library):
    net = net_with(*case)
    function, (grad, vmap) = function_of(net, library), transforms(library)
    theta, x, y, _, _ = problem(net)
    params, xs, ys = arrays(library, net.named(theta), x, y)

    def task(params, x, y):
        return function(params, x), function.loss(params, x, y), grad(function.loss)(params, x, y)

    outputs, losses, grads = compiled(library, vmap(task, (None, 0, 0)))(params, xs, ys)
    primal = net.primal(theta[None], x, y)
    assert error(outputs, primal.outputs) < AGREES and error(losses, primal.loss) < AGREES
    flat = np.concatenate([np.asarray(grads[n]).reshape(TASKS, -1) for n in net.shapes], axis=1)
    assert error(flat, primal.grad) < AGREES


def meta_gradient(function, library, params, sets):
    """MAML's meta-gradient by the library's grad and vmap: one inner step of 0.1."""
    grad, vmap = transforms(library)

    def adapted(params, x_support, y_support, x_query, y_query):
        grads = grad(function.loss)(params, x_support, y_support)
        params = {name: p - 0.1 * grads[name] for name, p in params.items()}
        return function.loss(params, x_query, y_query)

    def mean(params):
        return vmap(adapted, (None, 0, 0, 0, 0))(params, *sets).mean()

    return compiled(library, grad(mean))(params)


NETS = {
    "conv": net_with(rm.BatchNorm2d(2), (2, 4, 4)),
    "pool": net_with(rm.MaxPool2d(2), (2, 4, 4)),
    "tanh": rm.mlp((4, 6, CLASSES), "tanh"),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_meta_gradient_is_mamls(net, library):
    theta, *sets = problem(net)
    params, *moved = arrays(library, net.named(theta), *sets)
    grads = meta_gradient(function_of(net, library), library, params, moved)
    batch = rm.Batch(*sets)
    right = error(net.flat(grads), rm.MAML(0.1, 1).meta_gradient(net, theta, batch).grad)
    wrong = error(net.flat(grads), rm.FirstOrderMAML(0.1, 1).meta_gradient(net, theta, batch).grad)
    print(f"error {right:.1e}, first-order {wrong:.1e}")
    assert right < AGREES and wrong > 1e-3


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_every_loss_has_its_scale(loss, library):
    x, y = loss_inputs(loss, np.random.default_rng(0))
    net = rm.mlp((x.shape[-1], x.shape[-1]), loss=loss)
    theta = problem(net)[0]
    params, x_0, y_0 = arrays(library, net.named(theta), x[0], y[0])
    value = float(function_of(net, library).loss(params, x_0, y_0))
    assert abs(value - net.loss(theta[None], x[:1], y[:1])[0]) < AGREES * abs(value)


def test_float32_stays_float32(library):
    net = NETS["conv"]
    theta, x, y, _, _ = problem(net)
    named = {name: a.astype(np.float32) for name, a in net.named(theta).items()}
    params, x_0, y_0 = arrays(library, named, x[0].astype(np.float32), y[0])
    function = function_of(net, library)
    assert "float32" in str(function(params, x_0).dtype)
    assert "float32" in str(function.loss(params, x_0, y_0).dtype)


def test_names_shapes_and_kinds_are_checked(library):
    net = rm.Sequential({"fc": rm.Linear(4, CLASSES)}, rm.MSE(), (4,))
    theta, x, y, _, _ = problem(net)
    function = function_of(net, library)
    params, x_0, y_0 = arrays(library, net.named(theta), x[0], y[0])

    def refused(words, params=params, x=x_0, y=y_0):
        with pytest.raises(rm.ArgumentError, match=words) as caught:
            function.loss(params, x, y)
        assert len(str(caught.value).splitlines()) == 1

    refused("named: expected .* nothing for", {"fc.weight": params["fc.weight"]})
    refused("named: expected .* unknown name", params | {"0.weight": y_0})
    refused(
        r"fc.weight: expected shape \(3, 4\), got \(4, 3\)", params | {"fc.weight": x_0.T[:, :3]}
    )
    refused("params: expected a dict", list(params.values()))
    refused(f"fc.bias: expected a {library}", params | {"fc.bias": [0.0, 0.0, 0.0]})
    refused("x: expected shape", x=x_0[0])
    refused("layer fc: input of Linear", x=x_0[:, :3])
    refused(f"x: expected a {library}", x=x_0.tolist())
    refused("y: expected shape", y=y_0[:, :1])  # it would be broadcast
    refused("y: expected real numbers", y=arrays(library, np.zeros(y_0.shape, int))[0])
    classes = function_of(net.with_loss(rm.CrossEntropy()), library)
    with pytest.raises(rm.ArgumentError, match="y: expected integer labels"):
        classes.loss(params, x_0, y_0)


def test_a_function_can_be_copied_and_pickled(library):
    function = function_of(NETS["tanh"], library)
    theta, x, _, _, _ = problem(NETS["tanh"])
    params, x_0 = arrays(library, NETS["tanh"].named(theta), x[0])
    expected = np.asarray(function(params, x_0))
    for twin in (copy.deepcopy(function), pickle.loads(pickle.dumps(function))):
        assert np.array_equal(np.asarray(twin(params, x_0)), expected)
    assert repr(function).startswith(f"NetFunction({library}, Sequential(")


def test_a_layer_without_a_formula_is_named(library):
    class Cube(rm.Tanh):
        """A layer that formulas.py does not have."""

    net = rm.Sequential([rm.Linear(2, 2), Cube()], rm.MSE(), (2,))
    with pytest.raises(rm.ArgumentError, match="net: expected one of .* got .*Cube"):
        function_of(net, library)


@pytest.mark.parametrize("module", ["torch", "jax"])
def test_an_absent_framework_is_a_reason_in_one_line(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(rm.ArgumentError, match=f"to_{module}: expected {module}, got {module} can"):
        function_of(NETS["tanh"], module)
