"""Checks of output paths before the work whose result is written there."""

import os
from contextlib import suppress
from pathlib import Path

from refmaml.errors import DataError, expect


def check_outputs(outputs, inputs=None):
    """Raise ArgumentError or DataError unless all outputs can be written safely.

    outputs  {option: path or None}; a path that is None is left out
    inputs   {name: path or None}: files that the command reads

    An output must be a file that can be written (or a device or a pipe), must not be
    one of the inputs, and must not be another output.
    """
    from refmaml.training.files import check_writable

    outputs = {option: Path(path) for option, path in outputs.items() if path is not None}
    inputs = {name: Path(path) for name, path in (inputs or {}).items() if path is not None}
    others = dict(inputs)
    for option, path in outputs.items():
        for name, other in others.items():
            expect(not same_file(path, other), option, f"a file other than {name}", path)
        others[option] = path
    for option, path in outputs.items():
        try:
            check_writable(path)
        except OSError as error:
            raise DataError(
                f"{option}: expected a file that can be written, "
                f"got {path}: {error.strerror or error}"
            ) from None


def same_file(a, b):
    """Whether two paths lead to one regular file, or to one place where no file is yet.

    A device or a pipe may be used twice.
    """
    with suppress(OSError):  # one of them is not there
        return os.path.samefile(a, b) and os.path.isfile(a)
    return os.path.realpath(a) == os.path.realpath(b)
