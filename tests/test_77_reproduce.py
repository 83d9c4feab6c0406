"""`refmaml reproduce omniglot`: its configurations, and a table of tiny runs that stops and goes on."""

import csv
import json
import os
import shlex
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from clock import Clock

from refmaml import cli, training
from refmaml.cli import main, options, problem
from refmaml.cli.omniglot import cells, protocols
from refmaml.cli.reproduce import seconds
from refmaml.errors import NonFiniteError
from refmaml.training import checkpoint, curve

ROOT = Path(__file__).parent.parent
TINY = {
    "data": "glyphs",
    "channels": 2,
    "tasks": 2,
    "eval_tasks": 4,
    "kernels": "reference",
    "minutes": None,
    "n_way": 3,
}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The table in small, on printed characters: four meta-steps a cell."""
    real = protocols.configuration
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        protocols, "configuration", lambda *cell: real(*cell) | TINY | {"steps": 4, "eval_steps": 2}
    )
    return tmp_path


def reproduce(*more):
    return main(["reproduce", "omniglot", "--quiet", "--data-root", ".", *more])


def every_cell():
    return [
        (p, r, c) for p in protocols.PROTOCOLS for r in protocols.ROWS for c in protocols.COLUMNS
    ]


# ---- configurations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol, row, column", every_cell())
def test_every_cell_names_every_knob_and_builds_what_it_names(protocol, row, column):
    config = protocols.configuration(protocol, row, column)
    assert config.keys() == options.settle({}).keys() and options.reread(config) == config
    method, net = problem.make_method(config), problem.make_net(config | {"kernels": "reference"})
    problem.at_evaluation(method, config, len(method.init(net, net.init(0))), net)
    assert net.num_params == sum(a.size for a in net.named(net.init(0)).values())


def test_the_published_knobs_are_those_of_the_published_code():
    maml, reptile = (
        protocols.configuration("as-published", row, "5w1s") for row in ("maml", "reptile")
    )
    assert (maml["inner_lr"], maml["loss_scale"], maml["tasks"], maml["steps"]) == (
        0.4,
        "sum/K",
        32,
        60000,
    )
    assert maml["frozen"] == ["BatchNorm2d"] and not maml["bn_gamma"] and maml["eval_steps"] == 3
    assert (reptile["inner_moment"], reptile["rotations"], reptile["eval_rotations"]) == (
        "carried",
        "as_classes",
        "none",
    )
    assert (reptile["support_order"], maml["support_order"]) == ("shuffled", "by_class")
    wide = protocols.configuration("as-published", "maml", "20w1s")
    assert (wide["inner_lr"], wide["inner_steps"], wide["tasks"]) == (0.1, 5, 16)


def test_under_the_equal_protocol_net_split_query_size_and_time_are_the_same_for_all():
    shared = [
        name
        for name in (*options.SAVED["tasks"], *options.SAVED["net"], "minutes")
        if name not in ("train_shots", "support_order")
    ]
    for column in protocols.COLUMNS:
        first, *others = (
            {name: protocols.configuration("equal", row, column)[name] for name in shared}
            for row in protocols.ROWS
        )
        assert all(other == first for other in others)


def test_what_is_committed_is_what_the_code_says():
    """Each result beside the benchmarks was run with the configuration that its cell has today, but for how it was computed."""
    for path in sorted((ROOT / "benchmarks/omniglot").glob("*/*/*/config.json")):
        protocol, column, row = path.parts[-4:-1]
        saved, wanted = (
            options.reread(json.loads(path.read_text())),
            protocols.configuration(protocol, row, column),
        )
        assert {n: v for n, v in saved.items() if n not in cells.FREE} == {
            n: v for n, v in wanted.items() if n not in cells.FREE
        }, path


# ---- the command -------------------------------------------------------------------------------------------


def test_a_table_is_trained_judged_and_written(tiny, capsys):
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
    assert "| inner_moment | – | – | carried | – | – |" in out
    assert (
        out.count("**") == 2 * 6
        and "| first-order MAML | not run yet |" in out
        and "*98.7 ± 0.4*" in out
    )
    assert (tiny / "runs/omniglot/table.png").read_bytes().startswith(b"\x89PNG")


def test_an_unfinished_cell_says_so_and_goes_on_to_the_bits_of_an_unbroken_run(
    tiny, capsys, monkeypatch
):
    chosen = ("--rows", "reptile", "--protocols", "as-published")
    reproduce(*chosen, "--out", "unbroken")
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", interrupted_after(2))
        assert reproduce(*chosen, "--out", "broken") == 130
    said = capsys.readouterr().err
    assert (
        "saved; to go on: refmaml reproduce omniglot --protocols as-published --columns 5w1s --rows reptile --out broken"
        in said
    )
    reproduce(*chosen, "--out", "broken", "--budget", "0s")
    assert "unfinished: step 2 of 4" in capsys.readouterr().out
    reproduce(*chosen, "--out", "broken")
    place = "as-published/5w1s/reptile/checkpoint.npz"
    (a, _), (b, _) = (checkpoint.load(Path(out) / place) for out in ("unbroken", "broken"))
    assert a.meta.tobytes() == b.meta.tobytes() and a.step == b.step == 4


def interrupted_after(steps, train=training.train):
    """Training that meets a Ctrl-C after so many meta-steps."""

    def impatient(recipe, now, **options):
        train(recipe, now, **(options | {"steps": steps}))
        raise KeyboardInterrupt

    return impatient


def test_the_table_lies_apart_from_the_runs_if_asked_with_thinned_curves(tiny, monkeypatch):
    monkeypatch.setattr(cells, "THINNED", 2)
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
    monkeypatch.setattr(cells, "THINNED", 2)
    reproduce("--rows", "maml", "--protocols", "equal", *table)
    assert len((tiny / "runs/omniglot/equal/5w1s/maml/curve.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("content", ["", "{", "[" * 100000], ids=["empty", "cut off", "deep"])
def test_a_damaged_result_is_one_line(tiny, capsys, content):
    reproduce("--rows", "maml", "--protocols", "equal")
    (tiny / "runs/omniglot/equal/5w1s/maml/result.json").write_text(content)
    capsys.readouterr()
    assert reproduce("--rows", "maml", "--protocols", "equal") == 2
    err = capsys.readouterr().err
    assert (
        err
        == "refmaml: runs/omniglot/equal/5w1s/maml/result.json: expected a cell's result, got no JSON\n"
    )


def test_a_result_of_another_command_in_a_cells_folder_is_one_line(tiny, capsys):
    reproduce("--rows", "maml", "--protocols", "equal")
    folder = tiny / "runs/omniglot/equal/5w1s/maml"
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(
        json.dumps({name: result[name] for name in ("steps", "seconds", "configuration")})
    )
    capsys.readouterr()
    for more in ([], ["--list"]):
        assert reproduce("--rows", "maml", "--protocols", "equal", *more) == 2
        err = capsys.readouterr().err
        assert (
            err.count("\n") == 1
            and "result.json: expected a cell's result, got another (remove it, and" in err
        )
    (folder / "result.json").unlink()
    assert reproduce("--rows", "maml", "--protocols", "equal") == 0
    again = json.loads((folder / "result.json").read_text())
    assert {n: v for n, v in again.items() if n != "judged_in"} == {
        n: v for n, v in result.items() if n != "judged_in"
    }


def test_a_checkpoint_that_another_net_left_is_not_gone_on_with(tiny, capsys):
    reproduce("--rows", "maml", "--protocols", "equal")
    path = tiny / "runs/omniglot/equal/5w1s/maml/checkpoint.npz"
    now, config = checkpoint.load(path)
    checkpoint.save(path, replace(now, state={}, step=2), config)
    before = path.read_bytes()
    capsys.readouterr()
    assert reproduce("--rows", "maml", "--protocols", "equal") == 2
    assert (
        "and the optimiser state m, v, got" in capsys.readouterr().err
        and path.read_bytes() == before
    )


@pytest.mark.parametrize("signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_cell_is_judged_says_how_to_go_on(
    tiny, capsys, monkeypatch, signum, status
):
    make, chosen = problem.make_judges, ("--rows", "maml", "--protocols", "equal")
    with monkeypatch.context() as patch:
        patch.setattr(
            problem, "make_judges", lambda *a, **k: os.kill(os.getpid(), signum) or make(*a, **k)
        )
        assert reproduce(*chosen, "--out", "my runs") == status
    said = capsys.readouterr().err
    assert said == (
        "refmaml: interrupted; to go on: refmaml reproduce omniglot --protocols equal --columns 5w1s --rows maml "
        "--out 'my runs' --data-root . --quiet\n"
    )
    assert (
        main(shlex.split(said.split("to go on: refmaml ")[1])) == 0
        and "**" in capsys.readouterr().out
    )


def test_a_run_under_other_settings_is_not_gone_on_with(tiny, capsys, monkeypatch):
    reproduce("--rows", "maml", "--protocols", "equal")
    before = protocols.configuration
    monkeypatch.setattr(
        protocols, "configuration", lambda *cell: before(*cell) | {"inner_lr": 0.25}
    )
    capsys.readouterr()
    assert reproduce("--rows", "maml", "--protocols", "equal") == 2
    assert "the protocol's --inner-lr 0.25, got 0.5" in capsys.readouterr().err


def test_what_is_judged_already_is_not_judged_again(tiny, monkeypatch):
    reproduce("--rows", "maml", "--protocols", "equal")
    monkeypatch.setattr(problem, "make_judges", lambda *a, **k: pytest.fail("judged again"))
    assert reproduce("--rows", "maml", "--protocols", "equal") == 0


def test_a_cell_whose_settings_of_judging_changed_is_judged_again(tiny, monkeypatch):
    reproduce("--rows", "maml", "--protocols", "equal")
    before = protocols.configuration
    monkeypatch.setattr(protocols, "configuration", lambda *cell: before(*cell) | {"eval_steps": 3})
    assert reproduce("--rows", "maml", "--protocols", "equal") == 0
    result = json.loads((tiny / "runs/omniglot/equal/5w1s/maml/result.json").read_text())
    assert result["configuration"]["eval_steps"] == 3 and result["steps"] == 4


def test_a_cell_that_diverges_is_judged_as_far_as_it_came_and_does_not_keep_the_others(
    tiny, capsys, monkeypatch
):
    before, judged = protocols.configuration, cells.judge
    trained = ("--rows", "maml", "fomaml", "--protocols", "equal")
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", interrupted_after(2))
        reproduce("--rows", "maml", "--protocols", "equal")  # a checkpoint of step 2
    capsys.readouterr()

    def overflown(recipe, now, train=training.train, **options):
        if now.step == 2:
            raise NonFiniteError("meta-step 3: planted")
        return train(recipe, now, **options)

    monkeypatch.setattr(training, "train", overflown)
    assert reproduce(*trained) == 2
    out, err = capsys.readouterr()
    assert err.startswith("refmaml: meta-step 3: planted; ") and err.count("\n") == 1
    assert "unfinished: step 2 of 4" in out and out.count("**") == 2  # and the other is finished
    monkeypatch.setattr(
        cells, "judge", lambda *a: pytest.fail("not this one") if a[0].row == "maml" else judged(*a)
    )
    path = tiny / "runs/omniglot/equal/5w1s/maml/checkpoint.npz"
    path.write_bytes(path.read_bytes()[:1000])
    monkeypatch.setattr(protocols, "configuration", lambda *cell: before(*cell) | {"eval_steps": 1})
    assert reproduce(*trained) == 2 and "checkpoint.npz: expected" in capsys.readouterr().err
    assert (
        cells.Cell("equal", "fomaml", "5w1s", Path("runs/omniglot")).result()["configuration"][
            "eval_steps"
        ]
        == 1
    )


def test_judging_takes_nothing_from_the_time_for_training(tiny, monkeypatch):
    clock, go_on, judge, given = Clock(), cells.go_on, cells.judge, []

    def trained(cell, minutes, *more):
        given.append(minutes)
        clock.sleep(60)
        return go_on(cell, minutes, *more)

    def judged(*more):
        clock.sleep(1e6)
        return judge(*more)

    monkeypatch.setattr(cells, "go_on", trained)
    monkeypatch.setattr(cells, "judge", judged)
    monkeypatch.setattr(cli.reproduce, "time", SimpleNamespace(monotonic=clock))
    assert (
        reproduce("--rows", "maml", "fomaml", "reptile", "--protocols", "equal", "--budget", "2m")
        == 0
    )
    assert given == [2.0, 1.0]


def test_without_matplotlib_there_is_a_table_without_its_picture(tiny, monkeypatch, capsys):
    reproduce(
        "--rows", "maml", "--protocols", "equal"
    )  # draws the characters, which matplotlib does
    monkeypatch.setattr(curve, "find_spec", lambda name: None)
    (tiny / "runs/omniglot/table.png").unlink()
    capsys.readouterr()
    assert reproduce("--rows", "maml", "--protocols", "equal") == 0
    assert (
        capsys.readouterr().err
        == "refmaml: no runs/omniglot/table.png: matplotlib draws it, and is not installed\n"
    )
    assert not (tiny / "runs/omniglot/table.png").exists()


def test_the_list_shows_how_far_each_cell_is_and_trains_nothing(tiny, capsys):
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
def test_a_budget_is_read_as_people_write_it(text, value):
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
            "/dev: expected Omniglot's images_background.zip or the folder images_background, got neither "
            "(download=True fetches the archives)",
        ),
        ([], "--data-root: expected the folder that holds Omniglot, got nothing"),
    ],
)
def test_a_bad_call_is_answered_in_one_line(capsys, argv, message):
    assert main(["reproduce", "omniglot", *argv]) == 2
    assert capsys.readouterr().err == f"refmaml: {message}\n"
