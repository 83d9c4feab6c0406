"""Layers as text, which `refmaml check` takes."""

import ast

from refmaml import layers
from refmaml.errors import ArgumentError, expect

LONGEST = 300  # characters of a layer's text; bounds the parser's work


def layer_from_text(text):
    """ "Conv2d(2, 3, (3, 2), stride=2)" -> the layer; "Conv2d" -> the class.

    The text is parsed, not evaluated. Raises ArgumentError in one line.
    """
    wanted = "a layer, such as Conv2d or BatchNorm2d(3)"
    expect(len(text) <= LONGEST, "--like", wanted, f"{len(text)} characters")
    try:
        node = ast.parse(text.strip(), mode="eval").body
        called = isinstance(node, ast.Call)
        name = node.func.id if called else node.id
        arguments = [ast.literal_eval(a) for a in node.args] if called else []
        keywords = {k.arg: ast.literal_eval(k.value) for k in node.keywords} if called else {}
    except (SyntaxError, ValueError, AttributeError, MemoryError, RecursionError):
        raise ArgumentError(f"--like: expected {wanted}, got {text!r}") from None
    known = name in layers.__all__
    expect(known, "--like", f"one of {', '.join(layers.__all__)}", lambda: repr(name))
    cls = getattr(layers, name)
    if not called:
        return cls
    try:
        return cls(*arguments, **keywords)
    except TypeError as error:
        raise ArgumentError(f"--like: expected {wanted}, got {error}") from None
