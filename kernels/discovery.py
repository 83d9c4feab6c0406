"""Operations are found by their folders.

A folder of `refmaml.kernels` that holds a reference.py is an operation. Its files
cpu.py, cuda.py and numba_cuda.py are other implementations of the same kernels; an
operation may lack any of them. Every implementation lists its kernels in `__all__`,
under the names and with the signatures of reference.py.

A fusion is an operation that computes several others at once. Its __init__.py names
them, as in `FUSES = ("batch_norm", "activation", "pooling")`. Only kernel sets that
gain by a fusion contain it.
"""

from importlib import import_module
from pathlib import Path

PACKAGE = __name__.rpartition(".")[0]


def folders():
    """{operation: its folder}, fusions included, in alphabetical order."""
    roots = import_module(PACKAGE).__path__
    found = {
        file.parent.name: file.parent for r in roots for file in Path(r).glob("*/reference.py")
    }
    return dict(sorted(found.items()))


def is_fusion(operation):
    """Whether an operation computes several others at once."""
    return hasattr(import_module(f"{PACKAGE}.{operation}"), "FUSES")


def operations():
    """The names of all operations but the fusions."""
    return tuple(name for name in folders() if not is_fusion(name))


def fusions():
    """The names of the operations that compute several others at once."""
    return tuple(name for name in folders() if is_fusion(name))


def kernels_of(operation, implementation):
    """{kernel: function} of one operation; None where it has no such implementation."""
    if not (folders()[operation] / f"{implementation}.py").is_file():
        return None
    module = import_module(f"{PACKAGE}.{operation}.{implementation}")
    return {name: getattr(module, name) for name in module.__all__}


def collect(implementation, names=None):
    """({kernel: function}, missing) of operations; None: of all but the fusions.

    missing  {operation: the names of its kernels} of those without the implementation
    """
    functions, missing = {}, {}
    for operation in operations() if names is None else names:
        found = kernels_of(operation, implementation)
        if found is None:
            missing[operation] = tuple(kernels_of(operation, "reference"))
        else:
            functions |= found
    return functions, missing
