"""conv4 with a head that starts at 0."""

import numpy as np
import pytest
from command_line import REFERENCE, configuration

import refmaml as rm
from refmaml.cli import presets, problem


@pytest.mark.parametrize("head", ["mean", "flatten"])
def test_a_zero_head_changes_the_weights_of_the_head_alone(head):
    nets = [rm.conv4(3, 4, head=head, **given) for given in ({}, {"head_init": "zero"})]
    random, zero = (net.named(net.init(0)) for net in nets)
    *body, weight, bias = random
    assert weight.endswith("weight") and bias.endswith("bias")
    assert all(np.array_equal(random[name], zero[name]) for name in (*body, bias))
    assert (zero[weight] == 0).all() and (random[weight] != 0).any()


def test_all_classes_start_with_the_same_probability():
    net = rm.conv4(3, 4, head_init="zero", kernels="reference")
    x, y = np.random.default_rng(0).random((1, 6, 1, 28, 28)), np.array([[0, 1, 2, 0, 1, 2]])
    assert np.isclose(net.loss(net.init(0, float)[None], x, y)[0], np.log(3), rtol=1e-15)


def test_another_start_is_refused():
    with pytest.raises(rm.ArgumentError, match="^head_init: expected .*random.*zero.*, got 'ones'"):
        rm.conv4(head_init="ones")


def test_the_command_line_builds_it():
    config = configuration("--head-init", "zero", "--channels", "2", *REFERENCE)
    net = problem.make_net(config)
    weights = [a for name, a in net.named(net.init(0)).items() if name.endswith("weight")]
    assert (weights[-1] == 0).all()
    assert configuration()["head_init"] == "random"


@pytest.mark.parametrize("name", [name for name in presets.PRESETS if name.startswith("imaml")])
def test_a_preset_of_imaml_makes_the_method_that_it_describes(name):
    method = problem.make_method(configuration("--preset", name))
    if "released" in name:
        assert method == rm.ReleasedIMAML()
        return
    newton, works = "-hf-" in name, name.endswith("works")
    descent = "controlled_descent" if works else "gradient_descent"
    assert method.solver == ("newton_cg" if newton else descent)
    assert method.regularization == (20.0 if works else 2.0) and method.cg_steps == 5
