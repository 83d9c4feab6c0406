"""Kernels that fuse batch-norm, activation and pooling, on the CPU through g++.

They are compared with the three layers on the reference kernels.
"""

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from cuda_shim.device import ShimDevice
from fused_layers import FUSED_REFERENCE, LARGE, SMALL, errors, fused, unfused
from kernel_passes import PRECISIONS, REFERENCE, draws, passes

from refmaml import kernels
from refmaml.execution import Sequential
from refmaml.execution.fused_layers import Identity, NormActPool
from refmaml.execution.fusion import fused_layers
from refmaml.kernels.norm_act_pool import cuda as fused_launches
from refmaml.layers import BatchNorm2d, Conv2d, Flatten, LeakyReLU, Linear, MaxPool2d, ReLU, Tanh
from refmaml.models import conv4
from refmaml.oracles import cases
from refmaml.oracles.net_checks import net_terms
from refmaml.oracles.tolerance import relative_error, tolerance
from refmaml.oracles.whole_net_checks import EXAMPLES, nets, probe

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))]
NETS = {
    "strided conv4": conv4(3, channels=3, image=(1, 10, 10)),
    "max-pool conv4": conv4(
        3, channels=2, image=(1, 16, 17), downsample="max_pool", head="flatten", bn_gamma=True
    ),
    "flattened first": nets()["flattened first"],
}


@pytest.mark.parametrize("kernel_set", ["reference", "cuda"])
@pytest.mark.parametrize("case", SMALL + LARGE, ids=str)
def test_every_pass_is_that_of_the_three_layers(request, kernel_set, case):
    candidate = FUSED_REFERENCE if kernel_set == "reference" else request.getfixturevalue("cuda")
    for dtype in PRECISIONS:
        for tasks, shared in (
            ((3, False), (2, True), (1, False)) if case not in LARGE else ((2, False),)
        ):
            found = errors(case, candidate, tasks, shared, dtype)
            assert max(found.values()) <= 1, found


@pytest.mark.parametrize("case", [SMALL[0], LARGE[0]], ids=str)
def test_a_channel_too_large_for_shared_memory_has_the_same_bits(cuda, case, monkeypatch):
    inputs = draws(unfused(case), 2, False, np.float32)
    in_shared = passes(case, cuda, *inputs)
    monkeypatch.setattr(fused_launches, "SHARED_BYTES", 0)
    in_memory = passes(case, cuda, *inputs)
    assert all(np.array_equal(in_shared[name], in_memory[name]) for name in in_shared)


def test_a_block_has_whole_warps_and_threads_in_proportion_to_the_channel():
    counts = 1, 20, 256, 257, 980, 3675, 58_800
    assert [fused_launches.threads(n) for n in counts] == [32, 32, 32, 32, 128, 512, 512]


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_appear_where_they_do_in_the_three_layers(cuda, window, value):
    case = cases.LayerCase(NormActPool(BatchNorm2d(2), 0.0, window), (2, 6, 7))
    inputs = draws(unfused(case), 2, False, np.float64)
    for which in (2, 4):  # in x, in dy
        strange = list(inputs)
        strange[which] = inputs[which].copy()
        strange[which][1, 2, 0, 0, 1] = value
        with np.errstate(all="ignore"):
            truth, values = passes(unfused(case), REFERENCE, *strange), passes(case, cuda, *strange)
        for name in truth:
            assert np.array_equal(np.isnan(truth[name]), np.isnan(values[name])), name
            assert np.isfinite(values[name][0]).all(), name  # the other task
        assert not np.isfinite(values["dx"]).all() and not np.isfinite(values["rdx"]).all()


@pytest.mark.parametrize(
    "dtype,shared",
    [(np.float64, False), (np.float32, True)],
    ids=["float64", "float32, shared weights"],
)
@pytest.mark.parametrize("name", NETS)
def test_whole_nets_agree_with_the_reference_in_loss_gradient_and_hessian_vector_products(
    device, name, shared, dtype
):
    net, once = NETS[name], ShimDevice(device.libraries, ("shuffled",))
    w, x, y, v, _ = probe(net, dtype, shared)

    def quantities(net, w, x, v):
        primal = net.primal(w, x, y)
        return {
            "loss": primal.loss,
            "gradient": primal.grad,
            "H v": net.hvp(primal, v),
            "G v": net.gauss_newton_product(primal, v),
        }

    exact, values = (
        quantities(net, w.astype(float), x.astype(float), v.astype(float)),
        quantities(fused(net, kernels.cuda(once)), w, x, v),
    )
    for quantity in exact:
        assert relative_error(values[quantity], exact[quantity]) <= tolerance(
            dtype, net_terms(net, EXAMPLES)
        ), quantity
    launched = {kernel for kernel, _ in once.launched}
    assert {
        f"norm_act_pool_{name}" for name in ("forward", "backward", "r_forward", "r_backward")
    } <= launched
    assert not {"batch_norm_forward", "max_pool2d_forward"} & launched


# (a layer, the kind of layer that fusion puts in its place)
LAYERS_AND_FUSED_KINDS = [
    (BatchNorm2d(2), NormActPool),
    (ReLU(), Identity),
    (MaxPool2d(2), Identity),
    (Conv2d(2, 3, 1), Conv2d),
    (BatchNorm2d(3, gamma=False), NormActPool),
    (Tanh(), Tanh),
    (BatchNorm2d(3), NormActPool),
    (MaxPool2d(2, stride=1), MaxPool2d),  # not fused: overlapping windows
    (BatchNorm2d(3), NormActPool),
    (LeakyReLU(-0.5), LeakyReLU),  # not fused: a slope below 0
    (BatchNorm2d(3), NormActPool),
    (MaxPool2d((8, 16)), MaxPool2d),  # not fused: a window of 128 pixels
    (Flatten(), Flatten),
    (Linear(3, 2), Linear),
]


def test_fusion_keeps_the_positions_of_layers_and_the_names_of_parameters(cuda):
    layers, kinds = zip(*LAYERS_AND_FUSED_KINDS, strict=True)
    net = Sequential(list(layers), input_shape=(2, 20, 36))
    out = fused(net, cuda)
    assert out.shapes == net.shapes
    assert out.output_shape((2, 20, 36)) == net.output_shape((2, 20, 36))
    assert tuple(type(layer) for layer in out.layers) == kinds
    assert out.layers[0] == NormActPool(BatchNorm2d(2), 0, (2, 2))
    assert fused_layers(net.layers, REFERENCE) == net.layers  # a kernel set without such kernels


@pytest.mark.parametrize("kernel", ["forward", "backward", "r_forward", "r_backward"])
def test_a_kernel_that_is_wrong_by_a_thousandth_is_caught(cuda, kernel):
    def wrong(out, *rest):
        cuda.functions[f"norm_act_pool_{kernel}"](out, *rest)
        out *= out.dtype.type(1.001)

    candidate = cuda.replace(**{f"norm_act_pool_{kernel}": wrong})
    assert any(max(errors(case, candidate, 2, False, np.float32).values()) > 1 for case in SMALL)
