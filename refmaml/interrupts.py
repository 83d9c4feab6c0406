"""Hearing what asks a program to stop: Ctrl-C, SIGTERM (a batch system's; mpiexec passes it on), and a terminal that closes."""

import signal
import threading
from contextlib import contextmanager

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def signal_handler(handler):
    """A block in which SIGNALS go to handler(signum, frame), and afterwards where they went before.

    A signal that is ignored stays ignored (nohup). Elsewhere than in the main thread, which alone hears signals, nothing changes.
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
