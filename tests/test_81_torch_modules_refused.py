"""What cannot be converted from PyTorch: each module is refused in one line."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

import refmaml as rm
from refmaml.layers.layer import Layer
from refmaml.torch_modules import layer_table

pytestmark = pytest.mark.frameworks("torch")


def refused(module, shape=(3,), **options):
    """The line with which from_torch refuses a module."""
    with pytest.raises(rm.ArgumentError) as caught:
        rm.from_torch(module, shape, **options)
    (line,) = str(caught.value).splitlines()
    return line


def test_an_unknown_layer_is_named_and_the_line_points_to_the_doctor():
    from torch import nn

    inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.LSTM(3, 3))
    line = refused(nn.Sequential(nn.Sequential(inner)))
    assert line.startswith("layer '0.0.2': expected one of nn.") and "got nn.LSTM" in line
    assert "nn.BatchNorm1d" in line and "rm.check_meta_gradient" in line


def unusual():
    from torch import nn

    images = (3, 6, 6)
    return {
        "padding_mode: expected 'zeros', got 'circular'":
            (nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"), images),
        "ceil_mode: expected False, got True": (nn.MaxPool2d(2, ceil_mode=True), images),
        "divisor_override: expected None, got 3": (nn.AvgPool2d(2, divisor_override=3), images),
        "beta: expected 1.0, got 2.0": (nn.Softplus(2.0), (3,)),
        "output_size: expected 1, got (2, 1)": (nn.AdaptiveAvgPool2d((2, 1)), images),
        "start_dim: expected 1, got 2": (nn.Flatten(2), images),
        "statistics: expected those of the batch (module.train(), or track_running_stats=False)":
            (nn.BatchNorm1d(3).eval(), (3,)),
    }  # fmt: skip


@pytest.mark.parametrize("number", range(7))
def test_an_argument_that_refmaml_lacks_is_named(number):
    from torch import nn

    wanted, (layer, shape) = list(unusual().items())[number]
    line = refused(nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3)), shape)
    assert line.startswith(f"layer '0' (nn.{type(layer).__name__}): {wanted}"), line


def forwards():
    """Forwards that are no chain of known layers: {forward: words of the refusal}."""
    import torch
    from torch.nn import functional as F

    def overwritten(self, x):
        F.relu(x, inplace=True)
        return self.b(self.a(x))

    return {
        lambda self, x: self.b(self.a(x)) + x: "layer 'add()': expected one of nn.",
        lambda self, x: self.a(x): "module: expected a forward that uses every parameter",
        lambda self, x: self.b(self.a(self.a(x))): "layer 'a': expected one call, got 2 calls",
        lambda self, x: self.b(self.a(x)) if x.sum() > 0 else x: "torch.fx can trace",
        lambda self, x: (self.b(self.a(x)), x): "module: expected a chain of layers",
        lambda self, x: x: "module: expected a chain of layers",
        lambda self, x: F.linear(self.b(x), self.a.weight): "layer 'linear()': expected one of",
        lambda self, x: torch.flatten(self.b(self.a(x))): "start_dim: expected 1, got 0",
        lambda self, x: self.b(self.a(x)).view(3, -1): "module: expected outputs of shape",
        lambda self, x: self.b(self.a(x)).view(-1): "sizes: expected (examples, -1)",
        lambda self, x: F.dropout(self.b(self.a(x))): "expected nn.Dropout",
        lambda self, x: self.b(self.a(x)).mean(1): "dim: expected (2, 3)",
        overwritten: "module: expected the outputs of its layers in order, got others",
    }


@pytest.mark.parametrize("number", range(13))
def test_a_forward_that_is_no_chain_of_layers_is_refused(number):
    from torch import nn

    forward, words = list(forwards().items())[number]

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    Two.forward = forward
    assert words in refused(Two())


def test_shared_parameters_are_refused():
    from torch import nn

    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    assert "got 2 calls" in refused(nn.Sequential(a, nn.ReLU(), a))
    b.weight = a.weight
    assert "got ['1.weight'] shared" in refused(nn.Sequential(a, b))


def test_a_head_of_zeros_hides_no_difference():
    """The comparison draws parameters of its own."""
    import torch
    from torch import nn

    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    module[0].register_forward_hook(lambda layer, x, y: torch.exp(y))
    for p in module[1].parameters():
        nn.init.zeros_(p)
    assert "got others" in refused(module)


def test_other_arguments_are_refused():
    from torch import nn

    module = nn.Sequential(nn.Linear(3, 2))
    assert refused(3) == "module: expected a torch.nn.Module, got int"
    assert refused(nn.Linear(3, 2)).endswith("got nn.Linear alone")
    assert refused(nn.Sequential()).startswith("module: expected a chain of layers")
    assert refused(module, 3) == "input_shape: expected a shape (C, H, W) or (F,), got 3"
    assert refused(module, (3.5,)) == "input_shape: expected an integer >= 1, got 3.5"
    assert refused(module, (4,)).startswith("layer 0: input of Linear: expected vectors")
    assert refused(module, loss=nn.L1Loss()).startswith("loss: expected one of nn.CrossEntropyLoss")
    assert "ignore_index: expected -100, got 1" in refused(
        module, loss=nn.CrossEntropyLoss(None, None, 1)
    )
    assert refused(module, loss="mse").startswith("loss: expected a loss")


def test_without_pytorch_the_reason_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(rm.ArgumentError, match="from_torch: expected PyTorch, got torch cannot"):
        rm.from_torch(3, (3,))


def test_importing_refmaml_imports_no_framework():
    code = "import sys, refmaml, refmaml.torch_modules; print({'torch', 'jax'} & set(sys.modules))"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "set()"


# ---- a stand-in for a layer that refmaml does not have -------------------------------


@dataclass(frozen=True)
class Hardtanh(Layer):
    """A stand-in for a layer that refmaml gets later, with torch's arguments."""

    min_val: float = -1.0
    max_val: float = 1.0

    def forward(self, k, w, x):
        return np.clip(x, self.min_val, self.max_val), None


@pytest.fixture
def with_hardtanh(monkeypatch):
    monkeypatch.setattr(rm.layers, "Hardtanh", Hardtanh, raising=False)
    monkeypatch.setattr(rm.layers, "__all__", [*rm.layers.__all__, "Hardtanh"])


def test_a_new_layer_needs_no_entry_in_a_table(with_hardtanh):
    from torch import nn

    net = rm.from_torch(nn.Sequential(nn.Linear(4, 3), nn.Hardtanh(-0.5, 0.25)), (4,))
    assert net.layers[1] == Hardtanh(-0.5, 0.25)


def test_a_layer_that_computes_something_else_is_refused(with_hardtanh, monkeypatch):
    from torch import nn

    monkeypatch.setattr(Hardtanh, "forward", lambda self, k, w, x: (x, None))
    with pytest.raises(rm.ArgumentError, match="module: expected the outputs of its layers"):
        rm.from_torch(nn.Sequential(nn.Linear(4, 3), nn.Hardtanh()), (4,))


def test_a_wrong_epsilon_is_refused(monkeypatch):
    from torch import nn

    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert rm.from_torch(module, (4,)).layers[1] == rm.BatchNorm2d(3)
    wrong = layer_table.Special("BatchNorm2d", lambda m: rm.BatchNorm2d(m.num_features, eps=2e-5))
    monkeypatch.setitem(layer_table.SPECIAL, "BatchNorm1d", wrong)
    with pytest.raises(rm.ArgumentError, match="module: expected the outputs of its layers"):
        rm.from_torch(module, (4,))
