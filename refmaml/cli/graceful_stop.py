"""Being asked to stop: Ctrl-C, SIGTERM and a terminal that closes end a command at a point where nothing is lost."""

import os
import signal
from contextlib import suppress

from refmaml.interrupts import signal_handler


class Stopped(KeyboardInterrupt):
    """The first signal that asked to stop; `signum` says which."""

    signum = signal.SIGINT


def stopping(*said):
    """A block in which the first signal that asks to stop raises Stopped(*said), and later ones only say that what it started, saving, is
    not over yet."""
    asked = []

    def hear(signum, frame):
        asked.append(signum)
        if len(asked) > 1:  # a handler must not print: it may have interrupted a print
            with suppress(OSError):  # whoever reads may have been stopped by the same Ctrl-C
                os.write(2, b"refmaml: still saving\n")
            return
        stop = Stopped(*said)
        stop.signum = signum
        raise stop

    return signal_handler(hear)
