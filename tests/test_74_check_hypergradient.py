"""rm.check_hypergradient: one step size, lambda, a ridge; and its variable."""

from math import exp, log, log1p

import numpy as np
import pytest

import refmaml as rm


def softplus(raw):
    return log1p(exp(raw))


def cubic(change):
    """fn(lam) -> (change(3 lam^2, lam), lam^3)."""
    return lambda lam: (change(3 * lam**2, lam), lam**3)


def test_a_right_derivative_of_one_number():
    report = rm.check_hypergradient(cubic(lambda g, lam: g), 0.7)
    assert report.ok and report.row("value").error < 1e-10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g, lam: -g, "the sign is wrong"),
        (lambda g, lam: 0.0, "is 0: no gradient arrives"),
        (lambda g, lam: 5 * g, "is 5 times the right one"),
        (lambda g, lam: g / 2, "is 1/2 times the right one: with a factor 1/2 too many"),
        (lambda g, lam: g * lam, "is that in log(value)"),
        (
            lambda g, lam: -g * lam,
            "is that in log(value): it is the value times too large; and the",
        ),
        (lambda g, lam: g * lam * log(10), "is that in log10(value)"),
        (lambda g, lam: g * (1 - exp(-lam)), "where the value is softplus(raw)"),
        (lambda g, lam: g * lam * (1 - lam), "where the value is sigmoid(raw)"),
        (lambda g, lam: -g * lam**2, "is minus that in 1 / value"),
        (lambda g, lam: g + 1, "wrong in value"),
    ],
)
def test_a_derivative_in_another_variable_is_named(change, words):
    report = rm.check_hypergradient(cubic(change), 0.7)
    assert report.verdict == "wrong" and words in report.diagnosis, report


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (exp, "lacks the factor exp'(raw)"),
        (softplus, "lacks the factor softplus'(raw)"),
        (lambda raw: raw**2, "lacks the factor 2 raw"),
        (lambda raw: 1 / (1 + exp(-raw)), "lacks the factor sigmoid'(raw)"),
    ],
)
def test_a_factor_of_a_learned_rate_that_is_missing(rate, words):
    report = rm.check_hypergradient(lambda raw: (3 * rate(raw) ** 2, rate(raw) ** 3), 0.3)
    assert report.verdict == "wrong" and words in report.diagnosis
    twice = rm.check_hypergradient(lambda raw: (3 * exp(raw) ** 4, exp(raw) ** 3), 0.3)
    assert "exp'(raw) = exp(raw) once too often" in twice.diagnosis


def test_each_of_several_hyperparameters_has_a_name_of_its_own():
    def fn(v):
        a, b = v["rate"], v["decay"]
        return {"rate": -2 * a * b, "decay": a**2 * b}, a**2 * b

    report = rm.check_hypergradient(fn, {"rate": 0.1, "decay": 3.0})
    assert report.verdict == "wrong" and report.diagnosis == "wrong in rate, decay"
    assert any("rate" in f and "sign" in f for f in report.findings)
    assert any("decay" in f and "log(value)" in f for f in report.findings)


def test_a_kink_is_inconclusive_and_noise_too():
    assert rm.check_hypergradient(lambda a: (0.0, abs(a)), 0.0).verdict == "inconclusive"
    rng = np.random.default_rng(0)
    noisy = rm.check_hypergradient(lambda a: (2 * a, a**2 + 1e-3 * rng.standard_normal()), 0.5)
    assert noisy.verdict == "inconclusive" and "from call to call" in noisy.diagnosis


# ---- ridge regression: d of the loss on query examples in lambda ---------------------

R = np.random.default_rng(0)
X, Y = R.standard_normal((20, 6)), R.standard_normal((20, 1))
XQ, YQ = R.standard_normal((15, 6)), R.standard_normal((15, 1))
RIDGE = rm.Sequential([rm.Linear(6, 1, bias=False)], rm.MSE(factor=0.5), (6,))
BATCH = rm.Batch(X[None], Y[None], XQ[None], YQ[None])
LAM = 0.7


def ridge(lam):
    """(dM/dlambda, M): the closed form with its implicit derivative."""
    A = X.T @ X / 20 + lam * np.eye(6)
    w = np.linalg.solve(A, X.T @ Y / 20)
    e = XQ @ w - YQ
    q = XQ.T @ e / 15
    return -(np.linalg.solve(A, q).T @ w).item(), (e**2).sum() / 30


def imaml(lam=LAM):
    return rm.IMAML(lam, inner_steps=20, solver="newton_cg", cg_steps=30, cg_tol=1e-14)


def test_the_project_s_own_derivative_in_lambda_is_the_closed_form():
    out = imaml().meta_gradient(RIDGE, np.zeros(6), BATCH, hyper=True)
    exact, loss = ridge(LAM)
    assert abs(out.hyper["regularization"] - exact) <= 1e-12 * abs(exact)
    assert abs(out.loss - loss) <= 1e-12 * loss


@pytest.mark.parametrize("by", ["differences", "complex step"])
def test_the_closed_form_of_ridge_regression_is_right(by):
    def analytic(lam):
        A = X.T @ X / 20 + lam * np.eye(6)
        w = np.linalg.solve(A, X.T @ Y / 20)
        e = XQ @ w - YQ
        return ridge(np.real(lam))[0], (e**2).sum() / 30

    report = rm.check_hypergradient(analytic if by != BY else ridge, LAM, by=by)
    assert report.ok and report.row("value").error <= (1e-12 if by != BY else 1e-9)


BY = "differences"


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1.0, None), (-1.0, "the sign is wrong"), (LAM, "log(value)"), (0.5, "1/2 times")],
)
def test_a_derivative_in_lambda_beside_the_method(factor, words):
    given = {"method": imaml(), "net": RIDGE, "theta": np.zeros(6), "batch": BATCH}
    values = {"regularization": LAM}
    for form in (
        lambda g, loss: {"regularization": g},
        lambda g, loss: ({"regularization": g}, loss),
    ):

        def fn(v, form=form):
            g, loss = ridge(v["regularization"])
            return form(factor * g, loss)

        report = rm.check_hypergradient(fn, values, **given)
        assert report.ok == (words is None)
        assert words is None or words in report.diagnosis


def test_the_loss_is_compared_with_the_method_s_too():
    given = {"method": imaml(), "net": RIDGE, "theta": np.zeros(6), "batch": BATCH}

    def fn(v):
        g, loss = ridge(v["regularization"])
        return {"regularization": g}, 2 * loss

    report = rm.check_hypergradient(fn, {"regularization": LAM}, **given)
    assert report.verdict == "wrong" and "the loss differs" in report.diagnosis


def test_one_step_size_and_a_momentum_beside_the_method():
    net = rm.mlp((2, 4, 1), activation="tanh")
    shapes = (3, 5, 2), (3, 5, 1), (3, 6, 2), (3, 6, 1)
    batch = rm.Batch(*(R.standard_normal(shape) for shape in shapes))
    theta = net.init(seed=0, dtype=np.float64)

    def method(lr, momentum=0.5):
        return rm.MAML(inner_lr=lr, inner_steps=3, rule=rm.SGD(momentum=momentum))

    def loss(lr):
        return float(method(lr).meta_gradient(net, theta, batch).loss)

    def by_differences(v):
        h, a = 1e-3, v["inner_lr"]
        d = (8 * (loss(a + h) - loss(a - h)) - loss(a + 2 * h) + loss(a - 2 * h)) / (12 * h)
        return {"inner_lr": d, "theta": theta}, loss(a)

    given = {"method": method(0.1), "net": net, "theta": theta, "batch": batch}
    assert rm.check_hypergradient(by_differences, {"inner_lr": 0.1}, **given).ok
    hyper = method(0.1).meta_gradient(net, theta, batch, hyper=True).hyper
    both = {n: float(hyper[n]) for n in ("inner_lr", "momentum")}
    assert rm.check_hypergradient(lambda v: both, {"inner_lr": 0.1, "momentum": 0.5}, **given).ok
    wrong = {**both, "momentum": 2 * both["momentum"]}
    report = rm.check_hypergradient(lambda v: wrong, {"inner_lr": 0.1, "momentum": 0.5}, **given)
    assert "momentum is 2 times the right one" in report.diagnosis
    assert "; or is divided by the value" in report.diagnosis  # one value cannot tell


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fn": 1, "values": 1.0}, "fn: expected a function"),
        ({"fn": cubic(lambda g, a: g), "values": {}}, "values: expected at least one number"),
        ({"fn": lambda a: a, "values": 1.0}, "fn: expected (gradient, loss), got float"),
        ({"fn": cubic(lambda g, a: g), "values": np.ones(65)}, "values: expected at most 64"),
        (
            {"fn": cubic(lambda g, a: g), "values": 1.0, "by": "x"},
            "by: expected one of differences",
        ),
        (
            {"fn": cubic(lambda g, a: g), "values": 1.0, "method": imaml()},
            "method: expected method, net, theta and batch, got some of them",
        ),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words):
    with pytest.raises(rm.ArgumentError) as error:
        rm.check_hypergradient(**arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_hyperparameter_of_a_method_is_one_line():
    with pytest.raises(rm.ArgumentError, match="values: expected some of regularization, got 'x'"):
        rm.check_hypergradient(lambda v: v, {"x": 1.0}, method=imaml(), net=RIDGE,
                               theta=np.zeros(6), batch=BATCH)  # fmt: skip
