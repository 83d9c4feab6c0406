"""`refmaml verify`: its table, its JSON and its exit status, with kernels that are right and with one that is not."""
import json

import pytest

from refmaml import kernels
from refmaml.cli import main
from refmaml.oracles import ladder


@pytest.fixture
def short_ladder(monkeypatch):
    """The ladder's first, second and fifth section only: the rest is what tests 30 to 42 run."""
    def short(kernel_set):
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


def test_verify_exits_with_1_and_names_the_pass_when_a_kernel_is_wrong(short_ladder, capsys, monkeypatch):
    right = kernels.reference()

    def wrong(dx, dy, w, stride, padding):
        right.conv2d_backward_x(dx, dy, w, stride, padding)
        dx *= 1.001
    monkeypatch.setattr(kernels, "reference", lambda: right.replace(conv2d_backward_x=wrong))
    assert main(["verify", "--kernels", "reference", "--all"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert failed and all(line.strip().startswith("Conv2d") for line in failed)
    assert {line.rpartition("FAILED: ")[2] for line in failed} <= {"dx", "rdx"}


def test_the_ladder_holds_another_kernel_set_against_the_reference():
    right = kernels.reference()

    def wrong(y, x, w):
        right.linear_forward(y, x, w)
        y *= 1.001
    from refmaml.oracles.kernel_checks import kernel_checks
    assert all(check.passed for check in kernel_checks(right.replace("copy"), right))
    failed = [c for c in kernel_checks(right.replace("wrong", linear_forward=wrong), right) if not c.passed]
    assert any("Linear" in c.subject for c in failed) and any("MAML" in c.subject for c in failed)
    assert not any("MaxPool2d" in c.subject for c in failed)


def test_an_unwritable_file_is_one_clear_line(short_ladder, capsys, tmp_path):
    assert main(["verify", "--kernels", "reference", "--json", str(tmp_path / "absent" / "rows.json")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("refmaml: --json: expected a file that can be written") and error.count("\n") == 1
