"""iMAML and Reptile as one kernel, against the methods on the reference kernels."""

from dataclasses import replace

import numpy as np
import pytest
from method_kernel_cases import (
    CPU,
    HALF_OF_IT,
    NETS,
    RATE,
    STRENGTH,
    by_kernel,
    error_over_tolerance,
    imaml,
    reptile,
    start_of,
    tasks,
)

import refmaml as rm
from refmaml import kernels
from refmaml.execution import method_kernels
from refmaml.execution.method_kernels import as_method_kernel
from refmaml.methods.imaml import SOLVERS
from refmaml.update_rules import SGD, Adam, Clip

# ---- on every net --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.slow), np.float64])
@pytest.mark.parametrize("name", NETS)
def test_on_every_net_the_kernels_agree_with_the_reference(name, dtype):
    net = NETS[name]
    theta, batch = tasks(net, dtype)
    for method in (imaml(), reptile()):
        assert error_over_tolerance(method, net, theta, batch) <= 1


# ---- with every setting --------------------------------------------------------------

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
