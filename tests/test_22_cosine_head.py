"""The cosine head: planted errors, and PyTorch's own functions."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.layers.cosine_linear import Saved, Unit
from refmaml.oracles import cases
from refmaml.oracles.layer_checks import layer_checks
from refmaml.oracles.tolerance import relative_error

K = kernels.reference()
ROUNDING = 1e-14  # one pass of a layer in float64


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
