"""Compiling one function with Numba, its machine code kept on disk.

The cache on disk saves time and is never needed: where it is read-only, full, damaged
or made for another processor, the function is compiled again and the program goes on.
Numba itself would raise an exception in the first three cases.
"""

import gc
import hashlib
import os
import pickle
import zlib
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FunctionType

from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.serialize import dumps

from refmaml.kernels.numba_runtime.compile_lock import CompileLock
from refmaml.kernels.numba_runtime.progress import Progress

# In an installation the cache is in the user's cache folder, not in the package's: an
# uninstaller leaves files that it does not know, and Python imports what is left of a
# package as an empty one. In a checkout the cache stays inside the checkout.
IN_CHECKOUT = (Path(__file__).parents[3] / "setup.py").exists()

# Modules of an operation's folder that the CPU kernels never call.
NOT_COMPILED = ("__init__.py", "reference.py", "cuda.py", "numba_cuda.py")


LOAD, TRY, WAIT = range(3)  # `effort`


def compile_function(
    function, signature, name, number=1, total=1, parallel=False, effort=WAIT, from_python=True,
    allocates=True,
):  # fmt: skip
    """`function` compiled for one signature, or loaded from the cache on disk.

    name, number, total  what the progress report says: function `number` of `total`
    effort               LOAD: None if the cache does not have it. TRY: None if another
                         process is compiling it. WAIT: until that process has finished
    from_python          whether Python may call it
    allocates            False: it makes no array, and references are not counted
    """
    name = f"{function.__module__.removeprefix('refmaml.kernels.')}.{name}"
    options = {"no_cfunc_wrapper": True, "no_cpython_wrapper": not from_python, "_nrt": allocates}
    run = njit(parallel=parallel, error_model="numpy", nogil=True, **options)(function)
    with Progress(name, number, total) as progress, without_garbage_collection():
        run._cache = cache = SafeCache(function, progress, effort)
        try:
            run.compile(signature)
        except NotCompiledError:
            return None
        finally:
            cache.lock.release()
    run.disable_compile()
    return run


def renamed(function, suffix):
    """A copy of the function under a longer name.

    Numba's cache looks up a function's name, its file and its argument types. Without
    the suffix it would confuse the versions for one thread and for several, and miss
    changes in the functions that this one calls.
    """
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        f"{function.__name__}_{suffix}",
        closure=function.__closure__,
    )
    copy.__qualname__, copy.__module__ = copy.__name__, function.__module__
    return copy


@contextmanager
def without_garbage_collection():
    """Turns Python's garbage collector off in a block.

    A compilation makes millions of objects, which reference counts free; the collector
    would visit them again and again.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class NotCompiledError(Exception):
    """The function is not in the cache, and this process is not to compile it."""


class SafeCache(NullCache):
    """Numba's cache of one function, where no fault of the disk raises an exception.

    progress is started when the function is not in the cache, that is, before it is
    compiled. effort: see compile_function.
    """

    def __init__(self, function, progress, effort=WAIT):
        self.progress, self.effort, path = progress, effort, None
        try:
            self.disk = ChecksummedCache(function)
            path = lock_path(self.disk.cache_path, function)
        except (RuntimeError, OSError):  # Numba found no folder that it may write to
            self.disk = NullCache()
        self.lock = CompileLock(path)

    @property
    def cache_path(self):
        return self.disk.cache_path

    def load_overload(self, signature, target_context):
        """The compiled function, or None where it is to be compiled now."""
        found = self.load(signature, target_context)
        if found is not None:
            return found
        if self.effort == LOAD:
            raise NotCompiledError
        if self.effort == WAIT:
            self.progress.start()
        if not self.lock.acquire(wait=self.effort == WAIT):
            raise NotCompiledError
        found = self.load(signature, target_context)  # another process may have had the lock
        if found is None and self.effort == TRY:
            self.progress.start()
        return found

    def load(self, signature, target_context):
        """The compiled function, or None. A cache that cannot be read is emptied."""
        try:
            return self.disk.load_overload(signature, target_context)
        except Exception:  # unpickling damaged bytes raises exceptions of any type
            self.empty()
            return None

    def save_overload(self, signature, compile_result):
        try:
            self.disk.save_overload(signature, compile_result)
        except Exception:  # no space, no permission, or a damaged index
            self.empty()

    def empty(self):
        """Replaces a damaged index by an empty one, so that the next run can save."""
        try:
            self.disk.flush()
        except OSError:
            self.disk = NullCache()


def lock_path(folder, function):
    """The lock of a function: all signatures and processors share it."""
    name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
    return os.path.join(folder, f"{name}-{function.__code__.co_firstlineno}.lock")


class ChecksummedMachineCode(CompileResultCacheImpl):
    """Numba's cache entry with a checksum: Numba would run damaged machine code."""

    _locator_classes = sorted(
        CompileResultCacheImpl._locator_classes,
        key=lambda locator: not IN_CHECKOUT and "InTree" in locator.__name__,
    )

    def reduce(self, compile_result):
        payload = dumps(super().reduce(compile_result))
        return hashlib.sha256(payload).digest(), payload

    def rebuild(self, target_context, entry):
        digest, payload = entry
        if hashlib.sha256(payload).digest() != digest:
            raise ValueError("a damaged entry in Numba's cache")
        return super().rebuild(target_context, pickle.loads(payload))


class ChecksummedCache(FunctionCache):
    _impl_class = ChecksummedMachineCode


@cache
def code_checksum():
    """A checksum of all modules whose functions end up in the compiled kernels.

    It is part of the names in the cache: Numba itself sees a change in the file of the
    compiled function, but not in the functions that it calls.
    """
    root = Path(__file__).parents[1]
    files = [
        file
        for file in sorted(root.glob("*/*.py"))
        if file.name not in NOT_COMPILED and file.parent.name != "cuda_runtime"
    ]
    return f"{zlib.crc32(b''.join(file.read_bytes() for file in files)):08x}"


def require_compiler():
    """Raises RuntimeError where the environment turns Numba's compiler off."""
    if config.DISABLE_JIT:
        raise RuntimeError(
            "the cpu kernels: expected Numba's compiler, got NUMBA_DISABLE_JIT=1; "
            "unset it, or take refmaml.kernels.reference()"
        )
