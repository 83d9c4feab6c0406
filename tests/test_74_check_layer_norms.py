"""check_layer on norms: the faults of batch-norm and of the others, by name."""

from functools import partial

import numpy as np
import pytest
from hand_written_layers import batch_norm

import refmaml as rm


def test_a_right_batch_norm_is_right_and_a_term_that_is_0_is_said_to_be_0():
    for fault in ("", "no zero term"):
        report = rm.check_layer(batch_norm(fault), rm.BatchNorm2d)
        assert report.ok and max(row.error for row in report.rows) < 1e-13
        assert any("is identically 0" in remark for remark in report.remarks)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("mean not over n", "dx: the mean term is a sum, not divided by n"),
        ("no mean term", "dx: the mean term is missing"),
        ("no variance term", "dx: the variance term is missing"),
        ("statistics constant", "dx: the statistics are taken as constants"),
        ("variance over n - 1", "dx: the variance term is divided by n - 1, not n"),
        ("ddof", "the variance is divided by n - 1, not n (ddof = 1)"),
        ("eps outside", "eps is added outside the root"),
        ("per image", "over the wrong axes: each image of one channel alone"),
        ("per example", "over the wrong axes: each example alone (layer norm)"),
        ("no gamma", "dx: gamma is left out"),
        ("sign", "dx: the sign is wrong"),
        ("sum takes x", "dweight: the sum takes x, not the normalised xh"),
        ("db averaged", "dbias: 1/N times the right one (N = the number of examples)"),
    ],
)
@pytest.mark.parametrize("like", [rm.BatchNorm2d, rm.BatchNorm2d(3, eps=1e-5)])
def test_a_fault_of_batch_norm_has_a_name(fault, words, like):
    report = rm.check_layer(batch_norm(fault), like)
    assert report.verdict == "wrong" and report.fix, report
    short = fault == "db averaged" and like is not rm.BatchNorm2d  # one input: N or a number
    assert words in report.diagnosis or (short and "dbias: 1/N times" in report.diagnosis)


def test_dx_alone_is_judged_alone():
    report = rm.check_layer(lambda x, p, dy, l: batch_norm()(x, p, dy, l)["x"], rm.BatchNorm2d)
    assert report.ok and all(row.name.startswith("dx") for row in report.rows)


def test_the_other_norms_have_their_faults_too():
    def group_norm(x, params, dy, layer, terms=(1, 1)):
        grouped = x.reshape(len(x), layer.num_groups, -1)
        c = grouped - grouped.mean(2, keepdims=True)
        s = 1 / np.sqrt((c**2).mean(2, keepdims=True) + layer.eps)
        g = (dy * params["weight"][:, None, None]).reshape(grouped.shape)
        xh = c * s
        dx = g - terms[0] * g.mean(2, keepdims=True)
        dx = s * (dx - terms[1] * xh * (g * xh).mean(2, keepdims=True))
        return dx.reshape(x.shape)

    assert rm.check_layer(group_norm, rm.GroupNorm).ok
    for terms, words in (((0, 1), "mean term is missing"), ((1, 0), "variance term is missing")):
        report = rm.check_layer(partial(group_norm, terms=terms), rm.GroupNorm)
        assert words in report.diagnosis

    def layer_norm(x, params, dy):
        c = x - x.mean(1, keepdims=True)
        return dy * params["weight"] / np.sqrt((c**2).mean(1, keepdims=True) + 1e-5)

    assert "are taken as constants" in rm.check_layer(layer_norm, rm.LayerNorm(7)).diagnosis
