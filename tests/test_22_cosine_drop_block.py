"""The cosine head and DropBlock: planted errors, PyTorch's own functions, and nets."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.layers.cosine_linear import Saved, Unit
from refmaml.oracles import cases, method_checks
from refmaml.oracles.layer_checks import layer_checks
from refmaml.oracles.tolerance import relative_error, tolerance

K = kernels.reference()
METHOD = rm.MAML(0.3, 2)
AGREES = 1e-11  # with autodiff libraries in float64, as in test_80_autodiff.py
PRECISE = 1e-12  # a meta-gradient of two steps against the complex step
ROUNDING = 1e-14  # one pass of a layer in float64
COSINE = rm.Sequential(
    [rm.Linear(3, 8), rm.Tanh(), rm.CosineLinear(8, 3, scale=4.0)], rm.CrossEntropy(), (3,)
)
BLOCKS = rm.Sequential(
    [
        rm.Residual([rm.Conv2d(2, 4, 3, padding=1), rm.Tanh(), rm.DropBlock2d(0.3, block_size=2)],
                    [rm.Conv2d(2, 4, 1)]),
        rm.DropBlock2d(0.3, seed=5, block_size=3),
        rm.SpatialMean(),
        rm.CosineLinear(4, 3, learned_scale=False),
    ],
    rm.CrossEntropy(),
    (2, 5, 6),
)  # fmt: skip
NETS = {"cosine": COSINE, "blocks": BLOCKS}
CASES = {name: cases.method_case(net, [0.3] * 2) for name, net in NETS.items()}


def mask(layer, shape):
    return layer.mask(np, shape, float)


# ---- the cosine head -----------------------------------------------------------------


class ConstantLength(rm.CosineLinear):
    """The length of x counts as a constant in the backward pass."""

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        dx = super().backward(k, dw, w, saved, dy)
        along = (saved.u.n * self.adjoints(k, saved, self.factor(w) * dy, True)[0]).sum(-1)
        return dx + saved.u.n * along[..., None] / saved.u.s


class TransposedWeights(rm.CosineLinear):
    """The weights are normalised along the wrong axis."""

    def forward(self, k, w, x):
        y, saved = super().forward(k, w, x)
        turned = Unit.of(k.xp, w["weight"].swapaxes(1, 2), self.eps).n.swapaxes(1, 2)
        return self.factor(w) * self.linear.product(k, saved.u.n, turned), saved


class FixedScale(rm.CosineLinear):
    """The tangent of the scale is left out."""

    def r_forward(self, k, w, rw, saved, rx):
        ry, rsaved = super().r_forward(k, w, rw, saved, rx)
        return ry - self.factor(rw) * saved.z, rsaved


class ConstantLengthInTheTangent(rm.CosineLinear):
    """R{1 / s(w)} is left out of R{dw}."""

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        without = Saved(rsaved.u, rsaved.v._replace(s=0 * rsaved.v.s), rsaved.z)
        return super().r_backward(k, rdw, w, rw, saved, without, dy, rdy, need_dx)


class NoScaleInTheWeights(rm.CosineLinear):
    """The scale is left out of the gradient of the weights."""

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        dx = super().backward(k, dw, w, saved, dy, need_dx)
        dw["weight"] /= self.factor(w)
        return dx


@pytest.mark.parametrize(
    "planted",
    [ConstantLength, TransposedWeights, FixedScale, ConstantLengthInTheTangent,
     NoScaleInTheWeights],
)  # fmt: skip
def test_a_planted_error_in_the_cosine_head_is_caught(planted):
    case = cases.LayerCase(planted(5, 3), (5,))
    assert any(not c.passed for c in layer_checks(case, K))
    assert all(c.passed for c in layer_checks(cases.LayerCase(rm.CosineLinear(5, 3), (5,)), K))


def test_scores_depend_on_directions_alone():
    rng = np.random.default_rng(0)
    layer = rm.CosineLinear(5, 3, scale=7.0, eps=1e-14)
    w = {name: a[None] for name, a in layer.init(rng).items()}
    x = rng.standard_normal((1, 4, 5))
    y = layer.forward(K, w, x)[0]
    longer = {"weight": 3 * w["weight"], "scale": w["scale"]}
    assert relative_error(layer.forward(K, longer, 0.2 * x)[0], y) < 1e-12
    assert np.abs(y).max() <= 7.0
    own = layer.forward(K, {"weight": x[:, :3], "scale": w["scale"]}, x[:, :3])[0]
    assert np.allclose(np.diagonal(own, axis1=1, axis2=2), 7.0, rtol=1e-13)


def test_a_zero_vector_has_finite_derivatives():
    layer = rm.CosineLinear(4, 3)
    w = {name: a[None] for name, a in layer.init(np.random.default_rng(0)).items()}
    x, rng = np.zeros((1, 2, 4)), np.random.default_rng(1)
    y, saved = layer.forward(K, w, x)
    dw = {name: np.empty_like(a) for name, a in w.items()}
    dx = layer.backward(K, dw, w, saved, rng.standard_normal(y.shape))
    assert not y.any() and np.isfinite(dx).all() and np.abs(dx).max() < 10 / np.sqrt(1e-5) * 4


@pytest.mark.frameworks("torch")
def test_the_cosine_head_is_normalize_and_linear_of_pytorch():
    """Up to eps, which PyTorch adds to nothing where |x| is larger than it."""
    import torch
    from torch.nn import functional as F

    layer, rng = rm.CosineLinear(5, 3, eps=1e-16), np.random.default_rng(0)
    w, x = cases.layer_inputs(cases.LayerCase(layer, (5,)), rng)
    y, saved = layer.forward(K, w, x)
    dw = {name: np.empty_like(a) for name, a in w.items()}
    dy = rng.standard_normal(y.shape)
    dx = layer.backward(K, dw, w, saved, dy)
    for t in range(len(x)):
        leaves = [torch.tensor(a[t], requires_grad=True) for a in (x, w["weight"], w["scale"])]
        z = leaves[2] * F.linear(F.normalize(leaves[0]), F.normalize(leaves[1]))
        theirs = torch.autograd.grad(z, leaves, torch.tensor(dy[t]))
        pairs = zip((y, dx, dw["weight"], dw["scale"]), (z.detach(), *theirs), strict=True)
        assert all(relative_error(a[t], b.numpy()) < ROUNDING for a, b in pairs)


# ---- DropBlock -----------------------------------------------------------------------


class AnotherMaskBackward(rm.DropBlock2d):
    def backward(self, k, dw, w, m, dy, need_dx=True):
        return mask(rm.Dropout(self.p, self.seed + 1), m.shape) * dy


class NotScaledBackward(rm.DropBlock2d):
    def backward(self, k, dw, w, m, dy, need_dx=True):
        return (m > 0) * dy


class NoMaskInTheTangent(rm.DropBlock2d):
    def r_backward(self, k, rdw, w, rw, m, rsaved, dy, rdy, need_dx=True):
        return rdy


class AMaskForEachPlaceInTheBatch(rm.DropBlock2d):
    """Its bits depend on the tasks that a task is computed with."""

    def forward(self, k, w, x):
        m = np.stack([mask(rm.DropBlock2d(self.p, seed, block_size=self.block_size), x.shape[1:])
                      for seed in range(len(x))])  # fmt: skip
        return m * x, m


@pytest.mark.parametrize(
    "planted",
    [AnotherMaskBackward, NotScaledBackward, NoMaskInTheTangent, AMaskForEachPlaceInTheBatch],
)
def test_a_planted_error_in_drop_block_is_caught(planted):
    case = cases.LayerCase(planted(0.4, block_size=2), (3, 4, 5))
    assert any(not c.passed for c in layer_checks(case, K))


def test_what_is_dropped_is_a_union_of_whole_blocks():
    layer = rm.DropBlock2d(0.3, seed=2, block_size=3)
    dropped = mask(layer, (6, 5, 8, 9)) == 0
    covered = np.zeros_like(dropped)
    for i, j in np.ndindex(6, 7):
        whole = dropped[:, :, i : i + 3, j : j + 3].all(axis=(2, 3))
        covered[:, :, i : i + 3, j : j + 3] |= whole[:, :, None, None]
    assert dropped.any() and (dropped == covered).all()


@pytest.mark.parametrize("b", [1, 2, 5])
def test_corners_are_chosen_with_the_probability_of_the_paper(b):
    H, W, p = 10, 7, 0.2
    m = mask(rm.DropBlock2d(p, seed=3, block_size=b), (40, 50, H, W))
    gamma = p * H * W / (b * b * (H - b + 1) * (W - b + 1))
    # The top left pixel is dropped by the top left block alone: five deviations.
    assert abs((m[:, :, 0, 0] == 0).mean() - gamma) < 5 * np.sqrt(gamma * (1 - gamma) / 2000)
    assert abs(m.mean() - 1) < 1e-12  # numbers that are kept are scaled by what is kept
    fraction = (m == 0).mean()
    assert fraction < 1.05 * p and (b == 1 or fraction < p)


def test_a_block_as_large_as_the_image_drops_whole_channels():
    m = mask(rm.DropBlock2d(0.5, block_size=4), (20, 10, 4, 4)).reshape(200, 16)
    zero = (m == 0).all(axis=1)
    assert ((m == 0).any(axis=1) == zero).all() and 60 < zero.sum() < 140


def test_where_everything_is_dropped_the_output_is_zero():
    x = np.ones((1, 3, 2, 4, 4))
    assert not rm.DropBlock2d(1, block_size=4).forward(K, {}, x)[0].any()


@pytest.mark.frameworks("torch")
def test_drop_block_is_that_of_torchvision_on_the_same_corners():
    """torchvision.ops.drop_block2d, written out with the same noise; b odd."""
    import torch
    from torch.nn import functional as F

    layer, shape, b = rm.DropBlock2d(0.3, seed=4, block_size=3), (6, 5, 8, 9), 3
    m = mask(layer, shape)
    dropped = m == 0
    corners = rm.DropBlock2d(layer.p, 4, block_size=3)
    noise = torch.tensor(chosen_corners(corners, shape), dtype=torch.float64)
    noise = F.max_pool2d(F.pad(noise, [b // 2] * 4), stride=(1, 1), kernel_size=b, padding=b // 2)
    noise = 1 - noise
    scaled = noise * noise.numel() / (1e-6 + noise.sum())
    assert (noise.numpy() == 0).sum() == dropped.sum()
    assert relative_error(m, scaled.numpy()) < 1e-6 / (~dropped).sum() + ROUNDING


def chosen_corners(layer, shape):
    """The corners that the layer chooses, from its definition in words."""
    from refmaml.layers.random_bits import SIGNIFICANT, key_of, uniform_words

    (N, C, H, W), b = shape, layer.block_size
    gamma = layer.p * H * W / (b**2 * (H - b + 1) * (W - b + 1))
    words = uniform_words(np, key_of(layer.seed, b, *shape), N * C * (H - b + 1) * (W - b + 1))
    return (words < gamma * 2.0**SIGNIFICANT).reshape(N, C, H - b + 1, W - b + 1)


# ---- nets ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_a_meta_gradient_agrees_with_the_complex_step(name):
    theta, batch, _ = CASES[name]
    assert method_checks.meta_gradient_check(METHOD, NETS[name], theta, batch).error <= PRECISE


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    "library", [pytest.param(name, marks=pytest.mark.frameworks(name)) for name in ("torch", "jax")]
)
def test_a_meta_gradient_agrees_with_autodiff(library, name):
    from refmaml.autodiff import jax_autodiff, torch_autodiff

    oracle = {"torch": torch_autodiff.torch_meta_gradient, "jax": jax_autodiff.jax_meta_gradient}
    theta, batch, _ = CASES[name]
    truth = oracle[library](NETS[name], theta, batch, 0.3, 2)
    assert relative_error(METHOD.meta_gradient(NETS[name], theta, batch).grad, truth) <= AGREES


@pytest.mark.parametrize("name", NETS)
def test_the_cpu_kernels_have_the_same_result_and_bits_do_not_depend_on_chunks(name):
    theta, batch, _ = CASES[name]
    net = NETS[name].with_kernels("cpu")
    truth = METHOD.meta_gradient(NETS[name], theta, batch).grad
    out = METHOD.meta_gradient(net, theta, batch).grad
    assert relative_error(out, truth) <= tolerance(float, 1000)
    assert np.array_equal(METHOD.meta_gradient(net, theta, batch, chunk=1).grad, out)
    single = METHOD.meta_gradient(net, theta.astype(np.float32), batch).grad
    assert single.dtype == np.float32
    assert relative_error(single, truth) <= tolerance(np.float32, 1000)


def test_drop_block_is_switched_off_and_reseeded_with_dropout():
    theta, batch, _ = CASES["blocks"]
    dropped = METHOD.meta_gradient(BLOCKS, theta, batch).grad
    off = METHOD.meta_gradient(BLOCKS.evaluation(), theta, batch).grad
    other = METHOD.meta_gradient(BLOCKS.with_dropout_seed(1), theta, batch).grad
    assert relative_error(dropped, off) > 0.01 and relative_error(other, dropped) > 0.01
    assert BLOCKS.with_dropout_seed(1).layers[1].block_size == 3


def test_the_cosine_head_is_the_head_of_anil():
    theta, batch, _ = CASES["cosine"]
    phi = rm.ANIL(0.3, 2).adapt(COSINE, theta, batch.x_support, batch.y_support)
    moved = (np.abs(phi - theta) > 0).any(axis=0)
    assert moved.tolist() == COSINE.mask(("2.*",)).tolist()


@pytest.mark.frameworks("torch")
def test_a_module_of_torchvision_is_converted():
    """A stand-in with the name, module and arguments of the class in torchvision."""
    import torch
    from torch import nn

    class DropBlock2d(nn.Module):
        __module__ = "torchvision.ops.drop_block"

        def __init__(self, p, block_size, inplace=False, eps=1e-6):
            super().__init__()
            self.p, self.block_size, self.inplace, self.eps = p, block_size, inplace, eps

        def forward(self, x):
            return x * torch.bernoulli(x) if self.training and self.p else x

    module = nn.Sequential(nn.Conv2d(2, 3, 1), DropBlock2d(0.2, 3), nn.Flatten(), nn.Linear(60, 3))
    (block,) = (x for x in rm.from_torch(module, (2, 4, 5)).layers if isinstance(x, rm.Dropout))
    assert type(block) is rm.DropBlock2d and (block.p, block.block_size) == (0.2, 3)
    assert len(rm.from_torch(module.eval(), (2, 4, 5)).layers) == 3


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: rm.CosineLinear(0, 2), "in_features: expected an integer >= 1, got 0"),
        (lambda: rm.CosineLinear(2, 2.0), "out_features: expected an integer >= 1, got 2.0"),
        (lambda: rm.CosineLinear(2, 2, "x"), "scale: expected a finite number, got 'x'"),
        (lambda: rm.CosineLinear(2, 2, eps=0), "eps: expected a finite number > 0"),
        (lambda: rm.CosineLinear(2, 2, learned_scale=1), "learned_scale: expected True or False"),
        (lambda: rm.CosineLinear(2, 2).output_shape((3,)), "expected vectors of shape (2,)"),
        (lambda: rm.DropBlock2d(2), "p: expected a number in [0, 1], got 2"),
        (lambda: rm.DropBlock2d(block_size=0), "block_size: expected an integer >= 1, got 0"),
        (lambda: rm.DropBlock2d().output_shape((3, 6, 9)), "at least 7 rows and columns"),
        (lambda: rm.DropBlock2d().output_shape((3,)), "input of DropBlock2d: expected"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
