"""The kernel table of `refmaml bench`: operations, errors, limits of the machine."""

from math import isclose

import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.bench import flops, kernel_table, machine
from refmaml.bench.kernel_calls import examples, nets, record_calls
from refmaml.bench.workloads import TABLE

TINY = TABLE["tiny"]


# ---- operations ----


def test_a_small_net_has_the_operations_counted_by_hand():
    net = rm.Sequential(
        [rm.Conv2d(2, 3, 3, padding=1), rm.ReLU(), rm.Flatten(), rm.Linear(48, 5)],
        input_shape=(2, 4, 4),
    )
    conv, linear = 2 * (3 * 4 * 4) * (2 * 3 * 3), 2 * 5 * 48
    assert flops.products(net, (2, 4, 4)) == [conv, linear]
    assert flops.gradient(net) == 2 * conv + 3 * linear  # y, dw; y, dx, dw
    assert flops.hvp(net) == 2 * conv + 6 * linear  # x rw, x rdy; two products each of ry, rdx, rdw


def test_the_workloads_have_the_operations_of_the_published_table():
    published = {"strided-1": 10.0, "strided-5": 39.9, "max-pool-1": 166.7}
    assert {name: round(TABLE[name].gflop, 1) for name in published} == published


def test_a_kernel_s_operations_are_those_of_its_layer():
    calls = record_calls("n", TINY.net(), *examples(TINY.net(), 2, 3), kernels.reference())
    first = next(c for c in calls if c.kernel == "conv2d_forward")
    per_image = flops.products(TINY.net(), TINY.net().input_shape)[0]
    assert kernel_table.operations(first) == 2 * 3 * per_image
    single, double = (
        next(c for c in calls if c.kernel == name)
        for name in ("linear_backward_w", "linear_r_backward_w")
    )
    assert kernel_table.operations(double) == 2 * kernel_table.operations(single)


# ---- kernels ----


@pytest.mark.slow
def test_the_nets_of_the_table_call_every_kernel():
    called = set()
    for name, (net, _, _) in nets().items():
        calls = record_calls(name, net, *examples(net, 1, 2), kernels.reference())
        called |= {call.kernel for call in calls}
    assert called == set(kernels.reference().functions)


def wrong_by_a_thousandth(name):
    right = kernels.reference()

    def wrong(*arguments):
        right.functions[name](*arguments)
        arguments[0][...] *= 1.001

    return right.replace("wrong", **{name: wrong})


@pytest.mark.parametrize(
    "name",
    ["conv2d_forward", "linear_backward_w", "batch_norm_r_backward", "cross_entropy_forward"],
)
def test_a_kernel_wrong_by_a_thousandth_is_beyond_its_tolerance(name):
    net = rm.conv4(n_way=3, channels=4, image=(1, 8, 8))
    calls = record_calls("n", net, *examples(net, 2, 3), kernels.reference())
    call, limits = next(c for c in calls if c.kernel == name), {"flop": 100.0, "byte": 10.0}
    for kernel_set, passes in ((kernels.reference(), True), (wrong_by_a_thousandth(name), False)):
        row = kernel_table.measure_call(call, kernel_set, limits, 0.001)
        assert (row.error <= row.tolerance) == passes
        assert isclose(row.fraction, row.rate / limits[row.unit]) and row.seconds.median > 0


def test_rates_of_the_machine_are_positive(monkeypatch):
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    monkeypatch.setattr(machine, "SIZE", 64)
    monkeypatch.setattr(machine, "COPY_BYTES", 1 << 16)
    assert all(value > 0 for values in machine.limits(2).values() for value in values.values())
    assert {"python", "numpy", "torch", "jax", "blas"} <= set(machine.versions())
