"""The folder of a training run: one process at a time writes to it, and nothing in it is ever half there."""

import os
from pathlib import Path

from refmaml.errors import DataError, expect
from refmaml.log import say
from refmaml.storage.locks import is_ours, sole_writer

CHECKPOINT, CURVE, PICTURE = "checkpoint.npz", "curve.csv", "curve.png"
CONFIG, RESULT = "config.json", "result.json"


class RunFolder:
    """What a run leaves, at `path`: its checkpoint, curve, configuration, picture and result.

    kept  the step of the checkpoint that lies there, None as long as this process has neither read nor written one
    seen  the newest Progress there is, saved or not
    """

    def __init__(self, path, config, kept=None):
        self.path, self.config, self.kept, self.seen = path, config, kept, None

    def save(self, now):
        """What a later process needs, and what people like to look at meanwhile. Raises DataError, saying what is there still."""
        from refmaml.training import checkpoint, files

        self.seen = now
        if not is_ours(self.path):
            raise DataError(
                f"{self.path}: expected the folder this run began in, got one that was removed, or that another process took"
            )
        try:
            checkpoint.save(self.path / CHECKPOINT, now, self.config)
            self.kept = now.step
            self.write_curve()
            files.write_json(self.path / CONFIG, self.config)
        except DataError as error:
            if self.kept is None:
                raise
            raise DataError(
                f"{error}; the checkpoint of step {self.kept} is there still"
            ) from error

    def write_curve(self):
        """The curve so far, as a table."""
        from refmaml.training import curve

        curve.write_csv(self.path / CURVE, self.seen.rows)

    def draw_curve(self, held_out=()):
        """The curve so far, as a picture, and (step, Evaluation) of evaluations."""
        from refmaml.training import curve

        curve.write_png(self.path / PICTURE, self.seen.rows, titled(self.config), held_out)

    def trouble(self, error):
        """Say that a save on the way failed; the next is tried in its time."""
        say(f"refmaml: {error}; training goes on, and saving is tried again")

    def diverged(self, error):
        """Leave the curve up to the step that overflowed, and the checkpoint as it is; the error with that said."""
        try:
            self.write_curve()
            self.draw_curve()
            curve = f"the curve goes to step {self.seen.step}"
        except DataError as trouble:
            curve = str(trouble)
        return type(error)(
            f"{error}; {self.path / CHECKPOINT} is as it was after step {self.kept}, {curve}"
        )


def titled(config):
    """What a run is called."""
    return f"{config['method']} on {config['data']}"


def new_folder(given, config):
    """A folder for a new run: --out, or one of a telling name that nobody has. Raises DataError and ArgumentError."""
    from refmaml.training.files import make_folder

    if "out" in given:
        return make_folder(given["out"])
    name, number = f"{config['data']}-{config['method']}", 1
    while True:
        try:
            return make_folder(
                Path("runs") / (name if number == 1 else f"{name}-{number}"), new=True
            )
        except FileExistsError:
            number += 1


def refuse_finished(folder):
    """Raise ArgumentError where a run lies in the folder already, or a file that a run would write over."""
    expect(
        not os.path.exists(folder / CHECKPOINT),
        "--out",
        "a folder without a checkpoint, or --resume beside it",
        folder,
    )
    there = [name for name in (CONFIG, RESULT) if os.path.isfile(folder / name)]
    expect(
        not there,
        "--out",
        "a folder that a run does not write over",
        f"{folder} with a {there and there[0]}",
    )


def claimed(folder, stack):
    """The folder, ours until the ExitStack `stack` closes. Raises DataError where another process is writing to it."""
    stack.enter_context(sole_writer(folder))
    return folder
