"""from_torch: a module of PyTorch as a net of refmaml."""

from dataclasses import replace

from refmaml.arguments import check_integer
from refmaml.autodiff.torch_autodiff import missing
from refmaml.errors import expect
from refmaml.execution import Sequential
from refmaml.torch_modules.comparison import expect_same_outputs
from refmaml.torch_modules.layer_table import ADVICE, convert, convert_loss
from refmaml.torch_modules.tracing import steps


def from_torch(module, input_shape, loss=None, kernels=None):
    """A module of torch.nn as a net, with the module's names of parameters.

    module       torch.nn.Sequential, nested or not, or a module whose forward is a
                 chain of known layers and functions (F.relu, torch.flatten, ...)
    input_shape  the shape of one input, (C, H, W) or (F,)
    loss         CrossEntropy("mean") unless given: a loss of refmaml, or one of
                 torch.nn that refmaml has as well, such as nn.MSELoss()
    kernels      see Sequential

    net.shapes has the names of the module's parameters, "features.0.weight", in the
    order of its forward. To begin where the module is, and to write a vector back:

        theta = net.flat(module.state_dict(), dtype=np.float64)
        state = {name: torch.from_numpy(a) for name, a in net.named(theta).items()}
        module.load_state_dict(state, strict=False)    # buffers stay as they are

    net.init draws refmaml's own initial values. Batch-norm uses the statistics of the
    batch, as in module.train(). A parameter with requires_grad=False is one like all
    others: methods take `frozen=`. nn.Softplus returns x itself above its threshold of
    20, which is 2e-9 off there.

    The net is compared with the module on random parameters and inputs in float64.
    Raises ArgumentError in one line for a layer that refmaml does not have, for
    parameters that are shared or unused, and where the outputs differ.
    """
    input_shape = check_module(module, input_shape)
    converted = {step.name: convert(step.module, step.name) for step in steps(module)}
    layers = {name: layer for name, layer in converted.items() if layer is not None}
    net = Sequential(with_own_seeds(layers), convert_loss(loss), input_shape, kernels)
    expect_same_parameters(module, net)
    expect_same_outputs(module, net.with_kernels(None))
    return net


def check_module(module, input_shape):
    """The input shape as a tuple of integers; checks that module is one of PyTorch.

    Raises ArgumentError, also without PyTorch.
    """
    reason = missing()
    expect(reason is None, "from_torch", "PyTorch", lambda: reason)
    from torch import nn

    is_module = isinstance(module, nn.Module)
    expect(is_module, "module", "a torch.nn.Module", lambda: type(module).__name__)
    known = isinstance(input_shape, tuple | list)
    expect(known, "input_shape", "a shape (C, H, W) or (F,)", lambda: repr(input_shape))
    return tuple(check_integer("input_shape", size) for size in input_shape)


def with_own_seeds(layers):
    """The layers, with the seeds 0, 1, ... in those that have a seed: dropout.

    Equal seeds would give two layers the same mask.
    """
    seeded = [name for name, layer in layers.items() if hasattr(layer, "seed")]
    return layers | {name: replace(layers[name], seed=i) for i, name in enumerate(seeded)}


def expect_same_parameters(module, net):
    """Raise ArgumentError unless module and net have the same parameters, once each."""
    named = dict(module.named_parameters(remove_duplicate=False))
    unused = [name for name in named if name not in net.shapes]
    expect(not unused, "module", "a forward that uses every parameter", f"{unused[:1]}{ADVICE}")
    once = dict(module.named_parameters())
    shared = [name for name in named if name not in once]
    expect(not shared, "module", "a tensor of its own for each parameter", f"{shared[:1]} shared")
    for name, shape in net.shapes.items():
        got = tuple(named[name].shape) if name in named else None
        expect(got == shape, f"parameter '{name}'", f"shape {shape}", f"{got}")
