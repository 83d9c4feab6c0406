"""An update rule from its text, such as "Clip(SGD(momentum=0.9), norm=1.0)".

The text is the name of a class of refmaml.update_rules, in any case, alone or called
with numbers, True, False, None, tuples of these, or rules. It is parsed, not evaluated.
"""

import ast
import warnings
from dataclasses import fields
from typing import Any

from refmaml import update_rules
from refmaml.errors import ArgumentError, expect
from refmaml.update_rules.rule import UpdateRule

RULES = {name.lower(): getattr(update_rules, name) for name in update_rules.__all__}
NAMES = ", ".join(update_rules.__all__)
LONGEST = 300  # characters; bounds the parser's work and depth
LARGEST = 1e300
SHOWN = 80  # characters of a longer text, in its message
EXPECTED = "an update rule, such as adam or SGD(momentum=0.9)"


def rule_from_text(text: Any, argument: str = "rule") -> UpdateRule:
    """The rule that a text names. Raises ArgumentError in one line.

    argument  the name of the text, for messages
    """
    known = isinstance(text, str) and len(text) <= LONGEST
    expect(known, argument, EXPECTED, lambda: repr(text)[:SHOWN])
    rule = rule_of(parsed(text, argument), argument)
    expect(isinstance(rule, UpdateRule), argument, EXPECTED, repr(text))
    return rule


def parsed(text: str, argument: str) -> ast.expr:
    """The syntax tree of the text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about texts such as "1if"
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ArgumentError(f"{argument}: expected {EXPECTED}, got {text!r}") from None


def rule_of(node: ast.expr, argument: str) -> UpdateRule:
    """The rule of a name or a call."""
    function: Any = node.func if isinstance(node, ast.Call) else node
    named = isinstance(function, ast.Name)
    expect(named, argument, EXPECTED, lambda: repr(ast.unparse(node)))
    cls = RULES.get(function.id.lower())
    wanted = f"a rule, one of {NAMES}"
    expect(cls is not None, argument, wanted, lambda: repr(ast.unparse(function)))
    return called(cls, node, argument) if isinstance(node, ast.Call) else made(cls, {}, argument)


def called(cls: Any, node: ast.Call, argument: str) -> UpdateRule:
    """The rule of a call."""
    names = [f.name for f in fields(cls)]
    known = len(node.args) <= len(names)
    wanted = f"at most {len(names)} arguments in {cls.__name__}"
    expect(known, argument, wanted, str(len(node.args)))
    given = dict(zip(names, node.args, strict=False))
    for keyword in node.keywords:
        new = keyword.arg in names and keyword.arg not in given
        wanted = f"arguments of {cls.__name__} ({', '.join(names) or 'it has none'}), each once"
        expect(new, argument, wanted, repr(ast.unparse(keyword)))
        given[str(keyword.arg)] = keyword.value
    values = {name: value_of(value, argument) for name, value in given.items()}
    return made(cls, values, argument)


def made(cls: Any, values: dict, argument: str) -> UpdateRule:
    """cls(**values), whose own checks name the argument too."""
    try:
        return cls(**values)
    except ArgumentError as error:
        raise ArgumentError(f"{argument}: {cls.__name__}'s {error}") from None


def value_of(node: Any, argument: str) -> Any:
    """A number, True, False, None, a tuple of these, or a rule."""
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(value_of(element, argument) for element in node.elts)
    if isinstance(node, ast.Name | ast.Call):
        return rule_of(node, argument)
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if negative else node
    value: Any = inner.value if isinstance(inner, ast.Constant) else ...
    number = type(value) in (int, float)
    known = number or (not negative and (value is None or type(value) is bool))
    wanted = "numbers, True, False, None, tuples or rules as arguments"
    expect(known, argument, wanted, lambda: repr(ast.unparse(node)))
    if number:
        expect(abs(value) <= LARGEST, argument, f"numbers up to {LARGEST}", ast.unparse(node))
        value = value if abs(value) < 2**53 else float(value)  # no array holds a long integer
    return -value if negative else value
