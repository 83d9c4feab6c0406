"""CNP on the command line: training, resuming, evaluating, options."""

import numpy as np
import pytest
from command_line import REFERENCE, configuration, error_of, left_in, train

import refmaml as rm
from refmaml.cli import main, problem

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]
CNP = ("--method", "cnp", "--context", "3", "--encoder", "5", "--encoder-seed", "2")
PIXELS = ("--data", "completion", "--k-shot", "9", "--fewest-shots", "4", "--k-query", "6")


@pytest.mark.parametrize("data", [(), PIXELS], ids=["waves", "pixels"])
def test_a_run_stopped_and_resumed_has_the_bits_of_a_whole_one(data):
    assert train(*CNP, *data, "--steps", "3", "--out", "whole") == 0
    assert train(*CNP, *data, "--steps", "1", "--out", "part") == 0
    assert main(["train", "--resume", "--out", "part", "--steps", "3", "--quiet"]) == 0
    assert left_in("whole")[:2] == left_in("part")[:2]
    assert main(["evaluate", "part/checkpoint.npz", "--tasks", "3"]) == 0


def test_options_become_fields_of_the_method_and_sizes_of_its_nets():
    config = configuration("--data", "sinusoid", *CNP, "--hidden", "7", *REFERENCE)
    assert problem.make_method(config) == rm.CNP((5,), 2)
    net = problem.make_net(config)
    assert net.num_params == 3 + (4 * 7 + 7) + (7 * 2 + 2)
    assert isinstance(net.loss_function, rm.BoundedGaussianNLL)
    eta = problem.make_method(config).init(net, net.init(0))[net.num_params :]
    assert len(eta) == (2 * 5 + 5) + (5 * 3 + 3)


def test_a_training_step_of_pixels_draws_its_number_and_a_held_out_task_does_not():
    config = configuration(*PIXELS)
    for split, sizes in (("train", {4, 5, 6, 7, 8, 9}), ("test", {9})):
        sample = problem.sampler(problem.make_tasks(config, split), config, 9)
        shapes = [sample(range(2), step).x_support.shape for step in range(40)]
        assert {shape[1] for shape in shapes} == sizes
        assert {shape[2] for shape in shapes} == {18}  # a place, and four frequencies


def test_maml_trains_on_a_likelihood_too():
    given = ("--method", "maml", "--likelihood", "--steps", "2", "--out", "run")
    assert train(*given) == 0
    meta, _, _, config = left_in("run")
    net = problem.net_structure(config, rm.kernels.reference())
    assert net.output_shape((1,)) == (2,) and len(meta) == 4 * net.num_params


def test_weights_start_as_the_option_says():
    def widest(*argv):
        config = configuration("--data", "sinusoid", *argv, *REFERENCE)
        net = problem.make_net(config)
        return np.abs(net.named(net.init(0))[f"{len(net.layers) - 1}.weight"]).max()

    assert widest() < 0.021 < 0.1 < widest("--mlp-init", "xavier")
    assert (
        widest("--method", "cnp") > 0.1 and widest("--method", "cnp", "--mlp-init", "small") < 0.1
    )


@pytest.mark.parametrize(
    "argv, line",
    [
        (("--data", "glyphs", "--likelihood"), "--likelihood: expected --data sinusoid or linear"),
        (("--data", "sinusoid", "--context", "3"), "--context: expected --method cavia or cnp"),
        (("--data", "sinusoid", "--encoder", "3"), "--encoder: expected --method cnp beside it"),
        (("--data", "sinusoid", "--frequencies", "2"), "--frequencies: expected --data completion"),
        (("--data", "linear", "--likelihood"), "--net: expected mlp with --likelihood"),
    ],
)
def test_an_option_of_another_method_or_task_is_refused(capsys, argv, line):
    assert error_of(capsys, "train", *argv, "--steps", "1", *REFERENCE).startswith(line)
