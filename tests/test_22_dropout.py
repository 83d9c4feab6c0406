"""Dropout: its masks are a pure function, its meta-gradient is exact for held masks,
and its bits depend on neither chunks nor kernels.
"""

import copy
import pickle
from functools import reduce

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.layers.dropout import reseeded
from refmaml.layers.random_bits import GAMMA, key_of, mix_integer, uniform_words
from refmaml.oracles import cases, meta_objectives, method_checks
from refmaml.oracles.layer_checks import layer_checks
from refmaml.oracles.tolerance import relative_error, tolerance

K = kernels.reference()
METHOD = rm.MAML(0.3, 2)
AGREES = 1e-11  # with autodiff libraries in float64, as in test_80_autodiff.py
PRECISE = 1e-12  # a meta-gradient of two steps against the complex step


def net_with(*layers):
    return rm.Sequential(
        [rm.Linear(3, 16), rm.Tanh(), *layers, rm.Linear(16, 3)], rm.CrossEntropy(), (3,)
    )


NET = net_with(rm.Dropout(0.5, seed=3), rm.Linear(16, 16), rm.Tanh(), rm.Dropout(0.2, seed=4))
THETA, BATCH, _ = cases.method_case(NET, meta_objectives.fixed_rates(NET, METHOD))


def mask(layer, shape):
    return layer.mask(np, shape, float)


# ---- masks ---------------------------------------------------------------------------


def test_bits_are_those_of_splitmix64():
    """The first five numbers of Vigna's splitmix64.c that starts at 1234567."""
    words = [mix_integer((1234567 + i * GAMMA) % 2**64) for i in range(1, 6)]
    assert words == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert uniform_words(np, 1234567, 5).tolist() == [word >> 11 for word in words]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_mask_has_the_fraction_and_the_mean_that_its_p_says(p):
    m = mask(rm.Dropout(p, seed=7), (100, 500))
    assert set(np.unique(m)) == {0.0, 1 / (1 - p)}
    # The mean of 50,000 entries that are 0 or 1: five standard deviations.
    assert abs((m == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / m.size)


def test_masks_of_other_seeds_shapes_and_examples_are_independent():
    masks = [mask(rm.Dropout(0.5, seed), (64, 64)) > 0 for seed in range(8)]
    masks += [mask(rm.Dropout(0.5), shape).reshape(-1)[:4096].reshape(64, 64) > 0
              for shape in ((65, 64), (64, 65), (1, 4096), (4096, 2))]  # fmt: skip
    masks += [masks[0][::-1], masks[0][:, ::-1], masks[0].T]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            # How often 4,096 pairs of coins agree; a mirror has each pair twice. Six
            # deviations.
            assert abs((a == b).mean() - 0.5) < 6 * np.sqrt(2) * 0.5 / 64


def test_a_p_of_1_leaves_nothing_and_a_p_of_0_everything():
    x = np.random.default_rng(0).standard_normal((2, 3, 5))
    assert not rm.Dropout(1).forward(K, {}, x)[0].any()
    assert np.array_equal(rm.Dropout(0).forward(K, {}, x)[0], x)


def test_all_tasks_and_both_precisions_share_a_mask():
    x = np.ones((4, 3, 50))
    y, single = (rm.Dropout().forward(K, {}, x.astype(d))[0] for d in (np.float64, np.float32))
    assert (y == y[:1]).all() and np.array_equal(y, single) and single.dtype == np.float32
    assert not (y[0, 0] == y[0, 1]).all()  # each example has its own


# ---- passes --------------------------------------------------------------------------


class AnotherMaskEachPass(rm.Dropout):
    def masked(self, m, a):
        return mask(rm.Dropout(self.p, self.seed + 1), m.shape) * a


class AnotherMaskBackward(rm.Dropout):
    def backward(self, k, dw, w, m, dy, need_dx=True):
        return mask(rm.Dropout(self.p, self.seed + 1), m.shape) * dy


class NotScaledBackward(rm.Dropout):
    def backward(self, k, dw, w, m, dy, need_dx=True):
        return (m > 0) * dy


class ScaledTwice(rm.Dropout):
    def r_forward(self, k, w, rw, m, rx):
        return m * m * rx, None


class NoMaskInTheTangent(rm.Dropout):
    def r_backward(self, k, rdw, w, rw, m, rsaved, dy, rdy, need_dx=True):
        return rdy


class AMaskForEachPlaceInTheBatch(rm.Dropout):
    """Its bits depend on the tasks that a task is computed with."""

    def forward(self, k, w, x):
        m = self.mask(k.xp, x.shape, x.real.dtype)
        return m * x, m


@pytest.mark.parametrize(
    "planted",
    [AnotherMaskEachPass, AnotherMaskBackward, NotScaledBackward, ScaledTwice,
     NoMaskInTheTangent, AMaskForEachPlaceInTheBatch],
)  # fmt: skip
def test_a_planted_error_is_caught(planted):
    case = cases.LayerCase(planted(), (3, 4, 2))
    assert any(not c.passed for c in layer_checks(case, K))


# ---- meta-gradients ------------------------------------------------------------------


def test_a_meta_gradient_agrees_with_the_complex_step():
    assert method_checks.meta_gradient_check(METHOD, NET, THETA, BATCH).error <= PRECISE
    dropped = METHOD.meta_gradient(NET, THETA, BATCH).grad
    assert relative_error(dropped, METHOD.meta_gradient(NET.evaluation(), THETA, BATCH).grad) > 0.1


@pytest.mark.parametrize(
    "library", [pytest.param(name, marks=pytest.mark.frameworks(name)) for name in ("torch", "jax")]
)
def test_a_meta_gradient_agrees_with_autodiff(library):
    from refmaml.autodiff import jax_autodiff, torch_autodiff

    oracle = {"torch": torch_autodiff.torch_meta_gradient, "jax": jax_autodiff.jax_meta_gradient}
    truth = oracle[library](NET, THETA, BATCH, 0.3, 2)
    assert relative_error(METHOD.meta_gradient(NET, THETA, BATCH).grad, truth) <= AGREES


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_the_bits_depend_neither_on_chunks_nor_on_recomputed_passes(name):
    net, rng = NET.with_kernels(name), np.random.default_rng(0)
    batch = cases.tasks_for(net, rng, tasks=5)
    rows = METHOD.task_gradients(net, THETA, batch, trace=False).grad
    recomputed = rm.MAML(0.3, 2, recompute=True)
    assert np.array_equal(recomputed.task_gradients(net, THETA, batch, trace=False).grad, rows)
    for chunk in (1, 2, 3):
        parts = [batch[i : i + chunk] for i in range(0, 5, chunk)]
        again = [METHOD.task_gradients(net, THETA, part, trace=False).grad for part in parts]
        assert np.array_equal(np.concatenate(again), rows)


def test_the_cpu_kernels_have_the_masks_of_the_reference():
    a, b = (METHOD.meta_gradient(NET.with_kernels(k), THETA, BATCH).grad for k in (K, "cpu"))
    assert relative_error(b, a) <= tolerance(float, 1000)


def test_a_seed_for_each_meta_step_gives_other_masks_and_the_same_again():
    nets = [NET.with_dropout_seed(step) for step in (0, 1, 0)]
    a, b, c = (METHOD.meta_gradient(net, THETA, BATCH).grad for net in nets)
    assert np.array_equal(a, c) and not np.array_equal(a, b)
    assert nets[0].shapes == NET.shapes and nets[0].layers[2].p == 0.5


def test_the_mean_over_seeds_of_an_output_is_that_of_the_evaluation_net():
    net = rm.Sequential([rm.Linear(3, 16), rm.Dropout(0.5), rm.Linear(16, 2)], rm.MSE(), (3,))
    theta, x = net.init(0, float), np.random.default_rng(0).standard_normal((1, 40, 3))

    def z(net):
        return net.forward(net.parameters.views(theta[None]), x, keep=False)[0]

    seeds, exact = 400, z(net.evaluation())
    drawn = np.array([z(net.with_dropout_seed(seed)) for seed in range(seeds)])
    # The head is linear in the mask, so the mean has no bias: five deviations.
    assert (abs(drawn.mean(axis=0) - exact) < 5 * drawn.std(axis=0) / np.sqrt(seeds)).mean() > 0.99


def test_a_net_before_whose_first_weights_a_dropout_lies():
    net = rm.Sequential([rm.Dropout(0.3), rm.Linear(3, 2)], rm.CrossEntropy(), (3,))
    theta, batch, _ = cases.method_case(net, [0.3] * 2)
    assert method_checks.meta_gradient_check(METHOD, net, theta, batch).error <= PRECISE


# ---- arguments and copies ------------------------------------------------------------


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: rm.Dropout(1.1), "p: expected a number in [0, 1], got 1.1"),
        (lambda: rm.Dropout(-0.1), "p: expected a number in [0, 1], got -0.1"),
        (lambda: rm.Dropout(np.nan), "p: expected a number in [0, 1], got nan"),
        (lambda: rm.Dropout(True), "p: expected a number in [0, 1], got True"),
        (lambda: rm.Dropout(0.5, -1), "seed: expected an integer >= 0, got -1"),
        (lambda: rm.Dropout(0.5, 2**64), "seed: expected an integer in [0, 2^64)"),
        (lambda: rm.Dropout(0.5, 1.0), "seed: expected an integer >= 0, got 1.0"),
        (lambda: NET.with_dropout_seed("1"), "seed: expected an integer >= 0, got '1'"),
        (
            lambda: net_with(rm.Dropout(0.5), rm.ReLU(), rm.Dropout(0.2)),
            "layers[4]: expected a Dropout with another seed than layers[2], got Dropout(p=0.2",
        ),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_dropouts_may_share_a_seed_where_they_drop_nothing():
    net = net_with(rm.Dropout(0.5), rm.ReLU(), rm.Dropout(0))
    assert [layer.p for layer in net.evaluation().layers if isinstance(layer, rm.Dropout)] == [0, 0]


def test_every_layer_gets_a_seed_of_its_own():
    layers = reseeded([rm.Dropout() for _ in range(1000)], 5)
    assert len({layer.seed for layer in layers}) == 1000
    assert reduce(max, (layer.seed for layer in layers)) < 2**64
    assert key_of(1, 2) != key_of(2, 1) != key_of(2)


def test_copies_and_pickles_are_equal():
    layer = rm.Dropout(np.float64(0.3), np.int64(9))
    assert type(layer.p) is float and type(layer.seed) is int
    assert copy.deepcopy(layer) == layer == pickle.loads(pickle.dumps(layer))
    twin = pickle.loads(pickle.dumps(NET))
    grads = [METHOD.meta_gradient(n, THETA, BATCH).grad for n in (NET, twin, copy.deepcopy(NET))]
    assert np.array_equal(grads[0], grads[1]) and np.array_equal(grads[0], grads[2])


def test_a_max_pooling_of_dropped_pixels_is_no_kink():
    layers = [rm.Conv2d(1, 4, 1), rm.Dropout(0.7), rm.MaxPool2d(2), rm.Flatten(), rm.Linear(16, 3)]
    net = rm.Sequential(layers, rm.CrossEntropy(), (1, 4, 4))
    theta, batch, margin = cases.method_case(net, [0.3] * 2)
    assert margin > cases.NET_MARGIN
    assert method_checks.meta_gradient_check(METHOD, net, theta, batch).error <= PRECISE
