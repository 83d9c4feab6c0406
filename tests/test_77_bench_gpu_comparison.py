"""`refmaml bench --kernels cuda` without a GPU: whole meta-gradients.

Each check is tested with the error that it must find.
"""

from math import isclose

import numpy as np
import pytest
from gpu_stand_in import StandIn
from gpu_workers import StandInWorker, reference_gradient

import refmaml as rm
from refmaml.bench import agreement, comparison, record
from refmaml.bench.gpu import comparison as gpu_comparison
from refmaml.bench.gpu import engine, standalone
from refmaml.bench.implementations import cuda_peers, find, peers
from refmaml.bench.timing import by_turns
from refmaml.bench.worker import WorkerError
from refmaml.bench.workloads import TABLE

TINY = TABLE["tiny"]


# ---- the comparison ----

FIRST = {"convolution": "patches", "unroll": 1}  # the first settings of JAX


@pytest.fixture(autouse=True)
def cached_gradients(monkeypatch):
    """The reference computes each gradient once for all tests."""
    monkeypatch.setattr(gpu_comparison, "reference_gradient", reference_gradient)
    monkeypatch.setattr(standalone, "reference_gradient", reference_gradient)


def compared(tune=0.0, worker=StandInWorker, **others):
    """{name: Result} on the tiny workload: refmaml, which is right, and others.

    others  {name: the answers that differ from the right ones}
    """
    right, few = reference_gradient(TINY), reference_gradient(agreement.few_tasks(TINY))
    good = {"gradient": few, "prepare": (right, 0.1), "turn": [0.01], "peak": 1}
    workers = {
        "refmaml": StandInWorker(**good | {"gradient": few}),
        **{name: worker(**good | change) for name, change in others.items()},
    }
    workers["refmaml"].answers["gradient"] = few
    options = comparison.Options("cuda", 0.0, 0.001, tune, log=lambda text: None)
    results = gpu_comparison.compare_on_gpu(TINY, list(workers), options, workers.get)
    return {r.name: r for r in results}


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(
        gpu_comparison, "float64_gradient", lambda ours, workload: reference_gradient(workload)
    )


def test_every_right_implementation_is_timed(reference):
    found = compared(**{"torch-graph-cuda": {}, "jax-vmap-cuda": {}})
    assert all(
        r.refused is None and r.seconds.median == 0.01 and r.peak == 1 for r in found.values()
    )
    assert found["jax-vmap-cuda"].settings == FIRST


def test_all_pipes_are_closed_before_any_process_is_waited_for(reference):
    order = []

    class ClosingWorker(StandInWorker):
        def close_pipe(self):
            order.append("closed")

        def __exit__(self, *exception):
            order.append("waited for")

    compared(worker=ClosingWorker, **{"torch-graph-cuda": {}, "jax-vmap-cuda": {}})
    assert order == ["closed"] * 2 + ["waited for"] * 2


def test_a_wrong_peer_is_refused_and_a_peer_in_tf32_is_marked(reference):
    right, few = reference_gradient(TINY), reference_gradient(agreement.few_tasks(TINY))
    found = compared(
        **{
            "torch-loop-cuda": {"gradient": 1.001 * few},
            "torch-vmap-cuda": {"prepare": (1.2 * right, 0.1)},
            "torch-graph-cuda-tf32": {"prepare": (1.2 * right, 0.1), "turn": [0.001]},
        }
    )
    assert (
        "float64 is 1.0e-03 off" in found["torch-loop-cuda"].refused
        and "float32 is 2.0e-01 off" in found["torch-vmap-cuda"].refused
    )
    reduced = found["torch-graph-cuda-tf32"]
    assert reduced.refused is None and reduced.reduced and isclose(reduced.rounded, 0.2)
    entry = record.workload_record(TINY, list(found.values()), 1000.0)
    # No peer of equal precision is left.
    assert entry["over_the_fastest_peer"] is None and entry["times_as_fast_as"] == {}
    assert isclose(entry["of_roof"], TINY.gflop / 0.01 / 1000)


def test_the_limit_of_refmaml_itself_is_1e_12(reference):
    few = reference_gradient(agreement.few_tasks(TINY))
    close = gpu_comparison.check_float64(
        few, comparison.Result("refmaml", "", {}), few * (1 + 1e-11)
    )
    assert "1.0e-11 off, expected at most 1e-12" in close.refused
    assert (
        gpu_comparison.check_float64(
            few, comparison.Result("torch-loop-cuda", "", {}), few * (1 + 1e-11)
        ).refused
        is None
    )


@pytest.mark.parametrize("method", ["gradient", "prepare", "turn", "peak"])
def test_a_failure_refuses_one_implementation_and_the_others_continue(reference, method):
    found = compared(
        **{
            "torch-compile-cuda": {method: WorkerError("torch-compile-cuda: no compiler")},
            "torch-graph-cuda": {},
        }
    )
    assert (
        found["torch-compile-cuda"].refused == "torch-compile-cuda: no compiler"
        and found["torch-compile-cuda"].seconds is None
    )
    assert found["torch-graph-cuda"].seconds is not None and found["refmaml"].seconds is not None


class FailsAtOtherSettings(StandInWorker):
    """Right at the first settings; at all others it gives no answer."""

    def receive(self, limit=None):
        method, arguments = self.sent
        if method == "prepare" and arguments[1] != FIRST:
            raise WorkerError("jax-vmap-cuda: expected an answer within 60 s, got none")
        return super().receive(limit)

    def send(self, method, *arguments):
        self.sent = method, arguments
        super().send(method, *arguments)


def test_an_implementation_that_fails_at_other_settings_is_timed_at_the_first(reference):
    found = compared(100, FailsAtOtherSettings, **{"jax-vmap-cuda": {}})["jax-vmap-cuda"]
    assert found.refused is None and found.settings == FIRST and found.seconds.median == 0.01
    assert found.tried == (
        ({"other settings": "jax-vmap-cuda: expected an answer within 60 s, got none"}, None),
    )


def test_a_timer_that_fails_gets_no_more_turns():
    assert by_turns({"right": lambda s: [s], "fails": lambda s: None}, 0.0, 0.5) == {
        "right": [0.5] * 3
    }


@pytest.mark.frameworks("jax")
@pytest.mark.parametrize(
    "layer",
    [rm.Conv2d(2, 3, 3, padding=1), rm.Conv2d(2, 3, 3, stride=2, padding="same")],
    ids=["even", "uneven"],
)
def test_xla_s_convolution_equals_the_one_by_patches(layer):
    from refmaml.autodiff import jax_formulas
    from refmaml.autodiff.jax_autodiff import float64, framework

    rng = np.random.default_rng(0)
    w = {"weight": rng.standard_normal((3, 2, 3, 3)), "bias": rng.standard_normal(3)}
    with float64():
        one, other = (
            np.asarray(f(framework(), layer, w, rng_x))
            for rng_x in [rng.standard_normal((4, 6, 5, 2))]
            for f in (jax_formulas.conv2d, jax_formulas.library_conv2d)
        )
    assert one.shape == other.shape and np.abs(one - other).max() < 1e-14


def test_peers_on_a_gpu_have_other_names_and_state_their_precision():
    assert not set(peers("cuda")) & set(peers("cpu"))
    for name in peers("cuda"):
        implementation = find(name, "cuda")
        assert (
            implementation.name == name
            and implementation.reduced == name.endswith(cuda_peers.TF32)
            and implementation.synchronize
            and implementation.peak_memory
        )
        assert set(implementation.choices(TINY)) <= {"convolution", "unroll"}


# ---- refmaml alone ----


def test_launching_is_the_wall_time_without_the_device_time(monkeypatch):
    class Graph:
        def __call__(self):
            launched.append("with synchronization")

        def launch(self):
            launched.append("alone")

    launched = []
    monkeypatch.setattr(engine, "graph", lambda *arguments: Graph())
    monkeypatch.setattr(standalone, "wall_times", lambda gpu, run: [4e-3] * 3)
    found = standalone.measure(StandIn(seconds=(1e-3,)), TINY)
    entry = record.to_json(found)
    assert found.exact < 1e-14 and found.replayed and entry["product_over_gradient"] == 1.0
    assert entry["launching"] == {"eager": 0.75, "graph": 0.75}
    assert entry["graph_refused"] is None and set(launched) == {"alone"}


def test_without_a_graph_the_reason_is_kept():
    entry = record.to_json(standalone.measure(StandIn(), TINY))
    if entry["graph"] is None:
        assert entry["graph_refused"] and entry["launching"] is None
