"""The folder of a training run: one process writes to it, and every file in it is
complete.
"""

import os
from pathlib import Path

from refmaml.errors import DataError, expect
from refmaml.log import log
from refmaml.storage.locks import is_ours, sole_writer

CHECKPOINT, CURVE, PICTURE = "checkpoint.npz", "curve.csv", "curve.png"
CONFIG, RESULT = "config.json", "result.json"


class RunFolder:
    """The files of a run at `path`: checkpoint, curve, configuration, picture, result.

    saved_step  the step of the checkpoint there; None before this process read or wrote
                one
    latest      the newest Progress, saved or not
    """

    def __init__(self, path, config, saved_step=None):
        self.path, self.config, self.saved_step, self.latest = path, config, saved_step, None

    def save(self, now):
        """Write checkpoint, curve and configuration.

        Raises DataError, which names the checkpoint that is still there.
        """
        from refmaml.training import checkpoint, files

        self.latest = now
        if not is_ours(self.path):
            raise DataError(
                f"{self.path}: expected the folder this run began in, "
                "got one that was removed, or that another process took"
            )
        try:
            checkpoint.save(self.path / CHECKPOINT, now, self.config)
            self.saved_step = now.step
            self.write_curve()
            files.write_json(self.path / CONFIG, self.config)
        except DataError as error:
            if self.saved_step is None:
                raise
            raise DataError(
                f"{error}; the checkpoint of step {self.saved_step} is there still"
            ) from error

    def write_curve(self):
        """Write the curve so far as a table."""
        from refmaml.training import curve

        curve.write_csv(self.path / CURVE, self.latest.rows)

    def draw_curve(self, held_out=()):
        """Draw the curve so far, and (step, Evaluation) of evaluations."""
        from refmaml.training import plot

        plot.write_png(self.path / PICTURE, self.latest.rows, run_title(self.config), held_out)

    def report_save_error(self, error):
        """Report a periodic save that failed; the next one is at its usual time."""
        log(f"refmaml: {error}; training continues, and saving is tried again")

    def diverged(self, error):
        """Write the curve up to the step that overflowed; the checkpoint stays.

        Returns the error with that added.
        """
        try:
            self.write_curve()
            self.draw_curve()
            curve = f"the curve goes to step {self.latest.step}"
        except DataError as write_error:
            curve = str(write_error)
        return type(error)(
            f"{error}; {self.path / CHECKPOINT} is as it was after step {self.saved_step}, {curve}"
        )


class NullRunFolder(RunFolder):
    """The RunFolder of ranks other than the first, which write nothing."""

    def save(self, now):
        self.latest = now

    def write_curve(self):
        """Write nothing."""

    draw_curve = write_curve

    def diverged(self, error):
        return error


def run_title(config):
    """A run's title: "METHOD on DATA"."""
    return f"{config['method']} on {config['data']}"


def new_folder(out, name):
    """The folder `out`; if that is None, a new folder runs/NAME or runs/NAME-2, ...

    Raises DataError where it cannot be written.
    """
    from refmaml.training.files import make_folder

    if out is not None:
        return make_folder(out)
    number = 1
    while True:
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            return make_folder(path, new=True)
        except FileExistsError:
            number += 1


def refuse_finished(folder):
    """Raise ArgumentError where the folder has a run, or a file that a run would
    overwrite.
    """
    expect(
        not os.path.exists(folder / CHECKPOINT),
        "--out",
        "a folder without a checkpoint, or --resume beside it",
        folder,
    )
    refuse_overwriting(folder, (CONFIG, RESULT), "a run")


def refuse_overwriting(folder, names, writer):
    """Raise ArgumentError where the folder has one of the files that `writer` would
    overwrite.
    """
    existing = [name for name in names if os.path.isfile(folder / name)]
    expect(
        not existing,
        "--out",
        f"a folder in which {writer} overwrites nothing",
        lambda: f"{folder} with a {existing[0]}",
    )


def lock_folder(folder, stack):
    """The folder, locked for this process until the ExitStack `stack` closes.

    Raises DataError where another process is writing to it.
    """
    stack.enter_context(sole_writer(folder))
    return folder
