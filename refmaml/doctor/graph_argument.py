"""What a function's source gives as create_graph: True, something else, or nothing.

`create_graph=second_order` is followed to the calls that pass `second_order`, to its
default, and to `second_order = False` at the top of the source, as source_advice.py
writes what a function closes over. So an override on purpose is told from an argument
that is forgotten.
"""

import ast
import re

NAME = "create_graph"
GIVEN = re.compile(rf"\b{NAME}\s*=\s*((?:[^,()\n]|\([^()\n]*\))+)")


def graph_given(source):
    """ "True" where a derivative in the source has create_graph=True; else the first
    expression that is given in its place; "" where none is given."""
    try:
        values = values_in(ast.parse(source))
    except SyntaxError:  # a lambda out of the middle of a statement
        values = [value.strip() for value in GIVEN.findall(source)]
    return "True" if "True" in values else next(iter(values), "")


def values_in(tree):
    """[text] of what the calls of a tree give as create_graph."""
    functions = [f for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda))]
    own = {getattr(f, "name", "") for f in functions}
    found = []
    for call in calls_of(tree):
        if name_of(call.func) in own or is_partial(call):
            continue
        for keyword in call.keywords:
            if keyword.arg == NAME:
                found += followed(keyword.value, call, functions, tree)
    return found


def followed(value, call, functions, tree):
    """[text] of a value; where it is an argument of the function around the call, of
    what is passed for it."""
    text = written(value, tree)
    around = [f for f in functions if text in argument_names(f) and call in ast.walk(f)]
    if not isinstance(value, ast.Name) or not around:
        return [text]
    function = around[-1]
    passed = [passed_in(c, function, text) for c in calls_to(function, tree)]
    default = default_of(function, text)
    if not passed or None in passed:
        passed = [*passed, default]
    return [written(p, tree) for p in passed if p is not None] or [text]


def written(value, tree):
    """An expression as text; True or False where the top of the source says so."""
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not):
        inner = written(value.operand, tree)
        return {"True": "False", "False": "True"}.get(inner, ast.unparse(value))
    constants = {
        name_of(node.targets[0]): node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    known = isinstance(value, ast.Name) and value.id in constants
    return str(constants[value.id]) if known else ast.unparse(value)


def calls_of(tree):
    """Every call in a tree."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def calls_to(function, tree):
    """The calls of a function by its name, and functools.partial of it."""
    name = getattr(function, "name", None)
    return [
        call
        for call in calls_of(tree)
        if name and (name_of(call.func) == name or (is_partial(call) and of_partial(call) == name))
    ]


def name_of(node):
    """The last name of a, b.a or c.b.a; "" of others."""
    return getattr(node, "id", getattr(node, "attr", ""))


def is_partial(call):
    """Whether a call is functools.partial(...)."""
    return name_of(call.func) == "partial"


def of_partial(call):
    """The name of the function in functools.partial(function, ...)."""
    return name_of(call.args[0]) if call.args else ""


def passed_in(call, function, argument):
    """What a call passes for an argument, or None."""
    for keyword in call.keywords:
        if keyword.arg == argument:
            return keyword.value
    positional = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    given = call.args[is_partial(call) :]
    place = positional.index(argument) if argument in positional else len(given)
    return given[place] if place < len(given) else None


def argument_names(function):
    """The names of a function's arguments."""
    a = function.args
    return [argument.arg for argument in (*a.posonlyargs, *a.args, *a.kwonlyargs)]


def default_of(function, argument):
    """The default of an argument, or None."""
    a = function.args
    positional = [p.arg for p in (*a.posonlyargs, *a.args)]
    defaults = dict(zip(positional[len(positional) - len(a.defaults) :], a.defaults, strict=True))
    defaults |= zip((k.arg for k in a.kwonlyargs), a.kw_defaults, strict=True)
    return defaults.get(argument)
