"""What `refmaml check` takes: functions and data in a file, and layers as text."""

import ast

from refmaml import layers
from refmaml.cli.doctor import imported
from refmaml.errors import ArgumentError, expect

LONGEST = 300  # characters of a layer's text; bounds the parser's work


class UserFile:
    """The names in a user's file, and in others as FILE.py:NAME."""

    def __init__(self, file):
        self.file, self.modules = file, {file: imported(file)}

    def find(self, text, option):
        """The object NAME, or FILE.py:NAME. Raises ArgumentError in one line."""
        file, colon, name = text.rpartition(":")
        file = file if colon else self.file
        expect(name.isidentifier(), option, "NAME or FILE.py:NAME", repr(text))
        if file not in self.modules:
            self.modules[file] = imported(file)
        missing = not hasattr(self.modules[file], name)
        expect(not missing, option, f"a name in {file}", f"{name!r}, which it does not have")
        return getattr(self.modules[file], name)

    def has(self, name):
        """Whether the user's own file has a name."""
        return hasattr(self.modules[self.file], name)

    def data(self, text, option):
        """A value; a function without arguments is called for it."""
        value = self.find(text, option)
        if not callable(value) or isinstance(value, type):
            return value
        try:
            return value()
        except Exception as error:
            line = (str(error).splitlines() or [""])[0]
            raise ArgumentError(
                f"{option}: expected data, or a function without arguments that returns it, "
                f"got {type(error).__name__}: {line}"
            ) from error


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
