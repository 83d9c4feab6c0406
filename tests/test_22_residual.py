"""Residual: its parameters, its four passes, and nets and methods with it."""

import copy
import pickle

import numpy as np
import pytest
from residual_nets import block, residual_net
from test_80_autodiff import batch_for, error, oracle, start  # noqa: F401 (a fixture)

import refmaml as rm
from refmaml import kernels
from refmaml.layers import Residual, sequence
from refmaml.oracles import cases, meta_objectives
from refmaml.oracles.layer_checks import layer_checks
from refmaml.oracles.method_checks import meta_gradient_check
from refmaml.oracles.net_checks import network_checks

K = kernels.reference()
RESIDUALS = [case for case in cases.LAYERS if isinstance(case.layer, Residual)]


NAMES = [
    "0.branch.0.weight", "0.branch.0.bias", "0.branch.1.weight", "0.branch.1.bias",
    "0.shortcut.0.weight", "0.shortcut.1.weight", "0.shortcut.1.bias",
    "3.branch.0.branch.0.weight", "3.branch.0.branch.0.bias",
    "3.branch.1.weight", "3.branch.1.bias", "5.weight", "5.bias",
]  # fmt: skip


# ---- names, shapes, arguments --------------------------------------------------------


def test_parameters_have_the_names_of_a_torch_module_with_two_sequentials():
    assert list(residual_net().shapes) == NAMES


@pytest.mark.frameworks("torch")
def test_torch_agrees_on_names_shapes_and_outputs():
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, branch, shortcut):
            super().__init__()
            self.branch, self.shortcut = nn.Sequential(*branch), nn.Sequential(*shortcut)

        def forward(self, x):
            return self.branch(x) + self.shortcut(x)

    inner = Block([nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()], [])
    first = Block(
        [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1)],
        [nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3)],
    )
    body = [first, nn.LeakyReLU(0.1), nn.MaxPool2d(2), Block([inner, nn.BatchNorm2d(3)], [])]
    module = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Linear(3, 3)).double()
    net = residual_net()
    theta = net.flat({name: a.numpy() for name, a in module.state_dict().items()})
    assert list(net.shapes) == [name for name, _ in module.named_parameters()]
    x = np.random.default_rng(0).standard_normal((1, 4, 2, 6, 5))
    z, _ = net.forward(net.parameters.views(theta[None]), x)
    h = nn.Sequential(*body)(torch.from_numpy(x[0])).mean((2, 3))
    assert np.abs(z[0] - module[5](h).detach().numpy()).max() < 1e-13


@pytest.mark.parametrize(
    "pattern, selected",
    [
        ("BatchNorm2d", [n for n in NAMES if ".1." in n]),
        ("Residual", [n for n in NAMES if n[0] in "03"]),
        ("Conv2d", [n for n in NAMES if ".0.weight" in n or ".0.bias" in n]),
        ("head", ["5.weight", "5.bias"]),
        ("body", NAMES[:-2]),
        ("*.shortcut.*", [n for n in NAMES if "shortcut" in n]),
    ],
)
def test_patterns_select_layers_inside(pattern, selected):
    net = residual_net()
    mask = net.mask((pattern,))
    found = [name for name, part in net.parameters.slices.items() if mask[part].all()]
    assert found == selected and mask.sum() == sum(np.prod(net.shapes[n]) for n in selected)


def test_a_context_inside_is_a_context():
    net = rm.Sequential([Residual([rm.Linear(3, 3), rm.FiLM(3, 2)]), rm.Linear(3, 2)], rm.MSE())
    part = net.parameters.slices["0.branch.1.context"]
    assert np.flatnonzero(net.mask(("context",))).tolist() == list(range(part.start, part.stop))


def test_initial_values_are_those_of_the_layers_in_order():
    net, rng = residual_net(), np.random.default_rng(5)
    named = net.named(net.init(5, np.float64))
    for name, value in block(2, 3).branch[0].init(rng).items():
        assert np.array_equal(named[f"0.branch.0.{name}"], value)
    for name, value in block(2, 3).shortcut[0].init(rng).items():
        assert np.array_equal(named[f"0.shortcut.0.{name}"], value)
    assert (named["3.branch.1.weight"] == 1).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Residual([]), "branch: expected at least one layer, got none"),
        (lambda: Residual(rm.ReLU()), "branch: expected a list of layers"),
        (lambda: Residual([rm.ReLU]), "branch: expected a list of layers"),
        (lambda: Residual([rm.ReLU()], 3), "shortcut: expected a list of layers"),
        (
            lambda: Residual([rm.Linear(3, 4)]).output_shape((3,)),
            "Residual: expected a branch and a shortcut with outputs of one shape, "
            "got (4,) and (3,)",
        ),
        (
            lambda: rm.Sequential([Residual([rm.Linear(3, 4)]), rm.Linear(4, 2)], None, (3,)),
            "layer 0: Residual: expected a branch and a shortcut",
        ),
        (
            lambda: Residual([rm.ReLU(), rm.Linear(4, 3)]).output_shape((3,)),
            "branch.1: input of Linear: expected vectors of shape (4,), got shape (3,)",
        ),
        (
            lambda: Residual([Residual([rm.Linear(2, 3)])]).output_shape((3,)),
            "branch.0: branch.0: input of Linear",
        ),
    ],
)
def test_a_bad_argument_gets_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as raised:
        make()
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_it_can_be_copied_pickled_hashed_and_compared():
    layer = block(2, 3)
    assert copy.deepcopy(layer) == pickle.loads(pickle.dumps(layer)) == layer
    assert hash(layer) == hash(copy.copy(layer)) and layer != block(2, 4)


# ---- the passes ----------------------------------------------------------------------


@pytest.mark.parametrize("case", RESIDUALS, ids=str)
@pytest.mark.parametrize("rx", [False, True], ids=["no tangent", "tangent"])
def test_an_input_without_a_tangent_is_one_with_tangent_0(case, rx):
    """need_dx may be True where rx is None, and the other way round."""
    rng, layer = np.random.default_rng(0), case.layer
    w, x = cases.layer_inputs(case, rng)
    rw = {name: rng.standard_normal(a.shape) for name, a in w.items()}
    y, saved = layer.forward(K, w, x)
    dy, rdy = rng.standard_normal((2, *y.shape))
    results = []
    for tangent in (None, np.zeros_like(x)):
        ry, rsaved = layer.r_forward(K, w, rw, saved, tangent)
        rdw = {name: np.full_like(a, np.nan) for name, a in w.items()}
        need_dx = rx or tangent is not None
        rdx = layer.r_backward(K, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=need_dx)
        results.append((ry, *rdw.values(), *([rdx] if rx else [])))
    for ours, theirs in zip(*results, strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-14 * np.abs(theirs).max())


def test_adjoints_of_another_dy_are_not_reused():
    """A Gauss-Newton product runs `backward` again, with an adjoint of its own."""
    net, rng = residual_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    x, y, v = batch.x_support, batch.y_support, rng.standard_normal((1, net.num_params))
    expected = net.hvp(net.primal(theta[None], x, y), v)
    primal = net.primal(theta[None], x, y)
    before = net.gauss_newton_product(primal, v)
    assert np.array_equal(net.hvp(primal, v), expected)
    assert np.array_equal(net.gauss_newton_product(primal, v), before)


def test_adjoints_are_computed_once_for_products_along_many_directions(monkeypatch):
    net, rng, calls = residual_net(), np.random.default_rng(0), []
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    primal = net.primal(theta[None], batch.x_support, batch.y_support)
    original = sequence.backward
    monkeypatch.setattr(sequence, "backward", lambda *a: calls.append(1) or original(*a))
    for _ in range(3):
        net.hvp(primal, rng.standard_normal((1, net.num_params)))
    assert not calls


@pytest.mark.parametrize("first", [(), (rm.Tanh(),)], ids=["first", "after a tanh"])
def test_products_of_a_whole_net_agree_with_the_complex_step(first):
    for c in network_checks(residual_net(first=first), "residual"):
        assert c.passed, c


@pytest.mark.parametrize(
    "method",
    [rm.MAML(0.1, 2), rm.MAML(0.1, 2, frozen=("BatchNorm2d",)), rm.ANIL(0.1, 2),
     rm.MetaSGD(0.1, 2), rm.MAMLPlusPlus(0.1, 2), rm.MAML(0.1, 2, recompute=True)],
    ids=lambda m: type(m).__name__,
)  # fmt: skip
def test_meta_gradients_agree_with_the_complex_step(method):
    net = residual_net()
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, method))
    assert meta_gradient_check(method, net, method.init(net, theta), batch).error < 1e-12


@pytest.mark.parametrize("dtype, limit", [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_the_cpu_kernels_agree_with_the_reference(dtype, limit):
    method, net = rm.MAML(0.1, 2), residual_net()
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, method))
    exact = method.meta_gradient(net, theta, batch).grad
    fast = method.meta_gradient(
        net.with_kernels(kernels.cpu()), theta.astype(dtype), batch.astype(dtype)
    ).grad
    assert fast.dtype == dtype and np.abs(fast - exact).max() < limit * np.abs(exact).max()


def test_maml_agrees_with_autodiff(oracle):  # noqa: F811
    net = residual_net()
    theta, batch = start(net), batch_for(net)
    ours = rm.MAML(0.1, 2).meta_gradient(net, theta, batch).grad
    assert error(ours, oracle.meta_gradient(net, theta, batch, 0.1, 2)) < 1e-11


# ---- planted errors ------------------------------------------------------------------


def with_terms(change):
    """A Residual whose sums are change(branch's term, shortcut's term)."""

    def wrong(layer, monkeypatch):
        from refmaml.layers import residual

        right = residual.total
        monkeypatch.setattr(
            residual, "total", lambda k, a, b: right(k, a, b) if a is None else change(a, b)
        )

    return wrong


def with_sequence(name, change):
    """One pass of the sequences exchanged for change(pass, *its arguments)."""

    def wrong(layer, monkeypatch):
        right = getattr(sequence, name)
        monkeypatch.setattr(sequence, name, lambda *a: change(right, *a))

    return wrong


def twice(filled):
    for arrays in filled:
        for a in arrays.values():
            a *= 2


def backward_doubling_dw(right, k, layers, dw, *rest):
    out = right(k, layers, dw, *rest)
    twice(dw)
    return out


def adjoints_one_layer_late(right, k, layers, rdw, w, rw, saved, rsaved, dys, *rest):
    return right(k, layers, rdw, w, rw, saved, rsaved, [dys[-1]] * len(dys), *rest)


def without_inner_tangents(right, k, layers, w, rw, saved, rx):
    zeros = [{name: 0 * a for name, a in arrays.items()} for arrays in rw]
    return right(k, layers, w, zeros, saved, rx)


ERRORS = {
    "no shortcut": with_terms(lambda a, b: a),
    "no branch": with_terms(lambda a, b: b),
    "branch minus shortcut": with_terms(lambda a, b: a - b),
    "the mean in place of the sum": with_terms(lambda a, b: (a + b) / 2),
    "dw of both parts doubled": with_sequence("backward", backward_doubling_dw),
    "adjoints of the output for all layers": with_sequence("r_backward", adjoints_one_layer_late),
    "tangents of inner weights dropped": with_sequence("r_forward", without_inner_tangents),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_planted_error_is_caught(name, monkeypatch):
    case = RESIDUALS[0]
    assert all(c.passed for c in layer_checks(case, K))
    ERRORS[name](case.layer, monkeypatch)
    assert any(not c.passed for c in layer_checks(case, K))
