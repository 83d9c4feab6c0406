"""Layers and losses of torch.nn that are converted by their names, where refmaml has
them; where not, each is named in one line."""

import numpy as np
import pytest
from torch_modules import (
    INNER_LR,
    SAME_META_GRADIENT,
    SAME_OUTPUTS,
    STEPS,
    data,
    error,
    module_meta_gradient,
    vectors,
)

import refmaml as rm

pytestmark = pytest.mark.frameworks("torch")


def later_layers():
    """Layers of torch.nn that are converted by their names: {name: (layer, shape)}."""
    from torch import nn

    return {
        "GroupNorm": (nn.GroupNorm(2, 4), (4, 3, 2)),
        "LayerNorm": (nn.LayerNorm([4, 3, 2], eps=1e-3), (4, 3, 2)),
        "InstanceNorm2d": (nn.InstanceNorm2d(4, affine=True), (4, 3, 2)),
        "Sigmoid": (nn.Sigmoid(), (6,)),
        "GELU": (nn.GELU(), (6,)),
        "SiLU": (nn.SiLU(), (6,)),
        "ELU": (nn.ELU(0.7), (6,)),
        "Softmax": (nn.Softmax(dim=-1), (6,)),
        "LogSoftmax": (nn.LogSoftmax(dim=1), (6,)),
        "Dropout": (nn.Dropout(0.3), (6,)),
    }


LATER = (
    "GroupNorm", "LayerNorm", "InstanceNorm2d", "Sigmoid", "GELU", "SiLU", "ELU", "Softmax",
    "LogSoftmax", "Dropout",
)  # fmt: skip


@pytest.mark.parametrize("name", LATER)
def test_a_layer_is_converted_where_refmaml_has_it_and_named_where_not(name):
    from torch import nn

    layer, shape = later_layers()[name]
    size = int(np.prod(shape))
    module = nn.Sequential(
        layer, nn.Flatten(), nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 3)
    )
    if not hasattr(rm.layers, name):
        with pytest.raises(rm.ArgumentError, match=rf"layer '0'.*nn\.{name}"):
            rm.from_torch(module, shape)
        return
    net = rm.from_torch(module, shape)
    assert type(net.layers[0]).__name__ == name
    if name == "Dropout":
        twice = rm.from_torch(nn.Sequential(layer, nn.Linear(6, 6), nn.Dropout(0.2)), shape)
        assert (twice.layers[0].p, twice.layers[2].p) == (0.3, 0.2)
        assert twice.layers[0].seed != twice.layers[2].seed
        return
    rng = np.random.default_rng(2)
    sets = *data(net, rng), *data(net, rng)
    theta = net.flat(module.state_dict(), np.float64) + 0.1 * rng.standard_normal(net.num_params)
    grad = rm.MAML(INNER_LR, STEPS).meta_gradient(net, theta, rm.Batch(*sets)).grad
    reference = module_meta_gradient(module.double(), net.named(theta), *sets)
    assert error(grad, net.flat(reference)) < SAME_META_GRADIENT


# ---- losses --------------------------------------------------------------------------


def losses():
    """Losses of torch.nn, each with targets; the class of refmaml that it needs."""
    import torch
    from torch import nn

    rng = np.random.default_rng(3)
    labels, values = rng.integers(0, 3, 5), rng.standard_normal((5, 3))
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    return [
        (nn.CrossEntropyLoss(), labels, "CrossEntropy"),
        (nn.CrossEntropyLoss(reduction="sum"), labels, "CrossEntropy"),
        (nn.MSELoss(), values, "MSE"),
        (nn.MSELoss(reduction="sum"), values, "MSE"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), labels, "WeightedCrossEntropy"),
        (nn.CrossEntropyLoss(weight=weight), labels, "WeightedCrossEntropy"),
        (nn.BCEWithLogitsLoss(pos_weight=weight), (values > 0).astype(float), "BCEWithLogits"),
        (nn.HuberLoss(delta=0.7), values, "Huber"),
    ]


@pytest.mark.parametrize("number", range(8))
def test_a_loss_of_torch_is_converted_where_refmaml_has_it(number):
    import torch

    loss, targets, name = losses()[number]
    module = vectors()
    if not hasattr(rm.layers, name):
        with pytest.raises(rm.ArgumentError, match="^loss"):
            rm.from_torch(module, (4,), loss)
        return
    net = rm.from_torch(module, (4,), loss)
    assert type(net.loss_function).__name__ == name
    x = np.random.default_rng(4).standard_normal((5, 4))
    theta = net.flat(module.state_dict(), np.float64)
    with torch.no_grad():
        reference = loss(module.double()(torch.from_numpy(x)), torch.from_numpy(targets)).item()
    ours = net.loss(theta[None], x[None], targets[None])[0]
    assert abs(ours - reference) < SAME_OUTPUTS * abs(reference)
