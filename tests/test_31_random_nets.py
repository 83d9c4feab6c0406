"""Properties of all nets, layers and methods, tested on those that Hypothesis draws."""

from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from random_nets import drawing, layer_cases, methods, nets

import refmaml as rm
from refmaml import kernels
from refmaml.doctor.cases import Case
from refmaml.oracles import cases, complex_step, dense, whole_net_checks
from refmaml.oracles.kernel_checks import layer_kernel_checks
from refmaml.oracles.layer_checks import layer_checks
from refmaml.oracles.method_checks import displacement_check, imaml_dense_check, truth_by_steps
from refmaml.oracles.net_checks import net_terms
from refmaml.oracles.tolerance import tolerance

pytestmark = pytest.mark.slow

REFERENCE, CPU = kernels.reference(), kernels.cpu()
SEEDS, PRECISIONS = st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64])
# Of some 2,400 nets one used a third of the leeway.
SINGLE, TRIALS, LEEWAY = np.finfo(np.float32).eps, 3, 30
NOTHING = 1e-9  # smaller results are 0 up to rounding


def noise(f, rng, inputs):
    """{quantity: the largest change by roundings of the inputs to float32}.

    The maximum over TRIALS. A small net may be steep, or its result may cancel to
    nearly 0; tolerances relative to the result do not cover these cases.
    """
    moved = []
    for _ in range(TRIALS):
        near = [
            (a * (1 + SINGLE * rng.uniform(-1, 1, a.shape))).astype(np.float32)
            if a.dtype.kind == "f"
            else a
            for a in inputs
        ]
        single, double = f(*near), f(*whole_net_checks.in_float64(*near))
        moved.append({name: np.abs(single[name] - double[name]).max() for name in double})
    return {name: max(each[name] for each in moved) for name in moved[0]}


def apart(found, exact, moved, dtype, terms):
    """{quantity: the error of `found` / the largest error that rounding may cause}.

    moved  what `noise` returns, for float32
    """
    assume(all(np.abs(a).max() > NOTHING for a in exact.values()))
    eps = np.finfo(dtype).eps
    allowed = {
        name: tolerance(dtype, terms) * np.abs(a).max() + LEEWAY * eps / SINGLE * moved[name]
        for name, a in exact.items()
    }
    return {name: float(np.abs(found[name] - a).max() / allowed[name]) for name, a in exact.items()}


def probed(net, seed, dtype, shared):
    """(rng, w, x, y, v) with no choice so near that rounding in float32 flips it."""
    rng = np.random.default_rng(seed)
    *drawn, margin = whole_net_checks.draw(net, dtype, shared, rng)
    assume(margin > whole_net_checks.CLEAR * SINGLE)
    return rng, *drawn


# ---- the reference kernels against independent oracles -------------------------------


@drawing(60)
@given(layer_cases(), SEEDS, st.booleans())
def test_a_layer_s_passes_are_loops_and_complex_steps(case, seed, shared):
    for check in layer_checks(case, REFERENCE, seed, shared):
        assert check.passed, check


def own(net, w, x, y, v):
    """Of one task: what backward, r_backward and the Gauss-Newton product give."""
    primal = net.primal(w, x, y)
    return {
        "gradient": primal.grad[0],
        "H v": net.hvp(primal, v)[0],
        "G v": net.gauss_newton_product(primal, v)[0],
    }


def by_definition(net, w, x, y, v):
    """The same by the complex step and by dense matrices."""

    def loss(W):
        return net.loss(W, *(np.broadcast_to(a, (len(W), *a.shape[1:])) for a in (x, y)))

    return {
        "gradient": complex_step.gradient(loss, w[0]),
        "H v": dense.hessian(net, w[0], x, y) @ v[0],
        "G v": dense.gauss_newton(net, w[0], x, y) @ v[0],
    }


@drawing(60)
@given(nets(), SEEDS)
def test_a_net_s_products_are_those_of_its_loss(net, seed):
    rng, *drawn = probed(net, seed, np.float64, True)
    given = [a[:1] for a in drawn]
    off = apart(
        own(net, *given),
        by_definition(net, *given),
        noise(partial(own, net), rng, given),
        np.float64,
        net_terms(net, whole_net_checks.EXAMPLES),
    )
    assert max(off.values()) <= 1, off


def meta_case(data, context=False):
    """A Case of a drawn net and method away from kinks."""
    net = data.draw(nets(context))
    method, rng = data.draw(methods(net)), np.random.default_rng(data.draw(SEEDS))
    theta, sizes = (
        cases.start(net, rng),
        {name: data.draw(st.integers(1, 5)) for name in ("tasks", "support", "query")},
    )
    case = Case(
        "drawn", net, method, method.init(net, theta), cases.tasks_for(net, rng, **sizes), own=True
    )
    assume(
        case.margin > whole_net_checks.CLEAR * np.finfo(float).eps
        and np.abs(case.truth).max() > NOTHING
    )
    return case


@drawing(40)
@given(st.data())
def test_a_meta_gradient_is_the_complex_step_through_the_inner_loop(data):
    case = meta_case(data, context=data.draw(st.booleans()))
    truth = truth_by_steps(case.method, case.net, case.meta, case.batch)
    assert (np.abs(case.truth - truth) <= case.allowed).all()


@drawing(30)
@given(
    nets(), SEEDS, st.sampled_from([2.0, 20.0]), st.sampled_from(["gradient_descent", "newton_cg"])
)
def test_imaml_solves_the_dense_system_and_reptile_takes_its_steps(
    net, seed, regularization, solver
):
    theta, batch = cases.start(net, rng := np.random.default_rng(seed)), cases.tasks_for(net, rng)
    imaml = rm.IMAML(
        regularization, inner_steps=3, inner_lr=0.01, cg_steps=300, cg_tol=1e-13, solver=solver
    )
    assume(
        set(imaml.meta_gradient(net, theta, batch).report["cg_status"]) == {"converged"}
    )  # I + H / lambda need not be definite
    check = imaml_dense_check(imaml, net, theta, batch)
    assert check.error <= LEEWAY * check.tolerance, check
    assert (
        check := displacement_check(rm.Reptile(0.01, 3, inner_batch=2), net, theta, batch)
    ).passed, check


# ---- fast kernels against the reference ----------------------------------------------


def chain_apart(net, fast, seed, dtype, shared):
    """The error of all that a kernel set computes of a net, against float64."""
    rng, *drawn = probed(net, seed, dtype, shared)
    quantities = partial(whole_net_checks.quantities, net)
    terms = 3 * (whole_net_checks.STEPS + 1) * net_terms(net, whole_net_checks.EXAMPLES)
    found, exact = (
        whole_net_checks.quantities(net.with_kernels(fast), *drawn),
        quantities(*whole_net_checks.in_float64(*drawn)),
    )
    return apart(found, exact, noise(quantities, rng, drawn), dtype, terms)


@pytest.mark.slow
@drawing(60)
@given(nets(), SEEDS, PRECISIONS, st.booleans())
def test_a_net_on_the_cpu_kernels_is_the_reference(net, seed, dtype, shared):
    off = chain_apart(net, CPU, seed, dtype, shared)
    assert max(off.values()) <= 1, off


@pytest.mark.slow
@drawing(10)
@given(nets(), SEEDS, PRECISIONS, st.booleans())
def test_a_net_on_the_cuda_kernels_is_the_reference(on_cupy, net, seed, dtype, shared):
    off = chain_apart(net, on_cupy, seed, dtype, shared)
    assert max(off.values()) <= 1, off


@pytest.mark.slow
@drawing(60)
@given(layer_cases(), PRECISIONS, st.booleans())
def test_a_layer_on_the_cpu_kernels_is_the_reference(case, dtype, shared):
    for check in layer_kernel_checks(case, CPU, REFERENCE, dtype, shared):
        assert check.passed, check


@pytest.mark.slow
@drawing(20)
@given(layer_cases(), PRECISIONS, st.booleans())
def test_a_layer_on_the_cuda_kernels_is_the_reference(cuda, case, dtype, shared):
    for check in layer_kernel_checks(case, cuda, REFERENCE, dtype, shared):
        assert check.passed, check


@drawing(30)
@given(st.data(), PRECISIONS, st.integers(1, 4))
def test_a_meta_gradient_has_the_same_bits_in_chunks(data, dtype, chunk):
    case = meta_case(data)
    net, meta = case.net.with_kernels(CPU), case.meta.astype(dtype)
    whole, parts = (
        case.method.meta_gradient(net, meta, case.batch, chunk=n).grad
        for n in (len(case.batch), chunk)
    )
    assert np.array_equal(whole, parts)
