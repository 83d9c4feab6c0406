"""A clock for tests of durations.

Its seconds pass only in `sleep`, however busy the machine is.
"""


class Clock:
    """Called, the time; `sleep` lets it pass."""

    now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
