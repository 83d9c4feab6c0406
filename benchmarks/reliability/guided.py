"""Fuzzing by atheris, guided by coverage, in a forked process."""

import os
import sys
import types
from importlib.util import find_spec

from refmaml.storage import npz, zips

LIBRARY_MODULES = ("zipfile", "numpy.lib._format_impl", "tokenize")


def guided(make, load, tried, seconds, folder):
    """{"status": exit status}, or None if atheris is not installed.

    make   () -> (name, function that writes a good file) pairs
    load   the loader
    tried  (load, path, size) -> (whether it was loaded, None or the escape)
    """
    if find_spec("atheris") is None:
        return None
    path, child = write_corpus(make, folder), os.fork()
    if child:
        return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}
    import atheris

    def test_one(data):
        path.write_bytes(data)
        escape = tried(load, path, len(data))[1]
        if escape:
            raise RuntimeError(escape)

    instrument(load)
    options = [f"-max_total_time={max(1, round(seconds))}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], str(folder / "corpus"), *options], test_one)
    atheris.Fuzz()
    os._exit(0)


def write_corpus(make, folder):
    """Write the good files into folder/corpus; returns the path for damaged files."""
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, (name, write) in enumerate(make()):
        write(folder / name)
        (corpus / str(number)).write_bytes((folder / name).read_bytes())
    return folder / name


def instrument(load):
    """Measure the coverage of the modules that read files."""
    import atheris

    names = (*LIBRARY_MODULES, npz.__name__, zips.__name__, load.__module__)
    for module in filter(None, map(sys.modules.get, names)):
        for name, value in list(vars(module).items()):
            own = isinstance(value, types.FunctionType) and value.__module__ == module.__name__
            if own and value is not load:
                setattr(module, name, atheris.instrument_func(value))
