"""`refmaml verify`: table, JSON and exit status, with right and wrong kernels."""

import json

import pytest

from refmaml import kernels
from refmaml.cli import main
from refmaml.oracles import cases, ladder
from refmaml.oracles.kernel_checks import kernel_checks
from refmaml.oracles.tolerance import Check


@pytest.fixture
def short_ladder(monkeypatch):
    """Only three sections of the ladder; tests 30 to 42 run the others."""

    def short(kernel_set, whole=True):
        yield "layers and losses", ladder.layers(kernel_set)
        yield "closed forms", iter(ladder.closed_form_checks())

    monkeypatch.setattr(ladder, "ladder", short)


def test_verify_prints_a_line_for_every_layer_and_exits_with_0(short_ladder, capsys, tmp_path):
    assert main(["verify", "--kernels", "reference", "--json", str(tmp_path / "rows.json")]) == 0
    out = capsys.readouterr().out
    assert "BatchNorm2d(3)" in out and "0 failed" in out and "FAILED" not in out
    record = json.loads((tmp_path / "rows.json").read_text())
    assert record["passed"] and all(row["error"] <= row["tolerance"] for row in record["rows"])
    assert f"{len(record['rows'])} passed" in out and len(record["rows"]) > 250


def test_verify_exits_with_1_and_names_the_pass_when_a_kernel_is_wrong(
    short_ladder, capsys, monkeypatch
):
    right = kernels.reference()

    def wrong(dx, dy, w, *windows):
        right.conv2d_backward_x(dx, dy, w, *windows)
        dx *= 1.001

    monkeypatch.setattr(kernels, "reference", lambda: right.replace(conv2d_backward_x=wrong))
    assert main(["verify", "--kernels", "reference", "--all"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    alone = [line for line in failed if line.strip().startswith("Conv2d")]
    assert alone and {line.rpartition("FAILED: ")[2] for line in alone} <= {"dx", "rdx"}
    inside = set(failed) - set(alone)  # there dw of the layers before is wrong as well
    assert all(line.strip().startswith("Residual") and "Conv2d(" in line for line in inside)


@pytest.mark.slow
def test_the_ladder_compares_another_kernel_set_with_the_reference():
    right = kernels.reference()

    def wrong(y, x, w):
        right.linear_forward(y, x, w)
        y *= 1.001

    assert all(check.passed for check in kernel_checks(right.replace("copy"), right))
    failed = [
        c
        for c in kernel_checks(right.replace("wrong", linear_forward=wrong), right)
        if not c.passed
    ]
    assert any("Linear" in c.subject for c in failed) and any("MAML" in c.subject for c in failed)
    assert not any("MaxPool2d" in c.subject for c in failed)


@pytest.mark.slow
def test_a_kernel_that_raises_fails_its_own_rows_with_the_reason():
    right = kernels.reference()

    def broken(*arguments):
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access\nand more lines")

    rows = list(kernel_checks(right.replace("broken", max_pool2d_gather=broken), right))
    failed = [c for c in rows if not c.passed]
    assert {c.quantity for c in failed} == {"raised"}
    assert {c.oracle for c in failed} == {
        "RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access"
    }
    assert any("MaxPool2d" in c.subject for c in failed) and len(rows) - len(failed) > 100


def test_against_reference_runs_rung_7_only(capsys, monkeypatch):
    monkeypatch.setattr(
        "refmaml.cli.verify.kernel_set", lambda name: kernels.reference().replace("copy")
    )
    monkeypatch.setattr(
        ladder,
        "kernel_checks",
        lambda kernels, reference: iter([Check("7 kernels", "s", "y", "o", 0.0, 1.0)]),
    )
    assert main(["verify", "--against-reference"]) == 0
    out = capsys.readouterr().out
    assert "kernels: copy" in out and "1 passed" in out and "layers and losses" not in out
    monkeypatch.setattr("refmaml.cli.verify.kernel_set", lambda name: kernels.reference())
    assert main(["verify", "--against-reference"]) == 2
    assert (
        "--against-reference: expected --kernels other than the reference kernels"
        in capsys.readouterr().err
    )


def test_an_interrupted_verify_leaves_its_rows_so_far(monkeypatch, tmp_path):
    """A section of `make gpu` is killed at its limit."""
    path = tmp_path / "rows.json"

    def checks(kernels, reference):
        yield Check("7 kernels", "first", "y", "o", 0.0, 1.0)
        before = json.loads(path.read_text())
        assert (
            [row["subject"] for row in before["rows"]] == ["first"]
            and before["passed"] is None
            and not before["complete"]
        )
        yield Check("7 kernels", "second", "y", "o", 2.0, 1.0)
        raise KeyboardInterrupt

    monkeypatch.setattr("refmaml.cli.report.SECONDS_BETWEEN_FILES", -1)
    monkeypatch.setattr(
        "refmaml.cli.verify.kernel_set", lambda name: kernels.reference().replace("copy")
    )
    monkeypatch.setattr(ladder, "kernel_checks", checks)
    assert main(["verify", "--against-reference", "--json", str(path)]) == 130
    found = json.loads(path.read_text())
    assert (
        [row["subject"] for row in found["rows"]] == ["first", "second"]
        and found["passed"] is False
        and not found["complete"]
    )


def test_an_unwritable_file_is_one_clear_line(short_ladder, capsys, tmp_path):
    assert (
        main(["verify", "--kernels", "reference", "--json", str(tmp_path / "absent" / "rows.json")])
        == 2
    )
    error = capsys.readouterr().err
    assert (
        error.startswith("refmaml: --json: expected a file that can be written")
        and error.count("\n") == 1
    )


def test_operations_that_a_kernel_set_lacks_are_listed(short_ladder, capsys, monkeypatch):
    partial = kernels.reference().replace("reference")
    partial.missing = ("film_forward", "linear_forward")
    monkeypatch.setattr("refmaml.cli.verify.kernel_set", lambda name: partial)
    monkeypatch.setattr(ladder, "ladder", lambda kernel_set, whole: [])
    assert main(["verify"]) == 0
    assert "on the reference kernels: film_forward, linear_forward" in capsys.readouterr().out


def test_nets_without_weights_in_their_first_layer_are_on_the_ladder():
    """A net may begin with batch-norm, a pooling or an activation."""
    rows = list(ladder.nets_without_weights_first(kernels.reference()))
    failed = [f"{row.subject}: {row.quantity}, {row.oracle}" for row in rows if not row.passed]
    assert not failed, failed
    assert len(rows) == 5 * len(cases.nets_without_weights_first())
