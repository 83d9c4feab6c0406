"""What the doctor must not call wrong: right meta-gradients of every method in every framework; and what a right value can still hide."""

import numpy as np
import pytest
from implementations import MAML, RIGHT, maml, tasks
from jax_implementations import JAX_RIGHT
from torch_implementations import TORCH_RIGHT, torch_maml, torch_norm

import refmaml as rm
from refmaml.autodiff.formulas import why_not
from refmaml.doctor.cases import Case
from refmaml.oracles import cases
from refmaml.oracles.method_checks import truth_by_steps


def title(pair):
    return f"{type(pair[1]).__name__}-{getattr(pair[1], 'inner_steps', 0)}-{getattr(pair[1], 'optimizer', '')}"


@pytest.mark.parametrize(("fn", "method"), RIGHT, ids=map(title, RIGHT))
def test_a_right_meta_gradient_in_numpy_is_called_right_on_every_probe_in_both_precisions(
    fn, method
):
    report = rm.check_meta_gradient(fn, method, repeats=0)
    assert report.ok and bool(report) and report.verdict == "right", str(report)
    assert len(report.sittings) == 8 and all(s.misfit <= 0.5 for s in report.sittings), str(report)


@pytest.mark.parametrize(("fn", "method"), TORCH_RIGHT, ids=map(title, TORCH_RIGHT))
def test_a_right_meta_gradient_in_torch_is_called_right(fn, method):
    if reason := why_not("torch"):
        pytest.skip(reason)
    import torch

    torch.set_num_threads(1)
    probes = ("quadratic", "mlp") if isinstance(method, rm.IMAML) else None
    precision = None if type(method) in (rm.MAML, rm.Reptile) else "float64"
    report = rm.check_meta_gradient(
        fn, method, framework="torch", probes=probes, precision=precision, repeats=0
    )
    assert report.ok and all(s.misfit <= 0.5 for s in report.sittings), str(report)


@pytest.mark.parametrize(("fn", "method"), JAX_RIGHT, ids=map(title, JAX_RIGHT))
def test_a_right_meta_gradient_in_jax_is_called_right(fn, method):
    if reason := why_not("jax"):
        pytest.skip(reason)
    report = rm.check_meta_gradient(
        fn, method, framework="jax", probes=("two-layer",), precision="float64", repeats=0
    )
    assert report.ok and all(s.misfit <= 0.5 for s in report.sittings), str(report)


def test_jax_is_right_through_max_pooling_and_batch_norm_under_jit():
    if reason := why_not("jax"):
        pytest.skip(reason)
    report = rm.check_meta_gradient(
        JAX_RIGHT[0][0],
        rm.MAML(0.1, 1),
        framework="jax",
        probes=("conv",),
        precision="float64",
        repeats=0,
    )
    assert report.ok, str(report)


def test_refmaml_itself_is_called_right_from_a_flat_vector_or_from_its_own_result():
    for method in (MAML, rm.MetaSGD(0.1, 2), rm.MAMLPlusPlus(0.1, 2), rm.CAVIA(0.1, 2)):

        def ours(problem, params, batch):
            from refmaml.doctor.cases import Case

            meta = Case(
                "",
                problem.net,
                problem.method,
                np.zeros(len(problem.method.init(problem.net, np.zeros(problem.net.num_params)))),
                None,
            ).flat(params)
            return problem.method.meta_gradient(
                problem.net, meta.astype(batch.x_query.dtype), rm.Batch(*batch), trace=True
            )

        assert rm.check_meta_gradient(ours, method, repeats=0)
        assert rm.check_meta_gradient(
            lambda *a, ours=ours: ours(*a).grad, method, probes=("mlp",), repeats=0
        )


@pytest.mark.parametrize("name", ["0.weight", "2.bias"])
def test_one_entry_off_by_a_millionth_is_called_wrong_in_float64(name):
    def off(problem, params, batch):
        out = maml(problem, params, batch)
        out[name] = out[name].copy()
        out[name].flat[1] *= 1 + 1e-6
        return out

    report = rm.check_meta_gradient(off, MAML, probes=("mlp",), repeats=0)
    assert (
        report.verdict == "wrong"
        and report.sittings[0].worst.name == name
        and report.sittings[0].precision == "float64"
    )
    assert report.sittings[0].worst.worst == ((0, 1) if name == "0.weight" else (1,))
    assert "1.0000" in f"{report.sittings[0].worst.got / report.sittings[0].worst.expected:.8f}"


def test_running_statistics_that_are_kept_but_never_used_change_nothing():
    if reason := why_not("torch"):
        pytest.skip(reason)
    from torch.nn import functional as F
    from torch_implementations import norm_loss

    seen = []

    def tracking(layer, w, x):
        running = (x.new_zeros(x.shape[1]), x.new_ones(x.shape[1]))
        seen.append(running)
        return F.batch_norm(
            x, *running, w["weight"], w["bias"], training=True, momentum=0.1, eps=layer.eps
        )

    def patient(problem, params, batch):
        return torch_maml(problem, params, batch, loss=norm_loss(tracking)(problem))

    assert (
        rm.check_meta_gradient(patient, MAML, framework="torch", probes=("conv",), repeats=0)
        and seen
    )
    wrong = rm.check_meta_gradient(
        lambda p, w, b: torch_maml(
            p, w, b, loss=norm_loss(lambda layer, w, x: torch_norm(layer, w, x, 0.1))(p)
        ),
        MAML,
        framework="torch",
        probes=("conv",),
        repeats=0,
        seconds=1,
    )
    assert wrong.verdict == "wrong"


# ---- the same function again -----------------------------------------------------------------------------------------


def test_noise_is_told_from_a_carried_state():
    rng, calls = np.random.default_rng(0), []

    def noisy(problem, params, batch):
        return {
            n: g * (1 + 1e-3 * rng.standard_normal(g.shape))
            for n, g in maml(problem, params, batch).items()
        }

    def carrying(problem, params, batch):
        calls.append(1)
        return {n: g * (1 + 0.01 * len(calls)) for n, g in maml(problem, params, batch).items()}

    report = rm.check_meta_gradient(noisy, MAML, probes=("quadratic",), precision="float64")
    assert report.verdict == "wrong" and "noise" in report.diagnosis
    report = rm.check_meta_gradient(carrying, MAML, probes=("quadratic",), precision="float64")
    assert report.verdict == "wrong" and "state is carried" in report.diagnosis


def test_memory_that_grows_with_every_call_is_noticed_and_memory_that_does_not_is_not():
    held = []

    def keeping(problem, params, batch):
        held.append(np.ones(1000))
        return maml(problem, params, batch)

    report = rm.check_meta_gradient(keeping, MAML, probes=("quadratic",), precision="float64")
    assert report.ok and "memory grows by" in report.diagnosis
    assert not any(
        "memory" in remark
        for remark in rm.check_meta_gradient(
            maml, MAML, probes=("quadratic",), precision="float64"
        ).remarks
    )


def test_a_graph_kept_in_torch_is_noticed():
    if reason := why_not("torch"):
        pytest.skip(reason)
    losses = []

    def keeping(problem, params, batch):
        losses.append(
            problem.loss(
                {n: p.clone().requires_grad_() for n, p in params.items()}, *tasks(batch)[0][:2]
            )
        )
        return torch_maml(problem, params, batch)

    report = rm.check_meta_gradient(
        keeping, MAML, framework="torch", probes=("quadratic",), precision="float64"
    )
    assert report.ok and "tensors with every call" in report.diagnosis
    assert (
        "memory"
        not in rm.check_meta_gradient(
            torch_maml, MAML, framework="torch", probes=("quadratic",), precision="float64"
        ).diagnosis
    )


# ---- precision -------------------------------------------------------------------------------------------------------


def rounded_to(bits):
    """Right, but with every factor rounded to so many bits, as TF32 rounds what it multiplies."""

    def coarse(a):
        mantissa, exponent = np.frexp(a)
        return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent).astype(a.dtype)

    def patient(problem, params, batch):
        if batch.x_query.dtype == np.float64:
            return maml(problem, params, batch)
        return {n: coarse(g) for n, g in maml(problem, params, batch).items()}

    return patient


def test_ten_bits_in_float32_are_recognised_as_tf32_and_fewer_are_wrong():
    report = rm.check_meta_gradient(rounded_to(11), MAML, probes=("mlp",), repeats=0)
    assert (
        report.verdict == "inconclusive"
        and "TF32" in report.diagnosis
        and "allow_tf32" in report.fix
    )
    assert (
        rm.check_meta_gradient(rounded_to(3), MAML, probes=("mlp",), repeats=0, seconds=1).verdict
        == "wrong"
    )


def test_a_function_that_returns_float32_is_judged_as_float32_and_told_so():
    def low(problem, params, batch):
        return {n: g.astype(np.float32) for n, g in maml(problem, params, batch).items()}

    report = rm.check_meta_gradient(low, MAML, probes=("mlp",))
    assert report.ok and any("returns float32" in remark for remark in report.remarks)


def test_a_tolerance_of_one_s_own_is_used():
    def off(problem, params, batch):
        return {n: g * (1 + 1e-4) for n, g in maml(problem, params, batch).items()}

    assert rm.check_meta_gradient(off, MAML, probes=("mlp",), tol=1e-3, repeats=0)
    assert (
        rm.check_meta_gradient(off, MAML, probes=("mlp",), tol=1e-5, repeats=0).verdict == "wrong"
    )


def test_a_constant_of_the_function_s_own_in_place_of_the_step_size_is_named():
    """The probes choose step sizes at which curvature shows; who does not read them is told so."""
    from wrong_implementations import inner_scale

    given = rm.MAML(0.123, 3)
    report = rm.check_meta_gradient(
        inner_scale(lambda problem, batch: 0.123 / problem.method.inner_lr),
        given,
        probes=("quadratic", "mlp"),
        repeats=0,
    )
    assert (
        report.verdict == "wrong"
        and "a constant of the function's own" in report.diagnosis
        and "problem.method" in report.fix
    )


def test_a_known_mistake_is_named_even_where_a_kink_lies_on_the_data():
    """Blank images make ties everywhere: the margin is 0, and what is off by a first-order gradient is wrong all the same."""
    net = rm.Sequential([rm.Linear(3, 4), rm.ReLU(), rm.Linear(4, 2)], rm.MSE(), (3,))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 3))
    x[:, 0] = 0  # with biases of 0 every unit sits on its kink
    batch = rm.Batch(x, rng.standard_normal((2, 6, 2)), x, rng.standard_normal((2, 6, 2)))

    def flat(fn):
        return lambda params, given: net.named(
            fn.meta_gradient(net, net.flat(params), rm.Batch(*given)).grad
        )

    method = rm.MAML(0.3, 2)
    report = rm.check_meta_gradient(
        flat(rm.FirstOrderMAML(0.3, 2)), method, net=net, batch=batch, repeats=0
    )
    assert (
        report.sittings[0].margin == 0
        and report.verdict == "wrong"
        and report.diagnosis.startswith("first-order")
    )

    def other(params, given):
        return {
            n: g * (1 + 0.1 * np.sin(np.arange(g.size)).reshape(g.shape))
            for n, g in flat(method)(params, given).items()
        }

    assert (
        rm.check_meta_gradient(other, method, net=net, batch=batch, repeats=0, seconds=1).verdict
        == "inconclusive"
    )


# ---- what rounding takes ---------------------------------------------------------------------------------------------


def known_for_sure():
    """Examples whose probabilities are some 1e-10 from 0 and 1: p - 1 has lost most of its digits."""
    rng, labels = np.random.default_rng(0), np.array([[0, 1, 1, 0]] * 3)
    x = np.stack([1 - 2.0 * labels, rng.standard_normal(labels.shape)], axis=-1)
    theta = np.array([12.0, 0.3, -12.0, 0.1, 0.2, -0.1])
    return (
        rm.Sequential([rm.Linear(2, 2)], rm.CrossEntropy(), (2,)),
        theta,
        rm.Batch(x, labels, x, labels),
    )


def far_from_0():
    """Batch-norm takes a mean of a million off."""
    net, rng = (
        rm.Sequential([rm.Linear(3, 4), rm.BatchNorm2d(4), rm.Linear(4, 2)], rm.MSE(), (3,)),
        np.random.default_rng(0),
    )
    theta = cases.start(net, rng)
    theta[net.parameters.slices["0.bias"]] += 1e6
    return net, theta, cases.tasks_for(net, rng)


@pytest.mark.parametrize("draw", [known_for_sure, far_from_0])
def test_digits_that_cancel_on_the_way_are_no_mistake(draw):
    """The complex step loses others than the engine does."""
    net, theta, batch = draw()
    case = Case("drawn", net, method := rm.MAML(0.01, 1), theta, batch, own=True)
    off = np.abs(case.truth - truth_by_steps(method, net, theta, batch))
    assert (off <= case.allowed).all() and off.max() > 1e-10 * np.abs(case.truth).max()
