"""docs/homework/: skeletons fail, solutions pass, typical wrong answers are named."""

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "docs" / "homework"
NAMES = sorted(path.stem for path in (FOLDER / "solutions").glob("*.py"))


def module(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


grade, compare = module("grade"), module("compare")
BY_LINE = [name for name in NAMES if "def adjoints" in (FOLDER / f"{name}.py").read_text()]


def test_every_homework_has_a_skeleton_a_solution_and_a_check():
    skeletons = {p.stem for p in FOLDER.glob("*.py")} - {"grade", "compare"}
    assert skeletons == set(NAMES) == set(grade.HOMEWORKS) and len(NAMES) == 6
    assert all((FOLDER / f"{name}.py").read_text().count("...") >= 3 for name in NAMES)
    assert not any(
        re.search(r"= \.\.\.", (FOLDER / "solutions" / f"{n}.py").read_text()) for n in NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_skeleton_fails(name):
    assert grade.grade(name, FOLDER) != 0


@pytest.mark.parametrize("name", NAMES)
def test_a_solution_passes(name):
    assert grade.grade(name, FOLDER / "solutions") == 0


@pytest.mark.parametrize("name", NAMES)
def test_skeleton_and_solution_differ_in_holes_only(name):
    def lines(path):
        text = path.read_text().split('"""', 2)[2]
        text = re.sub(r"^ +r?inner = .*\n", "", text, flags=re.M)
        return [re.sub(r"= .*|append\(.*", "", line) for line in text.splitlines()]

    assert lines(FOLDER / f"{name}.py") == lines(FOLDER / "solutions" / f"{name}.py")


# {label: (homework, right line, wrong line, what the verdict says)}
WRONG = {
    "batch-norm's variance as a constant": (
        "batch_norm", "dc = dxh * s + 2 * c * dvariance / M", "dc = dxh * s",
        "the variance term is missing",
    ),
    "a sum for a mean": ("cross_entropy", "] = -1 / N", "] = -1.0", "sum|times"),
    "first-order MAML": (
        "maml", "lam = along(lam, -alpha, problem.hvp(phis[k], *support, lam))", "lam = lam",
        "first.order|every factor",
    ),
    "all Hessians at theta": (
        "maml", "problem.hvp(phis[k]", "problem.hvp(phis[0]", "initial parameters",
    ),
    "too few steps of conjugate gradients": (
        "conjugate_gradients", "STEPS = 6", "STEPS = 3", "3 (steps|iterations)|iterate 3",
    ),
    "a turned kernel": (
        "convolution", "weight[:, :, ::-1, ::-1]", "weight[:, :, :, :]", "flipped",
    ),
}  # fmt: skip


@pytest.mark.parametrize("label", WRONG)
def test_a_typical_wrong_answer_is_named(label, tmp_path, capsys):
    name, right, wrong, said = WRONG[label]
    text = (FOLDER / "solutions" / f"{name}.py").read_text()
    assert text.count(right) == 1
    (tmp_path / f"{name}.py").write_text(text.replace(right, wrong))
    assert grade.grade(name, tmp_path) == 1
    assert re.search(said, capsys.readouterr().out)


# ---- line by line --------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_LINE)
def test_a_solution_is_exact_line_by_line(name, capsys):
    assert compare.main(FOLDER / "solutions" / f"{name}.py") == 0
    assert set(re.findall(r" (\w+)$", capsys.readouterr().out, re.M)) == {"exact"}


@pytest.mark.parametrize("name", BY_LINE)
def test_a_skeleton_has_holes_line_by_line(name, capsys):
    assert compare.main(FOLDER / f"{name}.py") == 1
    assert re.search("still a hole|raises", capsys.readouterr().out)


def test_the_first_wrong_line_is_found_and_rounding_is_no_mistake(tmp_path):
    text = (FOLDER / "solutions" / "batch_norm.py").read_text()
    wrong = text.replace("dvariance = -0.5 * s**3 * ds", "dvariance = 0.5 * s**3 * ds")
    wrong = wrong.replace("dxh = dy * wide(gamma)", "dxh = 3 * (dy / 3) * wide(gamma)")
    assert wrong.count("0.5") == text.count("0.5")
    (tmp_path / "batch_norm.py").write_text(wrong)
    rows = compare.rows(tmp_path / "batch_norm.py", FOLDER / "solutions" / "batch_norm.py")
    verdicts = {name: verdict for name, verdict, _ in rows}
    assert verdicts["dgamma"] == "exact" and verdicts["dxh"].startswith("approximate")
    assert [name for name, _, good in rows if not good][:2] == ["dvariance", "dc"]


def test_a_tangent_without_its_rs_term_is_off_in_one_line(tmp_path):
    text = (FOLDER / "solutions" / "batch_norm.py").read_text()
    (tmp_path / "batch_norm.py").write_text(text.replace("rs * inner + s * rinner", "s * rinner"))
    rows = compare.rows(tmp_path / "batch_norm.py", FOLDER / "solutions" / "batch_norm.py")
    assert [name for name, _, good in rows if not good] == ["rdx"]


def test_grading_writes_junit_and_counts_what_is_not_right(tmp_path, capsys):
    folder = tmp_path / "answers"
    folder.mkdir()
    for name in NAMES:
        source = FOLDER if name == "linear" else FOLDER / "solutions"
        (folder / f"{name}.py").write_text((source / f"{name}.py").read_text())
    assert grade.main([str(folder), "--junit", str(tmp_path / "reports")]) == 1
    assert re.search(r"linear +not right", capsys.readouterr().out)
    written = {path.stem: path for path in (tmp_path / "reports").glob("*.xml")}
    assert set(written) >= set(NAMES) - {"linear"}
    assert all(
        ElementTree.parse(path).getroot().tag.startswith("testsuite") for path in written.values()
    )
