"""Messages to the user while work goes on."""

import sys
from contextlib import suppress


def log(text):
    """Print a line to stderr; ignore write errors.

    A full disk or a closed stderr must not end the work.
    """
    if sys.stderr is None:  # closed before Python started; print would use stdout
        return
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def is_terminal(stream):
    """Whether a stream is a terminal; False where it is closed or missing."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False
