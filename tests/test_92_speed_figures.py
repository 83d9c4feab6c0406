"""Figures of speed and memory in the documents are those of the committed files."""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent


def committed(name):
    return json.loads((ROOT / "benchmarks" / name).read_text())


def document(name):
    """A document in one line."""
    return " ".join((ROOT / name).read_text().split())


def test_the_first_use_takes_what_the_file_says():
    seconds, text = committed("first_use.json")["seconds"], document("docs/install.md")
    two, one = seconds["first call, empty cache"], seconds["first call, empty cache, one core"]
    assert f"takes {two:.1f} s with an empty cache, {one:.1f} s on one of them" in text
    assert f"{seconds['first call, next process']:.1f} s in the next process" in text
    assert f"{two:.1f} s (`first_use.json`)" in document("benchmarks/README.md")


def test_the_memory_on_the_residual_net_and_what_was_refused():
    parts = {part["workload"]: part for part in committed("bench/bench.json")["meta"]}
    adam, net = parts["strided-5-adam"], parts["resnet-1"]
    peak = {r["name"]: round(r["peak"] / 1e6) for r in net["results"] if r["peak"]}
    text = document("docs/results.md")
    assert (
        f"the memory is {peak['refmaml']} MB, beside {peak['jax-map']} for JAX and "
        f"{peak['torch-loop']} for PyTorch's loop" in text
    )
    refused = {r["name"]: r["exact"] for r in adam["results"] if r["refused"]}
    assert list(refused) == ["higher"] and f"gradient is {refused['higher']:.0%}" in text.replace(
        " %", "%"
    )
