"""What people are told while work goes on."""

import sys
from contextlib import suppress


def say(text):
    """A line on stderr. Where none can be written (its disk is full, its reader has gone) the work is worth more than the line."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
