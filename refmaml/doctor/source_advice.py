"""A fix line that fits the code at hand: it does not advise what the code already does.

A fix such as "torch.autograd.grad(..., create_graph=True), no .detach() or .data there"
has clauses. A clause that asks for something the code has, or forbids something it does
not have, is left out.
"""

import functools
import inspect
import re
import textwrap
from pathlib import Path

from refmaml.doctor.graph_argument import graph_given

GRAPH = "create_graph=True"
WANTED = (GRAPH, "track_higher_grads=True", "copy_initial_weights=False")
FORBIDDEN = (
    ".detach()",
    ".data",
    "no_grad",
    "deepcopy",
    "stop_gradient",
    "losses[-1]",
    ".item()",
    "clip_grad_norm_",
)
CLAUSES = re.compile(r"; and |; |, and (?=no )|, (?=no )")
ITEMS = re.compile(r", | or ")
PACKAGE = str(Path(__file__).parents[1])
DEPTH = 4  # how far calls are followed into other functions
ONLY = {"with higher": "higher", "torch.optim keeps": "optim"}  # clauses about one library
LOOK = (
    "the code at hand {}: look in what it calls, and for an operation whose backward cannot be "
    "differentiated (a custom Function, a fused kernel, a value that went through NumPy)"
)
OTHER_GRAPH = (
    "create_graph={} is given: the inner loop needs create_graph=True; where first-order is "
    "meant, check it as rm.FirstOrderMAML or rm.FirstOrderANIL"
)
FUNCTIONAL = re.compile(r"\b(?:torch\.func|functorch|func)\.")  # it needs no create_graph


def source_of(fn, depth=DEPTH):
    """The source of a function and of the functions of its own that it calls, or ""."""
    texts, todo, seen = [], [(fn, depth)], set()
    while todo:
        f, left = todo.pop()
        texts += partial_text(f)
        f = inspect.unwrap(getattr(f, "__func__", getattr(f, "func", f)))
        code = getattr(f, "__code__", None)
        if code is None or id(code) in seen or left < 0 or is_library(code.co_filename):
            continue
        seen.add(id(code))
        try:
            texts.append(textwrap.dedent(inspect.getsource(f)))
            texts += switches(f, code)
        except (OSError, TypeError):
            continue
        todo += [(other, left - 1) for other in called_by(f, code)]
    return "\n".join(without_comments(text) for text in texts)


def partial_text(f):
    """[the keywords of a functools.partial as source]."""
    if not isinstance(f, functools.partial) or not hasattr(f.func, "__name__"):
        return []
    given = ", ".join(f"{name}={value!r}" for name, value in f.keywords.items())
    return [f"partial({f.func.__name__}, {given})"] if given else []


def is_library(file):
    """Whether a file belongs to an installed package, and not to the user."""
    if file.startswith(PACKAGE):
        return True
    return any(part in file for part in ("site-packages", "dist-packages", "<frozen"))


def called_by(f, code):
    """Objects that a function's code may call: globals it names, and what it closes
    over."""
    return [other for other in named_by(f, code).values() if callable(other)]


def switches(f, code):
    """["name = False"]: the booleans that a function closes over, as source."""
    named = named_by(f, code)
    return [f"{name} = {value}" for name, value in named.items() if isinstance(value, bool)]


def named_by(f, code):
    """{name: object} of the globals that a function's code names, and of what it closes
    over."""
    found = {name: f.__globals__.get(name) for name in names_in(code)}
    for name, cell in zip(code.co_freevars, f.__closure__ or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # an empty cell
            continue
    return found


def names_in(code):
    """Global names in a code object and in the functions defined inside it."""
    inner = [c for c in code.co_consts if inspect.iscode(c)]
    return {*code.co_names, *(name for c in inner for name in names_in(c))}


def without_comments(text):
    """Source without comments and docstrings, in which words may stand for
    themselves.
    """
    text = re.sub(r'"""(?:.|\n)*?"""', "", text)
    return re.sub(r"(?m)#.*$", "", text)


def fitting_advice(text, source):
    """A fix line without the clauses that the source makes pointless; the whole line
    where the source is not known."""
    if not source or not text:
        return text
    present, kept, there, absent = re.sub(r"\s*=\s*", "=", source), [], [], []
    for clause in CLAUSES.split(text):
        if any(clause.startswith(start) and word not in source for start, word in ONLY.items()):
            continue
        wanted = [word for word in WANTED if word in clause]
        if GRAPH in wanted:
            line, has_it = advice_on_graph(clause, source)
            kept, there = kept + line, there + has_it
            continue
        if wanted and all(word in present for word in wanted):
            there += [f"has {word}" for word in wanted]
            continue
        shorter = without_absent(clause, source)
        kept += [shorter] if shorter else []
        absent += [] if shorter else [word for word in FORBIDDEN if word in clause]
    if kept:
        return "; ".join(kept)
    listed = f"{', '.join(absent[:-1])} or {absent[-1]}" if len(absent) > 1 else "".join(absent)
    return LOOK.format(there[0] if there else f"has no {listed}")


def advice_on_graph(clause, source):
    """([what to say of create_graph], [what the source has in its place])."""
    given = graph_given(source)
    if given == "True":
        return [], [f"has {GRAPH}"]
    if given:
        return [OTHER_GRAPH.format(given)], []
    if FUNCTIONAL.search(source) and "autograd" not in source:
        return [], ["differentiates with torch.func"]
    return [clause], []


def without_absent(clause, source):
    """A clause "no A, B or C there" with those of A, B, C that the source has; "" where
    it has none of them."""
    head = re.match(r"(?:and )?no ", clause)
    words = [word for word in FORBIDDEN if word in clause]
    if not head or not words:
        return clause
    end = max(clause.rfind(word) + len(word) for word in words)
    end += clause[end:].startswith("()") * 2
    items = ITEMS.split(clause[head.end() : end])
    named = [item for item in items if any(word in item and has(word, source) for word in words)]
    return f"no {' or '.join(named)}{clause[end:]}" if named else ""


def has(word, source):
    """Whether the source has a word, and not a longer one that begins with it."""
    return bool(re.search(re.escape(word) + r"(?!\w)", source))
