"""Being asked to stop: Ctrl-C, SIGTERM and a terminal that closes end a command at a point where nothing is lost."""
import os
import signal
import threading
from contextlib import contextmanager, suppress

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """The first signal that asked to stop; `signum` says which."""
    signum = signal.SIGINT


@contextmanager
def stopping(*said):
    """Within, the first of SIGNALS raises Stopped(*said), and later ones only say that what it started, saving, is not over yet.

    A signal that is ignored stays ignored (nohup). Elsewhere than in the main thread, which alone hears signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = []

    def hear(signum, frame):
        asked.append(signum)
        if len(asked) > 1:                                # a handler must not print: it may have interrupted a print
            with suppress(OSError):                       # whoever reads may have been stopped by the same Ctrl-C
                os.write(2, b"refmaml: still saving\n")
            return
        stop = Stopped(*said)
        stop.signum = signum
        raise stop
    before = {s: signal.getsignal(s) for s in SIGNALS}
    heard = [s for s, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for s in heard:
        signal.signal(s, hear)
    try:
        yield
    finally:
        for s in heard:
            signal.signal(s, before[s])
