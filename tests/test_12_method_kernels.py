"""iMAML and Reptile as one kernel, against the methods on the reference kernels."""

from dataclasses import replace

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.execution import method_kernels
from refmaml.execution.method_kernels import as_method_kernel, sets_for
from refmaml.methods.imaml import SOLVERS
from refmaml.oracles.net_checks import net_terms
from refmaml.oracles.tolerance import relative_error, tolerance
from refmaml.oracles.whole_net_cases import nets_of_parts
from refmaml.oracles.whole_net_checks import in_float64, nets, probe, tasks_of
from refmaml.update_rules import SGD, Adam, Clip

pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")

CPU = kernels.cpu(threads=1)
NETS = nets() | nets_of_parts()
STEPS, RATE = 3, 0.02
# H + lambda I is positive definite and well conditioned here, so that CG multiplies
# rounding errors by little.
STRENGTH = 50.0


def imaml(**settings):
    given = {"regularization": STRENGTH, "inner_steps": STEPS, "inner_lr": RATE, "cg_steps": 4}
    return rm.IMAML(**(given | settings))


def reptile(**settings):
    return rm.Reptile(**({"inner_lr": RATE, "inner_steps": STEPS} | settings))


def tasks(net, dtype=float, seed=0):
    """theta and a batch, away from kinks."""
    w, x, y, _, _ = probe(net, dtype, shared=True, seed=seed)
    return w[0], tasks_of(x, y)


def start_of(method, net, theta):
    """The meta-parameters; a carried moment and its n are not 0."""
    meta = method.init(net, theta)
    if len(meta) > len(theta):
        meta[len(theta) :] = np.linspace(0.1, 0.9, len(meta) - len(theta))
    return meta


def by_kernel(method, net, meta, batch, kernel_set=CPU):
    """The TaskGradients of the kernel, or None where it found an overflow."""
    net = net.with_kernels(kernel_set)
    with np.errstate(all="ignore"):
        return as_method_kernel(method).by_kernel(net, meta, *sets_for(net, meta, batch))


def by_reference(method, net, meta, batch):
    """The same, layer by layer in float64."""
    theta, *arrays = in_float64(meta, *(a for _, a in batch.named))
    with np.errstate(all="ignore"):
        return method.task_gradients(net, theta, rm.Batch(*arrays), False)


def error_over_tolerance(method, net, meta, batch, found=None):
    """The largest error of gradient, loss and report as a part of its tolerance.

    Infinite where a status differs.
    """
    found = found or by_kernel(method, net, meta, batch)
    exact = by_reference(method, net, meta, batch)
    # A forward, backward or product pass has the terms of the net: three in an inner
    # step, and two products with two factors each in an iteration of CG. A Newton step
    # and its line search have as many iterations.
    steps, cg_steps = method.inner_steps, getattr(method, "cg_steps", 0)
    newton = getattr(method, "solver", "") == "newton_cg"
    passes = 3 * (steps + 1) + 4 * cg_steps * (steps + 1 if newton else 1)
    limit = tolerance(meta.dtype, passes * net_terms(net, batch.x_query.shape[1]))
    assert found.report.keys() == exact.report.keys()
    errors = [relative_error(found.grad, exact.grad), relative_error(found.loss, exact.loss)]
    for name, value in exact.report.items():
        if value.dtype.kind == "i" and not np.array_equal(found.report[name], value):
            return np.inf
        if value.dtype.kind == "f":  # a small residual is a difference of vectors of size 1
            errors.append(abs(found.report[name] - value).max() / max(1, value.max()))
    return max(errors) / limit


# ---- on every net --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.slow), np.float64])
@pytest.mark.parametrize("name", NETS)
def test_on_every_net_the_kernels_agree_with_the_reference(name, dtype):
    net = NETS[name]
    theta, batch = tasks(net, dtype)
    for method in (imaml(), reptile()):
        assert error_over_tolerance(method, net, theta, batch) <= 1


# ---- with every setting --------------------------------------------------------------

HALF_OF_IT = {"adapts": ("*",), "frozen": ("2.*",)}
IMAML_SETTINGS = {
    "controlled descent": {"solver": "controlled_descent", "inner_steps": 8, "inner_lr": 0.2},
    "newton_cg": {"solver": "newton_cg"},
    "some parameters frozen": HALF_OF_IT,
    "only a head adapts": {"adapts": ("head",)},
    "controlled descent, frozen": {"solver": "controlled_descent", **HALF_OF_IT},
    "newton_cg, frozen": {"solver": "newton_cg", **HALF_OF_IT},
    "a tolerance": {"inner_tol": 0.3, "inner_steps": 60},
    "controlled descent, a tolerance": {
        "solver": "controlled_descent", "inner_tol": 0.3, "inner_steps": 60
    },
    "newton_cg, a tolerance": {"solver": "newton_cg", "inner_tol": 0.3, "inner_steps": 9},
    "momentum": {"rule": SGD(0.9, nesterov=True, weight_decay=0.1)},
    "Adam, frozen": {"rule": Adam(eps=1e-2), "inner_lr": 1e-3, **HALF_OF_IT},
    "clipping": {"rule": Clip(SGD(0.5), norm=0.1)},
    "CG converges": {"cg_steps": 60, "cg_tol": 1e-3},
}  # fmt: skip
REPTILE_SETTINGS = {
    "momentum": {"rule": SGD(0.9)},
    "a proximal term": {"anchor": 3.0},
    "a proximal term, momentum, frozen": {"anchor": 3.0, "rule": SGD(0.9), **HALF_OF_IT},
    "Adam as a rule": {"rule": Adam(eps=1e-2)},
    "step sizes that differ": {"inner_lr": [0.02, 0.01, 0.03]},
    "mini-batches": {"inner_batch": 2},
    "Adam": {"optimizer": "adam", "eps": 1e-2},
    "Adam, carried": {"optimizer": "adam", "moment": "carried", "inner_batch": 3, "eps": 1e-2},
    "Adam, frozen": {"optimizer": "adam", "eps": 1e-2, **HALF_OF_IT},
}
SETTINGS = {
    **{f"iMAML, {name}": (imaml, given) for name, given in IMAML_SETTINGS.items()},
    **{f"Reptile, {name}": (reptile, given) for name, given in REPTILE_SETTINGS.items()},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_with_every_setting_the_kernels_agree_with_the_reference(name):
    make, settings = SETTINGS[name]
    method, net = make(**settings), NETS["mlp"]
    theta, batch = tasks(net)
    meta = start_of(method, net, theta)
    assert error_over_tolerance(method, net, meta, batch) <= 1


@pytest.mark.parametrize("frozen", [(), ("BatchNorm2d",)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_runs_on_a_convolutional_net(solver, frozen):
    net = NETS["max-pool conv4"]
    theta, batch = tasks(net)
    method = imaml(solver=solver, frozen=frozen, inner_steps=2)
    assert error_over_tolerance(method, net, theta, batch) <= 1


# ---- how CG ends ---------------------------------------------------------------------


def saddle(y):
    """A net w_2 w_1 x at w = (1, 1), a support set (1, y) and a query set (1, 0).

    H = 2 (1, 2 - y; 2 - y, 1), and the query gradient is along (1, 1), where the
    curvature is 2 (3 - y). With lambda = 2, I + H/lambda has curvature 4 - y there.
    """
    layers = [rm.Linear(1, 1, bias=False), rm.Linear(1, 1, bias=False)]
    one, y = np.ones((1, 1, 1)), np.full((1, 1, 1), float(y))
    return rm.Sequential(layers, rm.MSE(), (1,)), np.ones(2), rm.Batch(one, y, one, 0 * one)


@pytest.mark.parametrize(
    "y,status,gradient", [(3, "converged", 2), (4, "breakdown", 0), (6, "negative_curvature", 0)]
)
def test_cg_ends_as_in_the_reference(y, status, gradient):
    net, theta, batch = saddle(y)
    method = rm.IMAML(2.0, 1, 1e-300, cg_steps=3)  # phi* is theta to the bit
    out = method.meta_gradient(net.with_kernels(CPU), theta, batch)
    assert out.report["cg_status"] == [status] and np.array_equal(out.grad, [gradient] * 2)
    layers = method.meta_gradient(net, theta, batch)
    assert layers.report["cg_status"] == [status] and np.array_equal(layers.grad, out.grad)


def test_a_query_gradient_of_zero_is_solved_by_zero():
    net, theta, batch = saddle(3)
    batch.y_query[:] = 1
    out = rm.IMAML(2.0, 1, 1e-300).meta_gradient(net.with_kernels(CPU), theta, batch)
    assert out.report["cg_status"] == ["converged"] and not out.grad.any()
    assert out.report["cg_residual"] == [0] and out.report["inner_residual"] == [np.inf]


# ---- overflow ------------------------------------------------------------------------


def error_of(method, net, meta, batch):
    with np.errstate(all="ignore"), pytest.raises(rm.NonFiniteError) as caught:
        method.meta_gradient(net, meta, batch)
    return str(caught.value)


def with_a_huge_number(batch, name):
    arrays = {key: a.copy() for key, a in batch.named}
    arrays[name][1, 2] = 1e160
    return rm.Batch(**arrays)


@pytest.mark.parametrize("make", [imaml, reptile])
@pytest.mark.parametrize("huge", ["x_support", "x_query"])
def test_an_overflow_has_the_error_of_the_reference(make, huge):
    net = NETS["two-layer linear"]
    theta, batch = tasks(net)
    batch, method = with_a_huge_number(batch, huge), make()
    assert by_kernel(method, net, theta, batch) is None
    told = error_of(method, net.with_kernels(CPU), theta, batch)
    assert told == error_of(method, net, theta, batch) and "task 1" in told


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_diverging_inner_loop_has_the_error_of_the_reference(solver):
    net = NETS["two-layer linear"]
    theta, batch = tasks(net)
    method = imaml(solver=solver, inner_lr=1e155, inner_steps=20)
    if solver == "gradient_descent":
        assert by_kernel(method, net, theta, batch) is None
        told = error_of(method, net.with_kernels(CPU), theta, batch)
        assert told == error_of(method, net, theta, batch) and "inner step" in told
    else:  # a trial that overflows does not stand
        assert by_kernel(method, net, theta, batch) is not None


def test_an_overflow_in_cg_has_the_error_of_the_reference():
    net, theta, batch = saddle(3)
    batch.y_query[:] = 1e154  # the square of the query gradient overflows
    method = rm.IMAML(2.0, 1, 1e-300)
    assert by_kernel(method, net, theta, batch) is None
    told = error_of(method, net.with_kernels(CPU), theta, batch)
    assert told == error_of(method, net, theta, batch) and "conjugate gradients" in told


# ---- bits ----------------------------------------------------------------------------

EVERY_KIND = (
    imaml(),
    imaml(solver="controlled_descent", frozen=("2.*",)),
    imaml(solver="newton_cg"),
    reptile(inner_batch=2, rule=SGD(0.9)),
    reptile(optimizer="adam", moment="carried"),
)


@pytest.mark.parametrize("method", EVERY_KIND, ids=lambda m: type(m).__name__)
def test_the_bits_depend_neither_on_threads_nor_on_chunks(method, monkeypatch):
    net = NETS["mlp"]
    theta, batch = tasks(net)
    meta = start_of(method, net, theta)
    first = by_kernel(method, net, meta, batch)
    whole_net = kernels.cpu().whole_net

    def on_threads(*planned):
        made = whole_net(*planned)
        made.serial_below, made.threads = 0, 3
        return made

    several = kernels.KernelSet("cpu", CPU.functions, empty=CPU.empty, whole_net=on_threads)
    others = [by_kernel(method, net, meta, batch, several)]
    parts = [by_kernel(method, net, meta, batch[t : t + 1]) for t in range(len(batch))]
    others.append(replace(first, grad=np.concatenate([part.grad for part in parts])))
    for other in others:
        assert np.array_equal(other.grad, first.grad) and np.array_equal(other.loss, first.loss)


# ---- where the layers run ------------------------------------------------------------


class OwnSolver(rm.IMAML):
    def solve(self, net, theta, x, y):
        return super().solve(net, theta, x, y)


class OwnDescent(rm.Reptile):
    def descend(self, *arguments, **options):
        return super().descend(*arguments, **options)


def test_methods_that_the_kernels_do_not_compute_have_none():
    clipped = {"rule": Clip(norm=0.1), "frozen": ("1.*",)}
    others = (
        OwnSolver(STRENGTH), OwnDescent(RATE), rm.ANIL(RATE), rm.ReleasedIMAML(),
        imaml(**clipped), reptile(**clipped),
    )  # fmt: skip
    assert all(as_method_kernel(method) is None for method in others)
    assert as_method_kernel(imaml()) is not None and as_method_kernel(reptile()) is not None


def test_a_trace_and_mini_batches_of_different_sizes_go_layer_by_layer(monkeypatch):
    net = NETS["mlp"].with_kernels(CPU)
    theta, batch = tasks(net)
    sizes = reptile(inner_batch=lambda k, examples: np.arange(k + 1))
    assert by_kernel(sizes, net, theta, batch) is None
    exact = sizes.meta_gradient(NETS["mlp"], theta, batch).grad
    assert np.allclose(sizes.meta_gradient(net, theta, batch).grad, exact, rtol=1e-12)
    assert "u" in imaml().meta_gradient(net, theta, batch, trace=True).trace

    def not_here(*arguments):
        raise AssertionError("the kernel ran")

    monkeypatch.setattr(method_kernels.ImplicitKernel, "by_kernel", not_here)
    imaml().meta_gradient(net, theta, batch, trace=True)
    with pytest.raises(AssertionError, match="the kernel ran"):
        imaml().meta_gradient(net, theta, batch)


# ---- planted errors ------------------------------------------------------------------


def changed(**new):
    """A planted error: other arguments of the kernel's call, by position."""

    def plant(given):
        return [new[f"at{i}"](a) if f"at{i}" in new else a for i, a in enumerate(given)]

    return plant


def numbers(place, factor):
    """One of the numbers multiplied."""

    def change(settings):
        solver, steps, cg_steps, values = settings
        values[place] *= factor
        return solver, steps, cg_steps, values

    return changed(at5=change)


def steps(inner, cg):
    return changed(at5=lambda s: (s[0], s[1] + inner, s[2] + cg, s[3]))


IMPLICIT_ERRORS = {
    "lambda a hundredth larger": numbers(method_kernels.at.STRENGTH, 1.01),
    "the step size a hundredth larger": numbers(method_kernels.at.RATE, 1.01),
    "an inner step less": steps(-1, 0),
    "an iteration less": steps(0, -1),
    "everything adapts": changed(at2=np.ones_like),
    "the support set for the query set": changed(at4=lambda query: query),
    "no momentum": changed(at6=lambda rule: method_kernels.in_one_kernel(imaml())),
}


@pytest.mark.parametrize("name", IMPLICIT_ERRORS)
def test_an_error_planted_in_the_call_of_imaml_is_caught(name, monkeypatch):
    method, net = imaml(rule=SGD(0.9), **HALF_OF_IT), NETS["mlp"]
    theta, batch = tasks(net)
    made, plant = method_kernels.calls(), IMPLICIT_ERRORS[name]

    class Planted:
        @staticmethod
        def implicit_gradients(*given):
            given = plant(given)
            if name == "the support set for the query set":
                given[4] = given[3]
            return made.implicit_gradients(*given)

    assert error_over_tolerance(method, net, theta, batch) <= 1
    monkeypatch.setattr(method_kernels, "calls", lambda: Planted)
    found = by_kernel(method, net, theta, batch)
    wrong_shape = found.loss.shape != (len(batch),)
    assert wrong_shape or error_over_tolerance(method, net, theta, batch, found) > 100


DISPLACEMENT_ERRORS = {
    "the first step size throughout": changed(at3=lambda rates: rates[:1] * len(rates)),
    "no proximal term": changed(at6=lambda anchor: 0),
    "a fresh moment": changed(at8=lambda moment: 0 * moment),
}


@pytest.mark.parametrize("name", DISPLACEMENT_ERRORS)
def test_an_error_planted_in_the_call_of_reptile_is_caught(name, monkeypatch):
    settings = {"inner_lr": [0.02, 0.01, 0.03], "anchor": 3.0}
    if name == "a fresh moment":
        settings = {"optimizer": "adam", "moment": "carried", "eps": 1e-2}
    method, net = reptile(**settings), NETS["mlp"]
    theta, batch = tasks(net)
    meta, made = start_of(method, net, theta), method_kernels.calls()

    class Planted:
        @staticmethod
        def displacements(*given):
            return made.displacements(*DISPLACEMENT_ERRORS[name](given))

    assert error_over_tolerance(method, net, meta, batch) <= 1
    monkeypatch.setattr(method_kernels, "calls", lambda: Planted)
    found = by_kernel(method, net, meta, batch)
    assert error_over_tolerance(method, net, meta, batch, found) > 100
