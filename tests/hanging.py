"""Programs that hang, for tests of time limits: the limit is over when a test says so.

A test that waited for a real limit would depend on how fast processes start beside
other work: a program may not have printed its line by then.
"""

import subprocess
from time import sleep


def limit_over_when(monkeypatch, condition):
    """Replace the clock of all time limits of subprocesses.

    condition  (process) -> whether its limit is over; asked until the process ends
    """
    wait = subprocess.Popen.wait

    def wait_until(self, timeout=None):
        if timeout is None:
            return wait(self)
        while self.poll() is None:
            if condition(self):
                raise subprocess.TimeoutExpired(self.args, timeout)
            sleep(0.01)
        return self.returncode

    monkeypatch.setattr(subprocess.Popen, "wait", wait_until)
