"""The doctor on other layouts, on a user's own net, and on a user's own batch."""

import numpy as np
import pytest
from implementations import MAML, maml
from wrong_implementations import step_sizes

import refmaml as rm

pytestmark = pytest.mark.slow


def test_arrays_are_passed_and_returned_in_the_given_layout():
    shapes = []

    def function(problem, params, batch):
        shapes.append((params["0.weight"].shape, batch.x_support.shape))
        return step_sizes(lambda name: 1.0)(problem, params, batch)

    layout = {"*.weight": "HWIO", "x": "NHWC"}
    assert rm.check_meta_gradient(function, MAML, probes=("conv",), layout=layout, repeats=0)
    assert shapes[0][0] == (3, 3, 1, 3) and shapes[0][1][2:] == (4, 6, 1)
    report = rm.check_meta_gradient(
        function, MAML, probes=("mlp",), layout={"0.weight": "IO"}, repeats=0
    )
    assert report.ok and shapes[-1][0] == (7, 13)


@pytest.mark.frameworks("torch")
def test_a_layout_works_in_torch_too():
    from torch_implementations import torch_maml

    layout = {"*.weight": "HWIO", "x": "NHWC"}
    assert rm.check_meta_gradient(
        torch_maml, MAML, framework="torch", probes=("conv",), layout=layout, repeats=0
    )


def own_net():
    return rm.Sequential([rm.Linear(3, 4), rm.Softplus(), rm.Linear(4, 2)], rm.MSE(), (3,))


def test_a_function_of_two_arguments_is_compared_with_its_own_net():
    net, method = own_net(), rm.MAML(0.1, 2)

    def function(params, batch, of=method):
        return net.named(of.meta_gradient(net, net.flat(params), rm.Batch(*batch)).grad)

    report = rm.check_meta_gradient(function, method, net=net)
    assert report.ok and {s.case for s in report.results} == {"own net"}
    report = rm.check_meta_gradient(
        lambda params, batch: function(params, batch, rm.FirstOrderMAML(0.1, 2)), method, net=net
    )
    assert report.verdict == "wrong" and report.diagnosis.startswith("first-order")


def test_the_given_batch_is_used_and_another_net_is_wrong():
    net, method, rng = own_net(), rm.MAML(0.1, 2), np.random.default_rng(0)
    batch = rm.Batch(
        *(rng.standard_normal(shape) for shape in ((2, 4, 3), (2, 4, 2), (2, 6, 3), (2, 6, 2)))
    )
    seen = []

    def function(params, given):
        seen.append(given.x_query)
        other = rm.Sequential([rm.Linear(3, 4), rm.Tanh(), rm.Linear(4, 2)], rm.MSE(), (3,))
        return other.named(method.meta_gradient(other, other.flat(params), rm.Batch(*given)).grad)

    report = rm.check_meta_gradient(function, method, net=net, batch=batch, seconds=1)
    assert (
        report.verdict == "wrong"
        and np.array_equal(seen[0], batch.x_query)
        and report.diagnosis.startswith("no mistake")
    )


def test_a_second_order_term_too_small_to_see_is_a_remark():
    net, method = own_net(), rm.MAML(1e-9, 2)

    def first_order(params, batch):
        return net.named(
            rm.FirstOrderMAML(1e-9, 2).meta_gradient(net, net.flat(params), rm.Batch(*batch)).grad
        )

    report = rm.check_meta_gradient(first_order, method, net=net, precision="float32")
    assert report.ok and any("cannot be seen" in remark for remark in report.remarks)


def test_an_own_net_is_checked_besides_the_built_in_cases():
    net = rm.conv4(n_way=3, channels=3, image=(1, 16, 16))
    report = rm.check_meta_gradient(
        maml, rm.MAML(0.1, 2), net=net, probes=("quadratic",), repeats=0
    )
    assert report.ok and [s.case for s in report.results] == ["quadratic", "own net"] * 2
