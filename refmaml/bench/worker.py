"""A contestant in a process of its own, which does what it is asked over a pipe.

Each has a process, so that the threads of one library do not wait in a spin beside those of another, and so that its memory is its own.
Memory is the largest resident memory so far over what the process held when its libraries were loaded and had been used once on a number:
data, compiling and temporary arrays count, the interpreter and the libraries do not. It is None where the system has no /proc.
Who computes on a GPU tells what its library held there.
"""

import gc
import multiprocessing
import os
from contextlib import contextmanager, nullcontext, suppress
from hashlib import sha256
from importlib import import_module
from time import perf_counter

import numpy as np

from refmaml.bench.contestants import find
from refmaml.bench.memory import resident
from refmaml.bench.timing import turn
from refmaml.errors import RefmamlError


class WorkerError(RefmamlError, RuntimeError):
    """A contestant failed; the text is what it said."""


class Seat:
    """What a worker can be asked."""

    def __init__(self, name, kernels):
        self.contestant = find(name, kernels)
        for module in self.contestant.modules:
            import_module(module)
        self.contestant.first_use()
        gc.collect()
        self.start, self.run = resident("VmRSS"), None

    def ready(self):
        """Once the libraries are loaded."""

    def gradient(self, workload, dtype, settings):
        """The gradient itself, with these settings."""
        with precision(self.contestant, dtype):
            return self.contestant.fetch(self.contestant.prepare(workload, dtype, **settings)())

    def prepare(self, workload, settings):
        """Prepare in float32, and compute once, in which some compile; returns the gradient and the seconds it took."""
        self.run = self.contestant.prepare(workload, np.float32, **settings)
        started = perf_counter()
        gradient = self.contestant.fetch(self.run())
        return gradient, perf_counter() - started

    def turn(self, seconds):
        """Compute again and again for so long, at least once: the seconds of each, until it was there."""
        finish = self.contestant.finish
        return turn(self.run if finish is None else lambda: finish(self.run()), seconds)

    def digests(self, runs):
        """The different gradients of so many runs, as sha256."""
        return {
            sha256(self.contestant.fetch(self.run()).tobytes()).hexdigest() for _ in range(runs)
        }

    def peak(self):
        """Bytes at most so far over the start, or on the GPU."""
        if self.contestant.peak is not None:
            return self.contestant.peak(self.run)
        return None if self.start is None else resident("VmHWM") - self.start


def precision(contestant, dtype):
    """JAX computes in float64 only where it is told to."""
    if "jax" in contestant.modules and dtype == np.float64:
        from refmaml.autodiff.jax_autodiff import float64

        return float64("cpu" if contestant.finish is None else "gpu")
    return nullcontext()


def serve(pipe, make_seat, arguments):
    """Answer (method, arguments) by (True, result) or (False, what went wrong) until there is no more."""
    seat, seated_with = None, arguments
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            seat = seat or make_seat(*seated_with)
            answer = True, getattr(seat, method)(*arguments)
        except Exception as error:  # whatever a library raises is an answer
            answer = False, f"{type(error).__name__}: {error}".partition("\n")[0]
        pipe.send(answer)


class Worker:
    """The other end: `worker.ask("turn", 0.1)`. Use as a context, which ends the process.

    environment  variables it starts with, besides those of this process
    limit        seconds an answer may take, after which its process is ended; None: as long as it likes
    seat         what is made in the process, of (name, kernels), and asked
    """

    def __init__(self, name, kernels="cpu", environment=(), limit=None, seat=Seat):
        context = multiprocessing.get_context("spawn")
        self.name, self.limit = name, limit
        self.pipe, other = context.Pipe()
        self.process = context.Process(
            target=serve, args=(other, seat, (name, kernels)), daemon=True
        )
        with variables(dict(environment)):
            self.process.start()
        other.close()

    def ask(self, method, *arguments):
        """What the seat's method returns. Raises WorkerError where it failed, took too long or the process died."""
        self.send(method, *arguments)
        return self.receive()

    def send(self, method, *arguments):
        """Ask and do not wait: several may compute at once. A process that has died is noticed when its answer is asked for."""
        with suppress(OSError):
            self.pipe.send((method, arguments))

    def receive(self, limit=None):
        """The answer to what was asked by `send`. limit: what is left of the worker's own, in seconds."""
        try:
            if not self.pipe.poll(self.limit if limit is None else limit):
                self.process.kill()
                raise WorkerError(
                    f"{self.name}: expected an answer within {self.limit:g} s, got none"
                )
            ok, answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            raise WorkerError(
                f"{self.name}: expected an answer, got the end of its process "
                f"(exit status {self.process.exitcode})"
            ) from None
        if not ok:
            raise WorkerError(f"{self.name}: {answer}")
        return answer

    def __enter__(self):
        return self

    def leave(self):
        """Let the process end, and do not wait for it: libraries take seconds to give a GPU back."""
        self.pipe.close()

    def __exit__(self, *exception):
        self.leave()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def variables(given):
    """Environment variables for as long as it lasts: a new process inherits them."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
