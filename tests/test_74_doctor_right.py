"""Right meta-gradients of each method in each framework are called right.

Errors of a millionth are called wrong.
"""

import numpy as np
import pytest
from implementations import MAML, MAMLPP, RIGHT, average, maml, maml_plus_plus, one_task, tasks
from jax_implementations import JAX_RIGHT
from torch_implementations import TORCH_RIGHT, torch_maml
from torch_wrong_implementations import norm_loss, torch_norm
from wrong_implementations import inner_scale, step_sizes

import refmaml as rm
from refmaml.doctor.cases import Case


def title(pair):
    method = pair[1]
    steps, optimizer = getattr(method, "inner_steps", 0), getattr(method, "optimizer", "")
    return f"{type(method).__name__}-{steps}-{optimizer}"


@pytest.mark.parametrize(("fn", "method"), RIGHT, ids=map(title, RIGHT))
def test_a_right_meta_gradient_in_numpy_is_right_on_every_case_in_both_precisions(fn, method):
    report = rm.check_meta_gradient(fn, method, repeats=0)
    assert report.ok and bool(report) and report.verdict == "right", str(report)
    assert len(report.results) == 8 and all(s.misfit <= 0.5 for s in report.results), str(report)


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize(("fn", "method"), TORCH_RIGHT, ids=map(title, TORCH_RIGHT))
def test_a_right_meta_gradient_in_torch_is_called_right(fn, method):
    import torch

    torch.set_num_threads(1)
    probes = ("quadratic", "mlp") if isinstance(method, rm.IMAML) else None
    precision = None if type(method) in (rm.MAML, rm.Reptile) else "float64"
    report = rm.check_meta_gradient(
        fn, method, framework="torch", probes=probes, precision=precision, repeats=0
    )
    assert report.ok and all(s.misfit <= 0.5 for s in report.results), str(report)


@pytest.mark.frameworks("jax")
@pytest.mark.parametrize(("fn", "method"), JAX_RIGHT, ids=map(title, JAX_RIGHT))
def test_a_right_meta_gradient_in_jax_is_called_right(fn, method):
    report = rm.check_meta_gradient(
        fn, method, framework="jax", probes=("two-layer",), precision="float64", repeats=0
    )
    assert report.ok and all(s.misfit <= 0.5 for s in report.results), str(report)


@pytest.mark.frameworks("jax")
def test_jax_is_right_through_max_pooling_and_batch_norm_under_jit():
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
        and report.results[0].worst.name == name
        and report.results[0].precision == "float64"
    )
    assert report.results[0].worst.worst == ((0, 1) if name == "0.weight" else (1,))
    assert "1.0000" in f"{report.results[0].worst.got / report.results[0].worst.expected:.8f}"


@pytest.mark.frameworks("torch")
def test_running_statistics_that_are_kept_but_never_used_change_nothing():
    from torch.nn import functional as F

    seen = []

    def tracking(layer, w, x):
        running = (x.new_zeros(x.shape[1]), x.new_ones(x.shape[1]))
        seen.append(running)
        return F.batch_norm(
            x, *running, w["weight"], w["bias"], training=True, momentum=0.1, eps=layer.eps
        )

    def function(problem, params, batch):
        return torch_maml(problem, params, batch, loss=norm_loss(tracking)(problem))

    assert (
        rm.check_meta_gradient(function, MAML, framework="torch", probes=("conv",), repeats=0)
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


def test_a_constant_in_place_of_the_step_size_is_named():
    """The built-in cases have their own step sizes, which a function must read."""

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


@pytest.mark.parametrize(
    "more", [({"loss": 1.0, "acc": 0.5},), (["a", "b"],)], ids=["metrics", "texts"]
)
def test_returned_values_that_are_no_arrays_are_ignored(more):
    report = rm.check_meta_gradient(
        lambda *a: (maml(*a), *more), MAML, probes=("quadratic",), repeats=1
    )
    assert report.verdict == "right" and any(
        "is ignored, as it is no array" in r for r in report.remarks
    )


def test_a_flat_vector_is_read_in_the_order_of_params():
    def behind_one_another(fn):
        return lambda problem, params, batch: np.concatenate(
            [fn(problem, params, batch)[n].ravel() for n in params]
        )

    assert rm.check_meta_gradient(
        behind_one_another(maml_plus_plus), MAMLPP, probes=("mlp",), repeats=0
    )

    theirs = behind_one_another(step_sizes(lambda name: 1.0))
    assert rm.check_meta_gradient(
        theirs, MAML, probes=("mlp",), layout={"*.weight": "IO"}, repeats=0
    )
    assert not rm.check_meta_gradient(
        lambda *a: behind_one_another(maml)(*a)[::-1], MAML, probes=("mlp",), repeats=0, seconds=1
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "kept, name",
    [(slice(1, None), "the first task is left out"), (slice(-1), "the last task is left out")],
)
def test_a_task_that_is_left_out_is_named_alone_and_with_another_mistake(kept, name):
    def fn(problem, params, batch, h=None):
        return average([one_task(problem, params, *task, h=h) for task in tasks(batch)[kept]])

    report = rm.check_meta_gradient(fn, MAML, probes=("quadratic", "mlp"), repeats=0)
    assert report.verdict == "wrong" and report.diagnosis.startswith(f"{name}, times ")
    report = rm.check_meta_gradient(
        lambda *a: fn(*a, h=0.0), MAML, probes=("quadratic", "mlp"), repeats=0
    )
    assert (
        report.verdict == "wrong" and "first-order" in report.diagnosis and name in report.diagnosis
    )
