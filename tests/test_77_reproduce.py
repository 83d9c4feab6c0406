"""`refmaml reproduce omniglot`: a table of tiny runs that stops and is resumed."""

import csv
import json
from pathlib import Path

import pytest
from tiny_table import interrupted_after, reproduce, tiny_table

from refmaml import training
from refmaml.cli import main
from refmaml.cli.omniglot import cells
from refmaml.cli.reproduce import seconds
from refmaml.training import checkpoint, plot

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent

tiny = pytest.fixture(tiny_table)


def test_a_table_is_trained_evaluated_and_written(tiny, capsys):
    assert (
        reproduce("--rows", "maml", "reptile", "imaml-hf", "--protocols", "equal", "as-published")
        == 0
    )
    table = json.loads((tiny / "runs/omniglot/table.json").read_text())
    assert [(r["protocol"], r["row"]) for r in table["results"]] == [
        (p, r) for p in ("as-published", "equal") for r in ("maml", "reptile", "imaml-hf")
    ]
    for result in table["results"]:
        assert result["finished"] and result["steps"] == 4 and result["tasks"] == 4
        assert all(
            0 <= e["accuracy"] <= 1 and e["interval"] >= 0 for e in result["evaluations"].values()
        )
    out = capsys.readouterr().out
    assert (
        "| inner_moment | – | – | carried | – | – |" in out
        and "| inner_moment | – | – | carried | – | – | – |" in out
    )
    assert (
        out.count("**") == 2 * 6
        and "| first-order MAML | not run yet |" in out
        and "*98.7 ± 0.4*" in out
    )
    assert (tiny / "runs/omniglot/table.png").read_bytes().startswith(b"\x89PNG")


def test_an_unfinished_cell_is_marked_and_resumed_to_the_bits_of_an_uninterrupted_run(
    tiny, capsys, monkeypatch
):
    chosen = ("--rows", "reptile", "--protocols", "as-published")
    reproduce(*chosen, "--out", "unbroken")
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", interrupted_after(2))
        assert reproduce(*chosen, "--out", "broken") == 130
    err = capsys.readouterr().err
    assert (
        "saved; to go on: refmaml reproduce omniglot --protocols as-published --columns 5w1s "
        "--rows reptile --out broken" in err
    )
    reproduce(*chosen, "--out", "broken", "--budget", "0s")
    assert "unfinished: step 2 of 4" in capsys.readouterr().out
    reproduce(*chosen, "--out", "broken")
    place = "as-published/5w1s/reptile/checkpoint.npz"
    (a, _), (b, _) = (checkpoint.load(Path(out) / place) for out in ("unbroken", "broken"))
    assert a.meta.tobytes() == b.meta.tobytes() and a.step == b.step == 4


def test_a_table_in_another_folder_has_thinned_curves(tiny, monkeypatch):
    monkeypatch.setattr(cells, "MAX_ROWS", 2)
    reproduce("--rows", "maml", "--protocols", "equal", "--table", "results")
    folder = tiny / "results/equal/5w1s/maml"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "curve.csv",
        "result.json",
    ]
    rows, full = (
        list(csv.DictReader(path.read_text().splitlines()))
        for path in (folder / "curve.csv", tiny / "runs/omniglot/equal/5w1s/maml/curve.csv")
    )
    assert [row["step"] for row in rows] == ["2", "4"]
    assert float(rows[0]["loss"]) == pytest.approx(
        (float(full[0]["loss"]) + float(full[1]["loss"])) / 2, rel=1e-12
    )


@pytest.mark.parametrize(
    "table", [[], ["--table", "./runs/../runs/omniglot"]], ids=["by default", "by another name"]
)
def test_a_table_beside_the_runs_leaves_their_whole_curves(tiny, monkeypatch, table):
    monkeypatch.setattr(cells, "MAX_ROWS", 2)
    reproduce("--rows", "maml", "--protocols", "equal", *table)
    assert len((tiny / "runs/omniglot/equal/5w1s/maml/curve.csv").read_text().splitlines()) == 5


def test_without_matplotlib_there_is_a_table_without_its_picture(tiny, monkeypatch, capsys):
    reproduce("--rows", "maml", "--protocols", "equal")  # matplotlib draws the characters
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    (tiny / "runs/omniglot/table.png").unlink()
    capsys.readouterr()
    assert reproduce("--rows", "maml", "--protocols", "equal") == 0
    assert (
        capsys.readouterr().err
        == "refmaml: no runs/omniglot/table.png: matplotlib draws it, and is not installed\n"
    )
    assert not (tiny / "runs/omniglot/table.png").exists()


def test_the_list_prints_the_state_of_each_cell_and_trains_nothing(tiny, capsys):
    reproduce("--rows", "maml", "--protocols", "equal")
    capsys.readouterr()
    assert (
        main(
            ["reproduce", "omniglot", "--list", "--rows", "maml", "fomaml", "--protocols", "equal"]
        )
        == 0
    )
    finished, untouched = capsys.readouterr().out.splitlines()
    assert "MAML (4 steps): finished; at step 4: **" in finished and untouched.endswith(
        "first-order MAML (4 steps): not begun"
    )


@pytest.mark.parametrize(
    "text, value", [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("0.5m", 30), ("20s", 20)]
)
def test_a_budget_is_read_with_its_units(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize(
    "argv, message",
    [
        (
            ["--data-root", ".", "--budget", "soon"],
            "--budget: expected a time such as 2h, 90m, 1h30m or 20s, got 'soon'",
        ),
        (
            ["--data-root", ".", "--budget", ""],
            "--budget: expected a time such as 2h, 90m, 1h30m or 20s, got ''",
        ),
        (
            ["--data-root", "/dev"],
            "/dev: expected Omniglot's images_background.zip or the folder "
            "images_background, got neither "
            "(download=True fetches the archives)",
        ),
        ([], "--data-root: expected the folder that holds Omniglot, got nothing"),
    ],
)
def test_a_bad_call_is_answered_in_one_line(capsys, argv, message):
    assert main(["reproduce", "omniglot", *argv]) == 2
    assert capsys.readouterr().err == f"refmaml: {message}\n"
