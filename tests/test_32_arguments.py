"""Arguments of layers and nets: valid ones, and those that raise a one-line error."""

import copy
import pickle

import numpy as np
import pytest
from refusals import refused

import refmaml as rm
from refmaml import kernels
from refmaml.layers.initialise import torch_uniform

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 5, 3)), RNG.standard_normal((2, 5, 2))
NET = rm.mlp((3, 4, 2), activation="tanh")
THETA = NET.init(0, np.float64)


# ---- layers --------------------------------------------------------------------------

SIZES = [
    (lambda size: rm.Linear(size, 3), "in_features"),
    (lambda size: rm.Linear(3, size), "out_features"),
    (lambda size: rm.Conv2d(size, 3, 3), "in_channels"),
    (lambda size: rm.Conv2d(3, size, 3), "out_channels"),
    (lambda size: rm.Conv2d(3, 3, size), "kernel_size"),
    (lambda size: rm.Conv2d(3, 3, (3, size)), "kernel_size"),
    (lambda size: rm.Conv2d(3, 3, 3, stride=size), "stride"),
    (rm.BatchNorm2d, "num_features"),
    (rm.MaxPool2d, "kernel_size"),
    (lambda size: rm.MaxPool2d(2, stride=(2, size)), "stride"),
    (rm.AvgPool2d, "kernel_size"),
    (lambda size: rm.AvgPool2d(2, stride=(2, size)), "stride"),
    (rm.Context, "size"),
    (lambda size: rm.FiLM(size, 2), "num_features"),
    (lambda size: rm.FiLM(2, size), "size"),
    (lambda size: rm.Conv2d(3, 3, 3, dilation=size), "dilation"),
    (lambda size: rm.Conv2d(3, 3, 3, dilation=(1, size)), "dilation"),
    (lambda size: rm.Conv2d(28, 56, 3, groups=size), "groups"),
    (lambda size: rm.resnet12(size), "width"),
    (lambda size: rm.resnet12(image=(1, size, 28)), "image"),
    (lambda size: rm.conv4(channels=size), "channels"),
    (lambda size: rm.conv4(image=(1, size, 28)), "image"),
    (lambda size: rm.mlp((3, size, 1)), "sizes"),
    (lambda size: rm.two_layer_linear(size, 1), "dim"),
    (lambda size: rm.two_layer_linear(2, size), "rank"),
]


@pytest.mark.parametrize("make,argument", SIZES, ids=range(len(SIZES)))
def test_a_size_is_an_integer_of_at_least_one(make, argument):
    for size in (0, -1, 2.0, True, np.bool_(True), "2", [3], np.nan):
        refused(lambda size=size: make(size), argument)
    make(np.int64(28))
    make(28)


NUMBERS = [
    (lambda a: rm.BatchNorm2d(3, eps=a), "eps", (0, -1e-5, np.nan, np.inf, True, "1", 1j, None)),
    (lambda a: rm.LeakyReLU(a), "negative_slope", (np.nan, np.inf, True, "1", 1j, None)),
    (lambda a: rm.MSE(factor=a), "factor", (0, -1, np.nan, np.inf, True, "1", None)),
    (lambda a: rm.conv4(bn_eps=a), "eps", (0, np.nan)),
    (lambda a: rm.conv4(weight_gain=a), "weight_gain", (0, -1, np.nan, "1", None)),
]


@pytest.mark.parametrize("make,argument,values", NUMBERS, ids=[a for _, a, _ in NUMBERS])
def test_a_number_is_finite_and_numpys_are_taken(make, argument, values):
    for value in values:
        refused(lambda value=value: make(value), argument)
    for number in (np.float32(0.5), np.float64(0.5), np.int64(1), 1):
        make(number)


OPTIONS = [
    (lambda: rm.Linear(3, 3, bias=2), "bias"),
    (lambda: rm.Linear(3, 3, weight_init="xavier"), "weight_init"),
    (lambda: rm.Conv2d(3, 3, 3, bias=None), "bias"),
    (lambda: rm.Conv2d(3, 3, 3, padding="valid"), "padding"),
    (lambda: rm.Conv2d(3, 3, 3, padding=-1), "padding"),
    (lambda: rm.Conv2d(3, 3, 3, padding=1.0), "padding"),
    (lambda: rm.Conv2d(3, 3, 3, padding=True), "padding"),
    (lambda: rm.BatchNorm2d(3, gamma="no"), "gamma"),
    (lambda: rm.BatchNorm2d(3, beta=0.5), "beta"),
    (lambda: rm.CrossEntropy("average"), "reduction"),
    (lambda: rm.CrossEntropy(np.array(["mean", "sum"])), "reduction"),
    (lambda: rm.MSE(None), "reduction"),
    (lambda: rm.conv4(n_way=2.5), "n_way"),
    (lambda: rm.conv4(n_way=True), "n_way"),
    (lambda: rm.conv4(image=(28, 28)), "image"),
    (lambda: rm.conv4(image=28), "image"),
    (lambda: rm.conv4(head=["mean"]), "head"),
    (lambda: rm.conv4(bn_gamma=None), "gamma"),
    (lambda: rm.conv4(loss="cross_entropy"), "loss"),
    (lambda: rm.conv4(loss=0), "loss"),
    (lambda: rm.conv4(kernels="gpu"), "kernels"),
    (lambda: rm.mlp(loss=rm.MSE), "loss"),
    (lambda: rm.mlp(5), "sizes"),
    (lambda: rm.mlp("12"), "sizes"),
    (lambda: rm.mlp(activation=["relu"]), "activation"),
    (lambda: rm.mlp(kernels="fast"), "kernels"),
    (lambda: rm.two_layer_linear(2, 1, loss="mse"), "loss"),
    (lambda: rm.Sequential([rm.Linear(3, 3), rm.ReLU]), "layers[1]"),
    (lambda: rm.Sequential([rm.Context(2)], input_shape=()), "layer 0: input of Context"),
    (lambda: rm.Sequential([rm.FiLM(2, 2)], input_shape=()), "layer 0: input of FiLM"),
    (lambda: rm.Linear(2, 3, weight_init=lambda *_: np.ones(6)).init(RNG), "weight_init"),
]


@pytest.mark.parametrize("make,argument", OPTIONS, ids=range(len(OPTIONS)))
def test_an_option_of_the_wrong_kind_is_refused_by_its_name(make, argument):
    refused(make, argument)


def test_numpys_numbers_become_pythons_and_change_no_bit():
    layers = [rm.Linear(np.int64(3), np.int32(4)), rm.BatchNorm2d(np.int64(4), np.float64(1e-3))]
    same = [rm.Linear(3, 4), rm.BatchNorm2d(4, 1e-3)]
    assert repr(layers) == repr(same)
    x, theta = X.astype(np.float32), rm.Sequential(same).init(0)
    y = np.zeros((2, 5), int)
    for chosen in (kernels.reference(), kernels.cpu()):
        ours, theirs = (rm.Sequential(a, kernels=chosen).gradient(theta[None], x, y)
                        for a in (layers, same))  # fmt: skip
        assert ours.dtype == np.float32 and np.array_equal(ours, theirs)


def test_layers_and_losses_can_be_copied_and_pickled():
    every = [
        rm.Conv2d(1, 2, (3, 3), padding="same", weight_init=torch_uniform), rm.Linear(3, 4),
        rm.BatchNorm2d(3, gamma=False), rm.ReLU(), rm.LeakyReLU(0.2), rm.Tanh(), rm.Softplus(),
        rm.MaxPool2d(2), rm.AvgPool2d((2, 3)), rm.SpatialMean(), rm.Flatten(), rm.Context(2),
        rm.FiLM(3, 2), rm.CrossEntropy("sum"), rm.MSE("sum/K", 0.5),
        rm.GroupNorm(2, 4), rm.LayerNorm((3, 2), bias=False), rm.InstanceNorm2d(3, affine=True),
        rm.Residual([rm.Linear(3, 3), rm.ReLU()], [rm.Linear(3, 3, bias=False)]),
    ]  # fmt: skip
    every += [
        rm.Sigmoid(),
        rm.SiLU(),
        rm.GELU("tanh"),
        rm.ELU(0.5),
        rm.Softmax(),
        rm.LogSoftmax(-1),
    ]
    every += [rm.Dropout(0.3, 4), rm.BCEWithLogits("sum", 2), rm.Huber(delta=0.5)]
    every += [
        rm.EvalBatchNorm2d(2, (0, 1), (1, 2)),
        rm.GaussianNLL(full=True),
        rm.WeightedCrossEntropy("sum", 0.1, (1, 2)),
        rm.BoundedGaussianNLL(full=True),
        rm.CosineLinear(4, 3),
        rm.DropBlock2d(0.3, 2),
    ]
    assert {type(a).__name__ for a in every} == set(rm.layers.__all__)
    for a in every:
        assert copy.copy(a) == copy.deepcopy(a) == pickle.loads(pickle.dumps(a)) == a


def test_an_error_with_a_task_can_be_pickled():
    error = pickle.loads(pickle.dumps(rm.NonFiniteError("x: expected finite numbers", 3)))
    assert str(error) == "x: expected finite numbers in task 3" and error.task == 3


@pytest.mark.parametrize("shape", [(4,), (2, 6, 6)], ids=["vectors", "images"])
@pytest.mark.parametrize("before", [[], [rm.ReLU()]], ids=["first", "after a ReLU"])
@pytest.mark.parametrize("chosen", [kernels.reference, kernels.cpu])
def test_batch_norm_before_the_first_layer_with_a_weight(shape, before, chosen):
    C = shape[0]
    after = [rm.Linear(4, 3)] if len(shape) == 1 else [rm.Conv2d(C, 3, 3), rm.SpatialMean()]
    net = rm.Sequential([*before, rm.BatchNorm2d(C), rm.Tanh(), *after], kernels=chosen())
    theta, x = net.init(0, np.float64), RNG.standard_normal((2, 5, *shape))
    batch = rm.Batch(x, np.arange(10).reshape(2, 5) % 3, x + 0.1, np.arange(10).reshape(2, 5) % 3)
    v = RNG.standard_normal((1, net.num_params))
    h = 1e-5  # central differences of the gradient: truncation h^2, rounding 1e-16 / h
    ends = [net.gradient(theta[None] + s * h * v, x, batch.y_support) for s in (1, -1)]
    product = net.hvp(net.primal(theta[None], x, batch.y_support), v)
    expected = (ends[0] - ends[1]) / (2 * h)
    assert abs(product - expected).max() <= 1e-7 * max(1, abs(expected).max())
    assert np.isfinite(rm.MAML(0.1, 2).meta_gradient(net, theta, batch).grad).all()


# ---- named parameters ----------------------------------------------------------------

STATE = dict(NET.named(THETA))
NAMED = [
    (lambda: NET.named(list(THETA)), "theta"),
    (lambda: NET.named(THETA[1:]), "theta"),
    (lambda: NET.named(np.ma.array(THETA)), "theta"),
    (lambda: NET.flat([1, 2]), "named"),
    (lambda: NET.flat({**STATE, "0.bias": "zero"}), "0.bias"),
    (lambda: NET.flat({**STATE, "0.bias": np.ma.array(np.zeros(4))}), "0.bias"),
    (lambda: NET.flat({**STATE, "0.bias": np.zeros(4, bool)}), "0.bias"),
    (lambda: NET.flat({**STATE, "0.bias": [[1], [1, 2]]}), "0.bias"),
    (lambda: NET.flat({**STATE, 3: np.zeros(4)}), "named"),
    (lambda: NET.flat(STATE, dtype=int), "dtype"),
    (lambda: NET.flat({**STATE, "0.bias": 1j * np.ones(4)}, dtype=np.float64), "dtype"),
    (lambda: NET.mask(([],)), "patterns"),
    (lambda: NET.mask((3,)), "patterns"),
]


@pytest.mark.parametrize("make,argument", NAMED, ids=range(len(NAMED)))
def test_named_parameters_are_checked(make, argument):
    refused(make, argument)
