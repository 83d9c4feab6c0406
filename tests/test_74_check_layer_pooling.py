"""check_layer on pooling and ReLU: conventions for ties are no mistakes."""

import numpy as np
import pytest
from hand_written_layers import max_pool

import refmaml as rm


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("first", None),
        ("last", "the last of equal values in row order"),
        ("all", "each of the equal values, in full"),
        ("split", "the equal values in equal parts"),
    ],
)
@pytest.mark.parametrize("overlap", [False, True])
def test_another_rule_for_ties_is_a_convention_and_not_a_mistake(rule, words, overlap):
    sizes = {"window": 3, "stride": 2} if overlap else {}
    like = rm.MaxPool2d(3, 2) if overlap else rm.MaxPool2d(2)
    report = rm.check_layer(max_pool(rule, **sizes), like)
    assert report.ok, report
    said = [r for r in report.remarks if "a convention for ties, not a mistake" in r]
    assert (said == []) if words is None else (words in said[0])


@pytest.mark.parametrize("rule", [1e-2, 1e-5, 1e-9, "isclose"])
def test_a_tolerance_in_the_comparison_is_wrong(rule):
    report = rm.check_layer(max_pool(rule), rm.MaxPool2d(2))
    assert report.verdict == "wrong" and "a tolerance in the comparison" in report.diagnosis
    largest = float(report.diagnosis.split("entries up to ")[1].split()[0])
    tolerance = 1e-5 if rule == "isclose" else rule
    assert 0.1 * tolerance < largest <= 1.01 * tolerance


def test_faults_of_pooling_have_names():
    report = rm.check_layer(max_pool("overwrites", 3, 2), rm.MaxPool2d(3, 2))
    assert "overlapping windows overwrite each other" in report.diagnosis
    report = rm.check_layer(max_pool("first", 3, 1), rm.MaxPool2d(3, 2))
    assert "the stride is forgotten" in report.diagnosis

    def average(x, params, dy):
        return dy.repeat(2, 2).repeat(2, 3)[:, :, : x.shape[2], : x.shape[3]]

    report = rm.check_layer(average, rm.AvgPool2d(2), input_shape=(2, 6, 8))
    assert "4 times" in report.diagnosis or "the size of the window" in report.diagnosis


def test_the_derivative_of_relu_at_0_is_a_convention():
    for value in (0.0, 0.5, 1.0):

        def backward(x, params, dy, value=value):
            return np.where(x > 0, 1.0, np.where(x == 0, value, 0.0)) * dy

        report = rm.check_layer(backward, rm.ReLU())
        assert report.ok
        said = [r for r in report.remarks if "convention" in r]
        assert (said == []) if value == 0 else (f"the derivative at 0 is {value:.3g}" in said[0])
    report = rm.check_layer(lambda x, p, dy: np.where(dy > 0, dy, 0), rm.ReLU())
    assert "the sign of dy is used" in report.diagnosis
