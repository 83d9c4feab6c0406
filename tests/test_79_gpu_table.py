"""The document's text about GPUs, made from the committed result of `make gpu`."""

import pytest
from gpu_scripts import ROOT, load_script


@pytest.fixture(scope="module")
def table():
    return load_script("gpu_table.py")


@pytest.fixture(scope="module")
def run():
    return load_script("run.py")


def entry(result, status="passed", code="x"):
    return {"status": status, "title": "", "found": result, "code": code}


def timed(seconds):
    return {"median": seconds}


CONVOLUTION = {
    "net": "max-pool, support",
    "kernel": "conv2d_forward",
    "dtype": "float32",
    "shape": "32x5x64x14x14",
    "right": True,
}
RESULT = {"name": "", "title": "", "seconds": timed(1.0), "reduced": False}
SECTIONS = {
    "device": entry(
        {
            "device": {"name": "Card", "driver": "1.2", "cuda_runtime": 13010, "cupy": "14"},
            "versions": {"torch": "2", "jax": None},
        }
    ),
    "ladder": entry(
        {
            "rows": [
                {"passed": True, "error": 1.0, "tolerance": 4.0},
                {"passed": False, "error": None, "tolerance": 1.0},
            ]
        },
        "failed",
    ),
    "tests": entry({"counts": {"passed": 7, "failed": 0, "skipped": 0}}),
    "determinism": entry(
        {"kernels": [{"different": 0}, {"different": 2}], "gradients": [{"digests": ["a"]}]},
        "failed",
    ),
    "graph": entry({"reason": "the engine offers no CUDA graph", "replays": []}, "not available"),
    "sanitizer": entry(
        {"tools": [{"tool": "memcheck", "passed": True}, {"tool": "racecheck", "passed": None}]}
    ),
    "bench-kernels": entry(
        {
            "kernels": [
                {
                    **CONVOLUTION,
                    "version": v,
                    "timing": {"seconds": timed(us * 1e-6)},
                    "fraction": fraction,
                    "of_library": 0.5,
                }
                for v, us, fraction in ((2, 90, 0.3), (10, 40, 0.55), (1, 400, 0.1))
            ],
            "library": [{**CONVOLUTION, "reduced": False, "timing": {"seconds": timed(77e-6)}}],
        }
    ),
    "meta-strided-1": entry(
        {
            "meta": [
                {
                    "title": "strided net",
                    "tasks": 32,
                    "times_as_fast_as": {"a": 6.0, "b": 5.5},
                    "of_roof": 0.42,
                    "over_the_fastest_peer": 5.5,
                    "results": [
                        {**RESULT, "name": "refmaml", "seconds": timed(2e-3)},
                        {**RESULT, "name": "refmaml-graph", "seconds": timed(1e-3)},
                        {**RESULT, "name": "b", "title": "Bee", "seconds": timed(5.5e-3)},
                        {
                            **RESULT,
                            "name": "b-tf32",
                            "title": "Bee, TF32",
                            "seconds": timed(4e-3),
                            "reduced": True,
                        },
                    ],
                }
            ]
        },
        "timed out",
        "y",
    ),
}


def test_the_text_lists_the_results_and_what_was_not_run(table, run):
    text = " ".join(table.text({"sections": SECTIONS}, run.SECTIONS).split())
    for words in (
        "one Card (driver 1.2, CUDA 13.1, CuPy 14, PyTorch 2, JAX absent)",
        "more than one state of the code",
        "| **failed**: 1 of 2 checks, the largest error used inf% of its tolerance |",
        "| passed: 7 passed, 0 failed, 0 skipped |",
        "| **failed**: 2 kernels, 1 meta-gradients, 1 with other bits |",
        "| **not available**: the engine offers no CUDA graph |",
        "| passed: memcheck clean, racecheck does not work here |",
        "| **timed out** |",
        "| `conv2d_forward` | 10 | 40 us | 55% | 50% | 77 us |",
        "| strided net, 32 tasks | 1 ms | Bee: 5.5 ms | 5.5 | 42% | Bee, TF32: 4 ms |",
    ):
        assert words in text, words
    # Numba and bench-ourselves, and all workloads but one.
    assert text.count(table.NEVER) == 2 + 4


def test_without_a_result_everything_is_listed_as_never_run(table, run):
    text = table.text(None, run.SECTIONS)
    assert text.count(table.NEVER) == 1 + len(run.SECTIONS) and all(
        f"| {s.name} | {s.title} |" in text for s in run.SECTIONS
    )


def test_docs_gpu_has_the_table_of_the_committed_result(table, run):
    _, text, after = table.between((ROOT / "docs" / "gpu.md").read_text())
    assert after and text == table.text(table.committed(), run.SECTIONS)
