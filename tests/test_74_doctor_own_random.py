"""Losses that draw random numbers in PyTorch, as dropout does."""

import pytest
from test_74_doctor_own_loss import check, meta

pytestmark = pytest.mark.frameworks("torch")


def dropout(params, x, y):
    import torch
    from torch.nn import functional as F

    h = torch.tanh(F.linear(x, params["0.weight"], params["0.bias"]))
    h = F.dropout(h, 0.5, training=True)
    return F.mse_loss(F.linear(h, params["2.weight"], params["2.bias"]), y)


def seeded(fn):
    """The function, seeded as the doctor advises."""
    import torch

    def call(params, batch):
        torch.manual_seed(11)
        return fn(params, batch)

    return call


def test_dropout_is_noise_until_the_function_is_seeded_as_advised():
    report = check(meta(dropout), loss=dropout)
    assert report.verdict == "wrong" and "noise (dropout" in report.diagnosis
    assert "torch.manual_seed" in report.fix
    report = check(seeded(meta(dropout)), loss=dropout, repeats=6)
    assert report.ok and any("seed 11" in remark for remark in report.remarks)
    report = check(seeded(meta(dropout, create_graph=False)), loss=dropout)
    assert report.diagnosis.startswith("first-order")


def test_a_loss_that_seeds_itself_repeats_and_is_an_ordinary_loss():
    import torch

    def repeats(params, x, y):
        torch.manual_seed(3)
        return dropout(params, x, y)

    report = check(meta(repeats), loss=repeats)
    assert report.ok and not report.remarks
