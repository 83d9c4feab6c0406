"""A small Omniglot table for tests: printed characters, four meta-steps a cell."""

from pathlib import Path

from refmaml import training
from refmaml.cli import main
from refmaml.cli.omniglot import protocols

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


def tiny_table(tmp_path, monkeypatch):
    """Replace the configurations of the table by small ones, in an empty folder."""
    real = protocols.configuration
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        protocols, "configuration", lambda *cell: real(*cell) | TINY | {"steps": 4, "eval_steps": 2}
    )
    return tmp_path


def reproduce(*more):
    return main(["reproduce", "omniglot", "--quiet", "--data-root", ".", *more])


def interrupted_after(steps, train=training.train):
    """A `train` that is interrupted by Ctrl-C after so many meta-steps."""

    def impatient(recipe, now, **options):
        train(recipe, now, **(options | {"steps": steps}))
        raise KeyboardInterrupt

    return impatient
