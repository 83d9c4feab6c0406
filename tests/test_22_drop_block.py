"""DropBlock: planted errors, its mask, torchvision."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.oracles import cases
from refmaml.oracles.layer_checks import layer_checks
from refmaml.oracles.tolerance import relative_error

K = kernels.reference()
ROUNDING = 1e-14  # one pass of a layer in float64


def mask(layer, shape):
    return layer.mask(np, shape, float)


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
