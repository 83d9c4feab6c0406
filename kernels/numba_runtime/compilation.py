"""Compiling one function with Numba, its machine code kept on disk.

The cache on disk saves time and is never needed: where it is read-only, full, damaged
or made for another processor, the function is compiled again and the program goes on.
Numba itself would raise an exception in the first three cases.
"""

import hashlib
import pickle
import zlib
from functools import cache
from pathlib import Path

from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.serialize import dumps

from refmaml.kernels.numba_runtime.progress import Progress

# In an installation the cache is in the user's cache folder, not in the package's: an
# uninstaller leaves files that it does not know, and Python imports what is left of a
# package as an empty one. In a checkout the cache stays inside the checkout.
IN_CHECKOUT = (Path(__file__).parents[3] / "setup.py").exists()

# Modules of an operation's folder that the CPU kernels never call.
NOT_COMPILED = ("__init__.py", "reference.py", "cuda.py", "numba_cuda.py")


def compile_function(function, signature, name, number=1, total=1, parallel=False):
    """`function` compiled for one signature, or loaded from the cache on disk.

    name, number, total  what the progress report says: function `number` of `total`
    """
    name = f"{function.__module__.removeprefix('refmaml.kernels.')}.{name}"
    run = njit(parallel=parallel, error_model="numpy", nogil=True)(function)
    with Progress(name, number, total) as progress:
        run._cache = SafeCache(function, progress)
        run.compile(signature)
    run.disable_compile()
    return run


class SafeCache(NullCache):
    """Numba's cache of one function, where no fault of the disk raises an exception.

    progress is started when the function is not in the cache, that is, before it is
    compiled.
    """

    def __init__(self, function, progress):
        self.progress = progress
        try:
            self.disk = ChecksummedCache(function)
        except (RuntimeError, OSError):  # Numba found no folder that it may write to
            self.disk = NullCache()

    @property
    def cache_path(self):
        return self.disk.cache_path

    def load_overload(self, signature, target_context):
        """The compiled function, or None. A cache that cannot be read is emptied."""
        try:
            found = self.disk.load_overload(signature, target_context)
        except Exception:  # unpickling damaged bytes raises exceptions of any type
            found = None
            self.empty()
        if found is None:
            self.progress.start()
        return found

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
