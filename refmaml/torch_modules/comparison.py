"""The outputs of a module and of its net on the same numbers, in float64."""

import copy
from math import prod

import numpy as np

from refmaml.errors import ArgumentError, expect
from refmaml.layers import Dropout
from refmaml.torch_modules.layer_table import ADVICE, DROPPING

# Both add the same float64 numbers in different orders; a net of ten layers stays
# within 1e-12. A forward that computes something else is off by far more.
TOLERANCE = 1e-10
# Two sizes: a forward that mixes examples agrees for one size at most. Batch-norm of
# two vectors returns +-1 whatever they are, so there are more than two.
EXAMPLES = (4, 5)


def expect_same_outputs(module, net):
    """Raise ArgumentError unless module and net compute the same outputs.

    Parameters and inputs are random, so that a head of zeros hides nothing. The module
    itself is not changed: a float64 copy of it on the CPU runs.
    """
    twin, rng = float64_copy(module), np.random.default_rng(0)
    theta = random_parameters(net, twin, rng)
    for examples in EXAMPLES:
        x = rng.standard_normal((examples, *net.input_shape))
        z, ours = outputs(twin, x), net_outputs(net, theta, x)
        wanted = f"outputs of shape {ours.shape}"
        expect(z.shape == ours.shape, "module", wanted, f"{z.shape}{ADVICE}")
        scale = np.abs(ours).max()
        error = np.abs(z - ours).max() / scale if scale > 0 else np.abs(z).max()
        ok = error <= TOLERANCE
        wanted = "the outputs of its layers in order"
        expect(ok, "module", wanted, f"others, by {error:.0e}{ADVICE}")


def float64_copy(module):
    """A copy in float64 on the CPU, in the module's mode, without dropout."""
    import torch

    twin = copy.deepcopy(module).to("cpu", torch.float64)
    for part in twin.modules():
        if type(part).__name__ in DROPPING:
            part.p = 0.0
    return twin


def random_parameters(net, twin, rng):
    """A random theta (P,), which is written into the module as well."""
    import torch

    theta = np.empty(net.num_params)
    for name, a in net.named(theta).items():
        a[...] = rng.standard_normal(a.shape) / np.sqrt(prod(a.shape[1:]))
        with torch.no_grad():
            twin.get_parameter(name).copy_(torch.from_numpy(a.copy()))
    return theta


def outputs(twin, x):
    """The module's outputs. Raises ArgumentError in one line where it raises."""
    import torch

    try:
        with torch.no_grad():
            return twin(torch.from_numpy(x.copy())).numpy()  # it may overwrite x
    except Exception as error:  # whatever the module's own code raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArgumentError(
            f"module: expected outputs for inputs of shape {x.shape}, got {lines[0]}"
        ) from None


def net_outputs(net, theta, x):
    """The net's outputs of one task, without its dropout layers."""
    z = x[None]
    for layer, w in zip(net.layers, net.parameters.views(theta[None]), strict=True):
        if not isinstance(layer, Dropout):
            z, _ = layer.forward(net.kernels, w, z)
    return z[0]
