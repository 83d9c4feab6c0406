"""A clock for tests of what takes its time: seconds pass when told, so that no other
work on the machine shows.
"""


class Clock:
    """Called, the time; `sleep` lets it pass."""

    now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
