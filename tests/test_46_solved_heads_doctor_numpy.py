"""The doctor on solved heads, ALPaCA and CNP by hand in NumPy, right and wrong."""

import numpy as np
import pytest
from solved_by_hand import alpaca, cnp, logistic, of_head, ridge, svm

import refmaml as rm

R2D2, LRD2, SVM = rm.R2D2(0.75, 1.75, 0.25), rm.LRD2(1.5), rm.MetaOptNet(1.5, cost=0.3)
ALPACA, CNP = rm.ALPaCA(0.75, 0.25), rm.CNP((6, 5))
BY_CLASS = rm.CNP((6, 5), by_class=True)


def judged(fn, method, **options):
    return rm.check_meta_gradient(fn, method, precision="float64", repeats=0, **options)


@pytest.mark.parametrize(
    "fn, method",
    [
        (of_head(ridge), R2D2),
        (of_head(logistic), LRD2),
        (of_head(svm), SVM),
        (alpaca(), ALPACA),
        (cnp(), CNP),
        (cnp(), BY_CLASS),
    ],
    ids=["r2d2", "lrd2", "metaoptnet", "alpaca", "cnp", "cnp by class"],
)
def test_a_right_function_is_right(fn, method):
    report = judged(fn, method)
    assert report.verdict == "right", str(report)


WRONG = {
    "twice the solution of the head": (of_head(ridge, factor=2.0), R2D2),
    "nothing goes back through the solve": (of_head(ridge, through=False), R2D2),
    "lambda is a constant": (of_head(ridge, slope=False), R2D2),
    "lambda counts N times": (of_head(ridge, averaged=True), R2D2),
    "Newton's method stops after 2 steps, differentiated as if": (of_head(logistic, steps=2), LRD2),
    "half the solution": (of_head(logistic, factor=0.5), LRD2),
    "lambda is a constant: its": (of_head(logistic, slope=False), LRD2),
    "lets the entries at their bounds move": (of_head(svm, still=False), SVM),
    "twice the solution": (of_head(svm, factor=2.0), SVM),
    "a constant: nothing goes back": (of_head(svm, through=False), SVM),
    "no logarithm of the variance": (alpaca(log_det=False), ALPACA),
    "leaves out the weights' uncertainty": (alpaca(uncertain=False), ALPACA),
    "the prior's mean is 0": (alpaca(mean=False), ALPACA),
    "summed over examples": (cnp(pooled=np.sum), CNP),
    "each example gets dr": (cnp(share=False), CNP),
    "does not see the targets": (cnp(targets=False), CNP),
    "summed over examples, not": (cnp(pooled=np.sum), BY_CLASS),
    "each example gets dr, not": (cnp(share=False), BY_CLASS),
}


@pytest.mark.parametrize("words", WRONG)
def test_a_mistake_is_named(words):
    fn, method = WRONG[words]
    report = judged(fn, method, probes=("mlp",))
    assert report.verdict == "wrong" and words in report.diagnosis, str(report)
