"""Signals that ask a program to stop: SIGINT (Ctrl-C), SIGTERM and SIGHUP.

Batch systems send SIGTERM, and mpiexec passes it on; a terminal that closes sends
SIGHUP.
"""

import signal
import threading
from contextlib import contextmanager

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def signal_handler(handler):
    """A block in which SIGNALS call handler(signum, frame); then the old handlers
    return.

    A signal that is ignored stays ignored (nohup). Only the main thread can handle
    signals; in any other thread the block changes nothing.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: h for s in SIGNALS if (h := signal.getsignal(s)) not in (signal.SIG_IGN, None)}
    for s in before:
        signal.signal(s, handler)
    try:
        yield
    finally:
        for s, h in before.items():
            signal.signal(s, h)
