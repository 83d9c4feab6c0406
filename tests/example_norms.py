"""Cases and nets of GroupNorm, LayerNorm and InstanceNorm2d that tests share."""

import refmaml as rm
from refmaml.oracles.layer_cases import cases_of

KINDS = (rm.GroupNorm, rm.LayerNorm, rm.InstanceNorm2d)
CASES = [case for kind in KINDS for case in cases_of(kind)]


def small_net(norm, second):
    """A convolution and a linear layer, each with a norm."""
    layers = [rm.Conv2d(1, 4, 3), norm, rm.Tanh(), rm.Flatten(), rm.Linear(36, 6), second]
    return rm.Sequential(
        [*layers, rm.Softplus(), rm.Linear(6, 3)], rm.CrossEntropy(), (1, 5, 5), kernels="reference"
    )


NETS = {
    "group": small_net(rm.GroupNorm(2, 4), rm.GroupNorm(1, 6)),
    "layer": small_net(rm.LayerNorm((4, 3, 3)), rm.LayerNorm(6, bias=False)),
    "part of a layer": small_net(rm.LayerNorm((3, 3)), rm.LayerNorm(6)),
    "instance": small_net(rm.InstanceNorm2d(4, affine=True), rm.GroupNorm(1, 6, affine=False)),
}
