"""Ctrl-C, SIGTERM and a closing terminal end a command at a point where nothing is
lost.
"""

import os
import signal
from contextlib import suppress

from refmaml.interrupts import signal_handler


class StopRequested(KeyboardInterrupt):
    """Raised by the first signal that asks to stop; `signum` is its number."""

    signum = signal.SIGINT


def stop_on_signal(*messages):
    """A block in which the first signal raises StopRequested(*messages).

    Later signals print only that saving is still going on.
    """
    received = []

    def handle(signum, frame):
        received.append(signum)
        if len(received) > 1:  # no print: the signal may have interrupted one
            with suppress(OSError):  # the reader may have been stopped by the same Ctrl-C
                os.write(2, b"refmaml: still saving\n")
            return
        stop = StopRequested(*messages)
        stop.signum = signum
        raise stop

    return signal_handler(handle)
