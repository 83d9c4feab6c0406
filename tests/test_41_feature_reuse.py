"""How much adaptation changes each layer's outputs."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles.feature_reuse import layer_changes, linear_cka

NET = rm.mlp((3, 6, 5, 2), kernels=rm.kernels.reference())
RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 9, 3))
THETA = NET.init(0, float)


def test_nothing_changes_without_adaptation():
    rows = layer_changes(NET, THETA, THETA, X)
    assert [row.name for row in rows] == [
        str(name) for name, *_ in NET.layer_outputs(THETA[None], X)
    ]
    assert all(row.change == 0 and row.similarity == pytest.approx(1) for row in rows)


def test_only_the_head_changes_where_only_the_head_adapts():
    y = RNG.standard_normal((1, 9, 2))
    phi = rm.MAML(0.3, 3, adapts=("head",)).adapt(NET, THETA, X, y)[0]
    *body, head = layer_changes(NET, THETA, phi, X)
    assert all(row.change == 0 for row in body) and head.change > 0.05 and head.similarity < 1


def test_the_change_is_the_relative_distance_of_the_outputs():
    phi = THETA + 0.1 * RNG.standard_normal(len(THETA))
    (*_, (_, _, before)), (*_, (_, _, after)) = (
        NET.layer_outputs(w[None], X) for w in (THETA, phi)
    )
    change = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert layer_changes(NET, THETA, phi, X)[-1].change == pytest.approx(change)


def test_cka_does_not_see_a_rotation_a_scale_or_a_shift():
    a = RNG.standard_normal((30, 4))
    rotation = np.linalg.qr(RNG.standard_normal((4, 4)))[0]
    assert linear_cka(a, 3 * a @ rotation + 2) == pytest.approx(1)
    assert linear_cka(a, RNG.standard_normal((30, 4))) < 0.5
    # Orthogonal centred columns have nothing in common.
    assert (
        linear_cka(np.eye(4)[:, :1] - np.eye(4)[:, 1:2], np.eye(4)[:, 2:3] - np.eye(4)[:, 3:])
        < 1e-15
    )


@pytest.mark.parametrize(
    "theta,x,named", [(THETA[:-1], X, "theta"), (THETA, X[:, :1], "x"), (THETA, X[0], "x")]
)
def test_wrong_shapes_are_refused(theta, x, named):
    with pytest.raises(rm.ArgumentError, match=f"^{named}: expected"):
        layer_changes(NET, theta, THETA, x)
