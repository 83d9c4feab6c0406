"""The commands with --kernels cuda, on the stand-in for CuPy: results and errors."""

import json
import sys

import numpy as np
import pytest
from cuda_shim.build import ABSENT

import refmaml as rm
from refmaml import kernels
from refmaml.cli import main
from refmaml.oracles import kernel_checks, ladder, rule_checks
from refmaml.training import checkpoint

pytestmark = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))
SMALL_RUN = [
    *("--data", "sinusoid", "--hidden", "3", "--tasks", "3", "--k-shot", "4"),
    *("--k-query", "4", "--eval-tasks", "4", "--dtype", "float64"),
    *("--inner-steps", "2", "--quiet"),
]


@pytest.fixture
def cuda(cupy, monkeypatch):
    """--kernels cuda uses version 1 of the products.

    The tiles of later versions need more threads than the stand-in runs at a time.
    """
    cuda_kernels = kernels.cuda
    monkeypatch.setattr(kernels, "cuda", lambda: cuda_kernels(version=1))
    return cupy


def run(*words):
    return main([str(word) for word in words])


@pytest.mark.slow
def test_training_gives_the_results_of_the_reference_and_resumes_bit_for_bit(cuda, tmp_path):
    folders = {name: tmp_path / name for name in ("reference", "cuda", "stopped")}
    for name in ("reference", "cuda"):
        assert (
            run("train", *SMALL_RUN, "--steps", 4, "--kernels", name, "--out", folders[name]) == 0
        )
    assert cuda.gpu.counts["graph"] == 3  # of four steps all but the first
    assert (
        run("train", *SMALL_RUN, "--steps", 2, "--kernels", "cuda", "--out", folders["stopped"])
        == 0
    )
    assert run("train", "--resume", "--steps", 4, "--quiet", "--out", folders["stopped"]) == 0
    saved = {name: checkpoint.load(folder / "checkpoint.npz") for name, folder in folders.items()}
    exact, on_gpu, resumed = (saved[name][0] for name in ("reference", "cuda", "stopped"))
    assert np.abs(on_gpu.meta - exact.meta).max() < 1e-12 and on_gpu.meta.dtype == exact.meta.dtype
    assert np.array_equal(on_gpu.meta, resumed.meta) and all(
        np.array_equal(on_gpu.state[n], resumed.state[n]) for n in exact.state
    )
    configurations = [
        {k: v for k, v in saved[name][1].items() if k != "kernels"}
        for name in ("reference", "cuda")
    ]
    assert configurations[0] == configurations[1] and list(on_gpu.state) == list(exact.state)
    with (
        np.load(folders["reference"] / "checkpoint.npz") as a,
        np.load(folders["cuda"] / "checkpoint.npz") as b,
    ):
        assert [(n, a[n].dtype) for n in a.files] == [(n, b[n].dtype) for n in b.files]
    losses = [
        json.loads((folders[name] / "result.json").read_text())["loss"]
        for name in ("reference", "cuda")
    ]
    assert abs(losses[0] - losses[1]) < 1e-12


def test_evaluation_gives_what_the_reference_gives(cuda, tmp_path):
    run("train", *SMALL_RUN, "--steps", 1, "--kernels", "reference", "--out", tmp_path / "run")
    results = []
    for name in ("reference", "cuda"):
        assert (
            run(
                "evaluate",
                tmp_path / "run" / "checkpoint.npz",
                "--tasks",
                6,
                "--kernels",
                name,
                "--json",
                tmp_path / "r.json",
            )
            == 0
        )
        results.append(json.loads((tmp_path / "r.json").read_text())["loss"])
    assert abs(results[0] - results[1]) < 1e-12


@pytest.mark.slow
def test_the_doctor_judges_what_the_gpu_computes(cuda, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("""
import numpy as np
import refmaml as rm

def right(problem, params, batch):
    theta = problem.net.flat(params)
    found = problem.method.meta_gradient(problem.net, theta, rm.Batch(*batch))
    return problem.net.named(found.grad)

def wrong(problem, params, batch):
    first = rm.FirstOrderMAML(problem.method.inner_lr, problem.method.inner_steps)
    theta = problem.net.flat(params)
    return problem.net.named(first.meta_gradient(problem.net, theta, rm.Batch(*batch)).grad)
""")
    check = (
        "--method",
        "maml",
        "--inner-steps",
        2,
        "--probes",
        "two-layer",
        "--precision",
        "float64",
        "--kernels",
        "cuda",
    )
    before = cuda.gpu.counts["launch"]
    assert (
        run("doctor", f"{tmp_path / 'mine.py'}:right", *check) == 0
        and cuda.gpu.counts["launch"] > before
    )
    assert run("doctor", f"{tmp_path / 'mine.py'}:wrong", *check) == 1
    assert "first-order" in capsys.readouterr().out


def test_the_doctor_passes_cupy_arrays_and_derivatives_of_the_gpu(cuda):
    def gradient(problem, params, batch):
        x, y, xq, yq = batch
        assert all(isinstance(a, cuda.ndarray) for a in (*params.values(), x, xq))
        total = None
        for t in range(len(x)):
            phi = {
                n: params[n] - problem.method.inner_lr * g
                for n, g in problem.gradient(params, x[t], y[t]).items()
            }
            lam = problem.gradient(phi, xq[t], yq[t])
            product = problem.hvp(params, x[t], y[t], lam)
            lam = {n: (lam[n] - problem.method.inner_lr * product[n]) / len(x) for n in lam}
            total = lam if total is None else {n: total[n] + lam[n] for n in lam}
        return total

    report = rm.check_meta_gradient(
        gradient,
        rm.MAML(0.1),
        framework="cupy",
        probes=["two-layer"],
        precision="float64",
        repeats=0,
        kernels=kernels.cuda(),
    )
    assert report.ok, report


def test_the_doctor_judges_a_net_of_the_caller_on_a_gpu(cuda):
    net = rm.Sequential(
        [rm.Linear(3, 4), rm.Tanh(), rm.Linear(4, 2)], rm.CrossEntropy(), (3,), kernels.cuda()
    )
    for factor, found in ((1.0, "right"), (1.5, "wrong")):

        def gradient(problem, params, batch, factor=factor):
            assert problem.net.kernels.on_device
            grad = problem.method.meta_gradient(
                problem.net, problem.net.flat(params), rm.Batch(*batch)
            ).grad
            return problem.net.named(factor * grad)

        assert (
            rm.check_meta_gradient(
                gradient, rm.MAML(0.1, 2), net=net, probes=["two-layer"], repeats=0, seconds=5
            ).verdict
            == found
        )


@pytest.mark.slow
def test_verify_holds_every_kernel_and_method_of_the_gpu_against_the_reference(
    cuda, monkeypatch, capsys
):
    """Only the section for --kernels cuda, on few cases."""
    monkeypatch.setattr(kernel_checks.cases, "LAYERS", kernel_checks.cases.LAYERS[5:7])
    monkeypatch.setattr(kernel_checks, "whole_net_checks", lambda k: [])
    monkeypatch.setattr(
        kernel_checks.cases, "methods", lambda: [(rm.MAML(0.1, 1), False), (rm.CAVIA(0.1, 1), True)]
    )
    monkeypatch.setattr(kernel_checks.cases, "methods_with", lambda gradient: [])
    all_sections = ladder.ladder
    monkeypatch.setattr(
        ladder,
        "ladder",
        lambda k, w: [section for section in all_sections(k, w) if section[0] == "kernels: cuda"],
    )
    assert run("verify", "--kernels", "cuda") == 0
    printed = capsys.readouterr().out
    graphs = 6 + 2 * len(rule_checks.RULES)  # each rule in both precisions
    assert (
        printed.count("replayed") == graphs
        and "CAVIA" in printed
        and "IMAML, solver = newton_cg [cuda, float32]" in printed
        and " 0 failed" in printed
    )


def test_without_numba_matplotlib_and_tqdm_it_trains_evaluates_and_names_the_missing_picture(
    cuda, tmp_path, monkeypatch, capsys
):
    for name in ("numba", "matplotlib", "tqdm"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    words = [word for word in SMALL_RUN if word != "--quiet"]
    assert run("train", *words, "--steps", 2, "--kernels", "cuda", "--out", tmp_path / "run") == 0
    printed = capsys.readouterr().err
    assert (
        "step 1/2" in printed and "curve.png: matplotlib draws it, and is not installed" in printed
    )
    assert run("evaluate", tmp_path / "run" / "checkpoint.npz", "--tasks", 4) == 0
    assert (tmp_path / "run" / "result.json").exists() and not (
        tmp_path / "run" / "curve.png"
    ).exists()


@pytest.mark.parametrize("limit", [1_000, 2_000, 3_500])
def test_too_little_memory_is_one_line_on_the_command_line(cuda, tmp_path, capsys, limit):
    cuda.gpu.limit = limit
    assert (
        run("train", *SMALL_RUN, "--steps", 2, "--kernels", "cuda", "--out", tmp_path / "run") == 2
    )
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and printed.startswith("refmaml: ") and "memory" in printed, (
        printed
    )


@pytest.mark.parametrize(
    "words",
    [
        ["verify"],
        ["train", *SMALL_RUN, "--out", "{out}"],
        ["bench", "--out", "{out}"],
        ["doctor", "{out}.py:f", "--method", "maml"],
        ["evaluate", "{out}/checkpoint.npz"],
    ],
    ids=lambda w: w[0],
)
def test_every_command_reports_a_missing_nvrtc_in_one_line(
    cuda, tmp_path, monkeypatch, capsys, words
):
    out = tmp_path / "run"
    (tmp_path / "run.py").write_text("def f(problem, params, batch):\n    return params\n")
    if words[0] == "evaluate":
        run("train", *SMALL_RUN, "--steps", 1, "--kernels", "reference", "--out", out)
        capsys.readouterr()

    def missing(**options):
        raise RuntimeError(
            "CuPy failed to load libnvrtc.so.13: OSError: libnvrtc.so.13: "
            "cannot open shared object file\nmore"
        )

    monkeypatch.setattr(cuda, "RawModule", missing)
    assert run(*(word.format(out=out) for word in words), "--kernels", "cuda") == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and printed.startswith(
        "refmaml: --kernels: the cuda kernels: expected a GPU, got CuPy failed to load"
    )
    assert "pip install 'cupy-cuda13x[ctk]'" in printed
