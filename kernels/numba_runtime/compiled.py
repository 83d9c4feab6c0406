"""What every `cpu.py` uses: Python functions compiled by Numba, once per precision."""

from functools import cache

from numba import get_num_threads

from refmaml.kernels.numba_runtime.call_graph import externals_called
from refmaml.kernels.numba_runtime.compilation import code_checksum, compile_function, renamed
from refmaml.kernels.numba_runtime.external_functions import PRECISIONS
from refmaml.kernels.numba_runtime.layouts import LAYOUTS, arrange, wrong_dtype
from refmaml.kernels.numba_runtime.preparation import prepare
from refmaml.kernels.numba_runtime.threads import limit, numba_threads_usable, with_numba_threads


class Compiled:
    """A kernel that Numba compiles at its first call: for float32 or float64, for one
    thread or several. The machine code is kept in Numba's cache on disk.

    arguments  the layouts of its arguments in order (layouts.py); "!" ends the name of
               those it fills, "+" of those it adds to
    grain      elements of the first filled array up to which one thread is faster
    The types are explicit: no memory order of a caller's array causes a compilation.
    """

    def __init__(self, function, arguments, grain=16384):
        self.function, self.grain, self.versions = function, grain, {}
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        names = arguments.split()
        self.layouts = [LAYOUTS[name.rstrip("!+")] for name in names]
        self.marks = [name[-1] if name[-1] in "!+" else "" for name in names]
        self.first_output = next(i for i, mark in enumerate(self.marks) if mark)

    def __call__(self, *args):
        out, arranged, copies = args[self.first_output], [], []
        precision, large = out.dtype, out.size > self.grain and numba_threads_usable()
        threads = limit.threads or (get_num_threads() if large else 1)
        run = self.version(precision, large and threads > 1)
        for a, layout, mark in zip(args, self.layouts, self.marks, strict=True):
            arranged.append(
                a if layout.reorder is None else arrange(a, precision, layout, mark, copies)
            )
        if large and threads > 1 and limit.threads:
            with_numba_threads(threads, run, arranged)
        else:
            run(*arranged)
        for a, copy in copies:
            a[...] = copy

    def version(self, precision, parallel):
        run = self.versions.get((precision, parallel))
        if run is None and not parallel and limit.threads != 1 and numba_threads_usable():
            # A small call may run the parallel version if that one is compiled already.
            run = self.versions.get((precision, True))
        return run or self.compile(precision, parallel)

    def compile(self, precision, parallel):
        """The function for one precision, its prange loops on several
        threads or one.
        """
        check_precision(precision)
        types = ", ".join(layout.type for layout in self.layouts).replace("F", precision.name)
        threads = "threads" if parallel else "thread"
        prepare(externals_called(self.function), precision.name)
        run = compile_function(
            renamed(self.function, f"{threads}_{code_checksum()}"),
            f"void({types})",
            self.__name__,
            parallel=parallel,
        )
        self.versions[precision, parallel] = run
        return run


def compiled(arguments, **options):
    """Decorator: see Compiled."""
    return lambda function: Compiled(function, arguments, **options)


@cache
def compiled_on_one_thread(function, types, precision):
    """A function compiled for a precision (F in its types), without prange loops.

    It runs on the calling thread and releases Python's global interpreter lock.
    """
    check_precision(precision)
    prepare(externals_called(function), precision.name)
    return compile_function(
        renamed(function, code_checksum()),
        f"void({', '.join(types).replace('F', precision.name)})",
        function.__name__,
    )


def check_precision(precision):
    if precision.name not in PRECISIONS:
        raise wrong_dtype(precision)
