"""An implementation in its own process, which answers calls over a pipe.

Separate processes keep the threads of one library from spinning beside those of
another, and their memory apart. Memory is the largest resident size so far, less what
the process held after its libraries were loaded and used once on a number: data,
compilation and temporary arrays count, the interpreter and the libraries do not. It is
None on a system without /proc. An implementation on a GPU reports what its library has
used there.
"""

import gc
import multiprocessing
import os
from contextlib import contextmanager, nullcontext, suppress
from hashlib import sha256
from importlib import import_module
from time import perf_counter

import numpy as np

from refmaml.bench.implementations import find
from refmaml.bench.memory import resident
from refmaml.bench.timing import turn
from refmaml.errors import RefmamlError


class WorkerError(RefmamlError, RuntimeError):
    """An implementation failed; the text is its error."""


class ImplementationService:
    """The methods that a Worker can call, in the worker's process."""

    def __init__(self, name, kernels):
        self.implementation = find(name, kernels)
        for module in self.implementation.modules:
            import_module(module)
        self.implementation.first_use()
        gc.collect()
        self.start, self.run = resident("VmRSS"), None

    def gradient(self, workload, dtype, settings):
        """The mean meta-gradient (P,) with these settings."""
        with precision(self.implementation, dtype):
            run = self.implementation.prepare(workload, dtype, **settings)
            return self.implementation.to_host(run())

    def prepare(self, workload, settings):
        """Prepare in float32 and compute once: (gradient, seconds of that first call).

        Some implementations compile in their first call.
        """
        self.run = self.implementation.prepare(workload, np.float32, **settings)
        started = perf_counter()
        gradient = self.implementation.to_host(self.run())
        return gradient, perf_counter() - started

    def turn(self, seconds):
        """Seconds of each computation, repeated for that long, at least once."""
        synchronize = self.implementation.synchronize
        run = self.run if synchronize is None else lambda: synchronize(self.run())
        return turn(run, seconds)

    def digests(self, runs):
        """The set of sha256 of the gradients of that many runs."""
        to_host = self.implementation.to_host
        return {sha256(to_host(self.run()).tobytes()).hexdigest() for _ in range(runs)}

    def peak(self):
        """The largest number of bytes used so far: beyond the start, or on the GPU."""
        if self.implementation.peak_memory is not None:
            return self.implementation.peak_memory(self.run)
        return None if self.start is None else resident("VmHWM") - self.start


def precision(implementation, dtype):
    """The context for computing in `dtype`: JAX needs one for float64."""
    if "jax" in implementation.modules and dtype == np.float64:
        from refmaml.autodiff.jax_autodiff import float64

        return float64("cpu" if implementation.synchronize is None else "gpu")
    return nullcontext()


def serve(pipe, make_service, arguments):
    """The worker's process: answer calls until the pipe is closed.

    A call is (method, arguments); the answer is (True, result) or (False, error text).
    The service is made by the first call, so that a failure to make it is an answer,
    too.
    """
    service, service_arguments = None, arguments
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            service = service or make_service(*service_arguments)
            answer = True, getattr(service, method)(*arguments)
        except Exception as error:  # any error of any library is an answer
            answer = False, f"{type(error).__name__}: {error}".partition("\n")[0]
        pipe.send(answer)


class Worker:
    """The caller's end: `worker.call("turn", 0.1)`. As a context, it ends its process.

    environment  variables that its process gets besides those of this process
    limit        seconds that an answer may take; then the process is killed. None: no
                 limit
    service      (name, kernels) -> the object, made in the process, whose methods are
                 called
    """

    def __init__(
        self, name, kernels="cpu", environment=(), limit=None, service=ImplementationService
    ):
        context = multiprocessing.get_context("spawn")
        self.name, self.limit = name, limit
        self.pipe, other = context.Pipe()
        self.process = context.Process(
            target=serve, args=(other, service, (name, kernels)), daemon=True
        )
        with environment_variables(dict(environment)):
            self.process.start()
        other.close()

    def call(self, method, *arguments):
        """The result of the service's method.

        Raises WorkerError if it failed, exceeded the limit, or its process died.
        """
        self.send(method, *arguments)
        return self.receive()

    def send(self, method, *arguments):
        """Start a call without waiting, so that several workers compute at once.

        If the process has died, `receive` raises the error.
        """
        with suppress(OSError):
            self.pipe.send((method, arguments))

    def receive(self, limit=None):
        """The result of the call that `send` started. limit: if not the worker's."""
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

    def close_pipe(self):
        """Let the process end, and do not wait: freeing a GPU takes seconds."""
        self.pipe.close()

    def __exit__(self, *exception):
        self.close_pipe()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def environment_variables(values):
    """Within, these variables are set in this process: a new process inherits them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
