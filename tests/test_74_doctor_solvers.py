"""Wrong solvers of iMAML's linear system get a name with their numbers, and are never
called a wrong query gradient."""

import pytest
from implementations import IMAML, imaml, plus, times
from wrong_implementations_other import implicit, stopped

import refmaml as rm


def neumann(terms, a, in_front=True):
    """a sum_(j <= terms) (I - a A)^j q."""

    def solve(product, q):
        v = total = q
        for _ in range(terms):
            v = plus(-a, product(v), v)
            total = plus(1, v, total)
        return times(a if in_front else 1, total)

    return implicit(solve=solve)


def never_replaced(product, q):
    return plus(-1, product(q), times(2, q))


def damped(d):
    return implicit(system=lambda v, Hv, lam: plus(1 / lam, Hv, times(1 + d, v)))


def left_early(steps):
    """The inner problem after a few gradient steps."""

    def fn(problem, params, batch):
        class Early:
            net, gradient, hvp = problem.net, problem.gradient, problem.hvp

            class method:
                inner_steps, cg_steps = steps, problem.method.cg_steps
                inner_lr = problem.method.inner_lr
                regularization = problem.method.regularization

        return imaml(Early, params, batch)

    return fn


CASES = {
    "20 terms": (neumann(20, 0.1), "a Neumann series of 20 terms, step 0.1"),
    "3 terms": (neumann(3, 1.0), "a Neumann series of 3 terms, step 1"),
    "7 terms": (neumann(7, 0.55), "a Neumann series of 7 terms, step 0.55"),
    "no step": (neumann(5, 0.3, False), "step 0.3: sum_(j <= 5) (I - 0.3 A)^j q, without its step"),
    "converged, no step": (
        neumann(400, 0.1, False),
        "a Neumann series without its step size 0.1 in front",
    ),
    "never replaced": (implicit(solve=never_replaced), "an estimate that is never replaced"),
    "damping .25": (damped(0.25), "damping: (1.25 I + H / (lambda))"),
    "damping 3 in lambda": (
        implicit(system=lambda v, Hv, lam: plus(1 / (lam + 3), Hv, v)),
        "damping: (1 I + H / (lambda + 3))",
    ),
    "3 iterations": (stopped(3), "CG stops after 3 iterations"),
    "CG's step": (stopped(3, c=0.8), "CG's step is 1.25 times too long, 3 iterations"),
    "0.7 H": (
        implicit(system=lambda v, Hv, lam: plus(0.7 / lam, Hv, v)),
        "the Hessian counts 0.7 times in the linear system",
    ),
    "1.5 lambda": (implicit(inner=1.5), "the inner problem has 1.5 lambda"),
    "left early": (left_early(3), "the inner problem is left after 3 gradient steps"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_wrong_solver_is_named_with_its_numbers(name):
    fn, words = CASES[name]
    report = rm.check_meta_gradient(
        fn, IMAML, repeats=0, precision="float64", probes=("quadratic", "two-layer")
    )
    assert report.verdict == "wrong" and words in report.diagnosis, str(report)
    assert "query gradient" not in report.diagnosis and report.fix


@pytest.mark.slow
def test_an_answer_that_tends_to_a_multiple_of_the_query_gradient_is_a_linear_system():
    """Two steps of different sizes: no series of the dictionary."""

    def solve(product, q):
        first = plus(-0.3, product(q), q)
        return plus(-0.11, product(first), times(1.7, first))

    report = rm.check_meta_gradient(
        implicit(solve=solve), IMAML, repeats=0, precision="float64", probes=("mlp",), seconds=1
    )
    assert report.verdict == "wrong" and report.stages[0][0] == "linear system", str(report)
    assert "times the query gradient" in report.diagnosis and report.fix


@pytest.mark.slow
def test_a_series_that_has_converged_is_right():
    report = rm.check_meta_gradient(
        neumann(60, 1.0), IMAML, repeats=0, precision="float64", probes=("quadratic",)
    )
    assert report.ok
