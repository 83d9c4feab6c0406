"""A clock for tests of durations: seconds pass only in `sleep`, whatever else the
machine does.
"""


class Clock:
    """Called, the time; `sleep` lets it pass."""

    now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
