"""What a function calls, read off the names in its bytecode."""

from types import CodeType, ModuleType

from numba.core.dispatcher import Dispatcher


def externals_called(function):
    """The external functions that a Python function calls, also through functions that
    Numba compiles into it; a list without repetitions."""
    called = [v for v in reached(function) if hasattr(v, "external")]
    return list(dict.fromkeys(v.external for v in called if not isinstance(v, ModuleType)))


def bytecode_size(function):
    """The bytes of bytecode of a function and of all that is compiled into it."""
    inner = [v.py_func for v in reached(function) if isinstance(v, Dispatcher)]
    return sum(len(code.co_code) for f in {function, *inner} for code in codes(f.__code__))


def reached(function):
    """All values that the names in a function and in its inner functions stand for."""
    found, functions, seen = [], [function], {function}
    while functions:
        for value in values_of_names(functions.pop()):
            found.append(value)
            inner = value.py_func if isinstance(value, Dispatcher) else None
            if inner is not None and inner not in seen:
                seen.add(inner)
                functions.append(inner)
    return found


def values_of_names(function):
    """The globals and closure variables of a function, and attributes of modules.

    Any attribute that the function names is looked up in any module that it names: more
    than it uses, never less.
    """
    names = {name for code in codes(function.__code__) for name in code.co_names}
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    values += [cell.cell_contents for cell in function.__closure__ or ()]
    for module in [value for value in values if isinstance(value, ModuleType)]:
        if module.__name__.startswith("refmaml."):
            values += [getattr(module, name) for name in names if hasattr(module, name)]
    return values


def codes(code):
    """A code object and those of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)
