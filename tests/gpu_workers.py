"""Stand-ins for worker processes on a GPU, for tests."""

from functools import lru_cache

from refmaml.bench import agreement


@lru_cache
def reference_gradient(workload):
    """The reference gradient, computed once for all tests."""
    return agreement.reference_gradient(workload)


class StandInWorker:
    """A worker with given answers: {method: answer, or an exception}."""

    limit = 20

    def __init__(self, **answers):
        self.answers, self.called = answers, []

    def send(self, method, *arguments):
        self.called.append(method)

    def receive(self, limit=None):
        answer = self.answers[self.called[-1]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self, method, *arguments):
        self.send(method, *arguments)
        return self.receive()

    def close_pipe(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass
