"""rm.check_solve: is it the product or the solver, and what does x solve instead?"""

import numpy as np
import pytest

import refmaml as rm

R = np.random.default_rng(0)
N = 12
Q = np.linalg.qr(R.standard_normal((N, N)))[0]
A = Q @ np.diag(np.linspace(0.2, 1.5, N)) @ Q.T
B = R.standard_normal(N)
I = np.eye(N)
X = np.linalg.solve(A, B)


def product(v):
    return A @ v


def neumann(a, terms, in_front=True):
    """a sum_{j < terms} (I - a A)^j b, or without a in front."""
    v = total = B
    for _ in range(terms - 1):
        v = v - a * A @ v
        total = total + v
    return a * total if in_front else total


def descent(steps, fault="", matrix=A):
    """Iterates of conjugate gradients, with a fault."""
    x, r, p = 0 * B, B, B
    for _ in range(steps):
        Ap = matrix @ p
        a = r @ r / (p @ Ap)
        x, old, r = x + a * p, r, r - a * Ap
        beta = 0 if fault == "no beta" else r @ r / (old @ old)
        p = (old if fault == "old residual" else r) + beta * p
    return x


def check(x, product=product, **options):
    return rm.check_solve(product, B, x, **options)


def test_a_solution_is_right():
    report = check(X)
    assert report.ok and report.row("|b - A x| / |b|").error < 1e-12
    assert report.row("|x - solution| / |solution|").error < 1e-12


def test_the_project_s_own_conjugate_gradients_are_right():
    solution = rm.conjugate_gradients(lambda v: v @ A, B[None], maxiter=40)
    assert check(solution.x[0]).ok


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.linalg.solve(A + 0.3 * I, B), "(A + d I) x = b with the damping d = 0.3"),
        (np.linalg.solve(A / 2 + I, B), "(c A + d I) x = b with c = 1/2 and d = 1"),
        (10 * X, "x is 10 times the solution"),
        (-X, "x has the wrong sign"),
        (0 * X, "x is 0"),
        (descent(3), "stopped early: x is iterate 3 of conjugate gradients"),
        (descent(5, "no beta"), "iterate 5 of steepest descent"),
        (descent(4, "old residual"), "p = r_old + beta p"),
        (neumann(0.1, 20), "a Neumann series of 20 terms with step 1/10, not the solution"),
        (neumann(1.0, 4), "a Neumann series of 4 terms with step 1"),
        (2 * B - A @ B, "a Neumann series of 2 terms with step 1"),
        (neumann(0.3, 7, False), "of 7 terms with step 0.3, without the step in front"),
        (neumann(0.1, 900, False), "x is 10 times the solution"),
        (np.linspace(0, 1, N), "it is the solver: plain conjugate gradients solve this in 12"),
    ],
)
def test_an_x_that_solves_something_else_has_a_name(x, words):
    report = check(x)
    assert report.verdict == "wrong" and words in report.diagnosis, report


def test_an_estimate_that_is_never_replaced_has_a_fix():
    assert "never replaced" in check(2 * B - A @ B).fix


def test_a_declared_damping_is_right():
    x = np.linalg.solve(A + 0.3 * I, B)
    assert check(x, damping=0.3).ok
    report = check(x, damping=0.1)
    assert "the damping d = 0.3, where damping=0.1 is declared" in report.diagnosis


S = A.copy()
S[0, 1] += 1.0
INDEFINITE = A - 0.6 * I


def test_a_product_that_is_not_symmetric_is_at_fault():
    assert check(np.linalg.solve(S, B), lambda v: S @ v).ok
    report = check(np.linspace(0, 1, N), lambda v: S @ v)
    assert "the product is not symmetric" in report.diagnosis and "GMRES" in report.fix
    report = check(np.linalg.solve(S.T, B), lambda v: S @ v)
    assert report.diagnosis == "x solves A' x = b: A is transposed"
    report = check(descent(12, matrix=S), lambda v: S @ v)
    assert "not symmetric" in report.diagnosis and "iterate 12" in report.diagnosis


def test_an_indefinite_product_is_at_fault():
    report = check(np.linalg.solve(INDEFINITE, B), lambda v: INDEFINITE @ v)
    assert report.ok and "indefinite" in report.remarks[0]
    report = check(np.linspace(0, 1, N), lambda v: INDEFINITE @ v)
    assert report.verdict == "wrong" and "A is indefinite" in report.diagnosis
    assert report.row("positive definite").verdict == "wrong"


@pytest.mark.parametrize(
    ("product", "words"),
    [
        (lambda v: A @ v + 0.01 * R.standard_normal(N), "it is the product: noise is added"),
        (lambda v: A @ v + 1.0, "it is the product: an offset is added"),
        (lambda v: A @ v * np.linalg.norm(v), "it is the product: the product is not linear"),
    ],
)
def test_a_product_that_is_no_matrix_is_at_fault(product, words):
    report = check(X, product)
    assert report.verdict == "wrong" and words in report.diagnosis


def test_a_residual_that_has_drifted():
    early = descent(6)
    report = check(early, residual=1e-9)
    assert report.verdict == "wrong" and "residual has drifted" in report.diagnosis
    report = check(early, residual=B - A @ early)
    assert "stopped early" in report.diagnosis
    assert report.row("the residual as reported").verdict == "right"
    report = check(X, residual=0.1)
    assert report.verdict == "wrong" and "is not b - A x" in report.diagnosis
    assert check(X, residual=np.float64(0.0)).ok


def test_conjugate_gradients_drift_on_an_ill_conditioned_matrix():
    H = np.diag(10.0 ** np.linspace(0, 12, N))
    report = check(B / np.diag(H), lambda v: H @ v)
    assert report.ok and "condition number 1.0e+12" in str(report)


def test_more_unknowns_than_a_dense_matrix_holds():
    d = np.linspace(1, 3, 400)
    b = R.standard_normal(400)
    assert rm.check_solve(lambda v: d * v, b, b / d).ok
    report = rm.check_solve(lambda v: d * v, b, 2 * b / d)
    assert report.diagnosis == "x is 2 times the solution"


def test_right_hand_sides_in_containers():
    def halves(v):
        out = A @ np.concatenate([v["a"], v["b"]])
        return {"a": out[:5], "b": out[5:]}

    x = {"a": X[:5], "b": X[5:]}
    assert rm.check_solve(halves, {"a": B[:5], "b": B[5:]}, x).ok


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"product": 1}, "product: expected a function product(v), got int"),
        ({"b": 0 * B}, "b: expected a vector other than 0, got 0"),
        ({"x": B[:3]}, "x: expected shape (12,), got shape (3,)"),
        ({"x": B * np.nan}, "x: expected finite numbers"),
        ({"damping": "x"}, "damping: expected a number, got 'x'"),
        ({"tol": 0}, "tol: expected a number between 0 and 1, got 0"),
    ],
)
def test_wrong_arguments_are_one_line(changed, words):
    with pytest.raises(rm.ArgumentError) as error:
        rm.check_solve(**({"product": product, "b": B, "x": X} | changed))
    assert words in str(error.value) and "\n" not in str(error.value)
