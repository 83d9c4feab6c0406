"""The layout: one order of imports, pure mathematics, a core that needs only NumPy."""

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
import traceback
from pathlib import Path

import numpy as np
import pytest

import refmaml as rm

ROOT = Path(__file__).parent.parent

# Lowest first. A module may import from its own layer and from those before it.
ORDER = (
    ("kernels",),
    ("errors", "version", "environment", "log", "progress", "interrupts", "nonfinite", "documents"),
    ("arguments", "batch", "ragged", "arrays", "storage"),
    ("layers", "update_rules"),
    ("parameters", "model", "primal"),
    ("network", "quadratic", "scalar", "operators"),
    ("methods",),
    ("rl",),
    ("autodiff",),
    ("execution",),
    ("models", "evaluation_mode", "torch_modules"),
    ("tasks",),
    ("training",),
    ("oracles",),
    ("doctor", "golden", "bench"),
    ("checks",),
    ("pytest_plugin", "cli", "__main__", "__init__"),
)
LAYER = {name: i for i, names in enumerate(ORDER) for name in names}
SIDE_BY_SIDE = {"doctor", "golden", "bench"}  # none of these imports another


def sources(*folders):
    for folder in folders:
        path = ROOT / folder
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def area(module):
    """The part of the package that a module "refmaml.x.y" belongs to."""
    return (module.split(".") + ["__init__"])[1]


def imported_modules(path):
    """The modules of this package that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "refmaml")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "refmaml":
            if node.module == "refmaml":
                yield from (f"refmaml.{a.name}" for a in node.names)
            else:
                yield node.module


def backward_imports(files):
    """(file, module) of each import that goes against ORDER."""
    for path in files:
        parts = path.relative_to(ROOT).with_suffix("").parts
        own = "kernels" if parts[0] == "kernels" else parts[1]
        for module in imported_modules(path):
            other = area(module)
            beside = other != own and {own, other} <= SIDE_BY_SIDE
            if LAYER.get(other, LAYER["__init__"]) > LAYER[own] or beside:
                yield str(path.relative_to(ROOT)), module


def package_files():
    return [p for p in sources("refmaml", "kernels") if "refmaml/kernels" not in p.as_posix()]


def test_imports_run_one_way():
    assert list(backward_imports(package_files())) == []


@pytest.mark.parametrize(
    "place,line",
    [
        ("kernels/bias/reference.py", "from refmaml.errors import expect"),
        ("refmaml/layers/reshape.py", "from refmaml.network import Network"),
        ("refmaml/methods/maml.py", "from refmaml.execution import Sequential"),
        ("refmaml/methods/maml.py", "from refmaml.rl import GaussianPolicy"),
        ("refmaml/rl/kl.py", "from refmaml.execution import Sequential"),
        ("refmaml/bench/timing.py", "def f():\n    from refmaml.cli import main"),
        ("refmaml/golden/files.py", "from refmaml.doctor import check"),
    ],
)
def test_an_import_against_the_order_is_found(tmp_path, monkeypatch, place, line):
    (path := tmp_path / place).parent.mkdir(parents=True)
    path.write_text(line)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert len(list(backward_imports([path]))) == 1


# ---- the mathematics: no word about devices, graphs or waiting -----------------------

MATHEMATICS = (
    "refmaml/layers",
    "refmaml/methods",
    "refmaml/update_rules",
    "refmaml/rl",
    "refmaml/network.py",
)
MACHINERY = re.compile(
    r"device|gpu|cuda|cupy|stream(?!s of random)|graph|launch|\bwait|replay|captur|\bfus(ed|ion)",
    re.I,
)
PLAIN_WORDS = re.compile(r"paragraph|random streams", re.I)


def words_of_machinery(files):
    """(file:line, text) of each line that speaks of where or how work runs."""
    for path in files:
        for i, line in enumerate(path.read_text().splitlines(), 1):
            if MACHINERY.search(PLAIN_WORDS.sub("", line)):
                yield f"{path.relative_to(ROOT)}:{i}", line.strip()


def test_the_mathematics_knows_no_machinery():
    files = [p for p in sources(*MATHEMATICS) if p.exists() and p.name != "table.py"]
    assert list(words_of_machinery(files)) == []


def test_a_word_of_machinery_is_found(tmp_path, monkeypatch):
    (path := tmp_path / "maml.py").write_text("x = 1  # on the GPU\ny = net.on_device\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert len(list(words_of_machinery([path]))) == 2


@pytest.mark.parametrize("method", [rm.MAML(0.1), rm.FirstOrderMAML(0.1), rm.IMAML(2.0)])
def test_few_frames_lie_between_the_call_and_the_mathematics(method, monkeypatch):
    net = rm.mlp((2, 3, 1))
    theta, x, y = net.init(0), np.ones((2, 3, 2)), np.zeros((2, 3, 1))
    frames, original = [], type(method).task_gradients

    def task_gradients(self, *arguments):
        names = [frame.name for frame in traceback.extract_stack()]
        frames.append(names[names.index("meta_gradient") + 1 : -1])
        return original(self, *arguments)

    monkeypatch.setattr(type(method), "task_gradients", task_gradients)
    method.meta_gradient(net, theta, rm.Batch(x, y, x, y))
    assert len(frames[0]) <= 3, frames[0]


# ---- the minimal engine: NumPy alone runs it -----------------------------------------

MOST_LINES = 2200


def minimal_engine():
    """The files that docs/reading.md walks through, in its order."""
    text = (ROOT / "docs" / "reading.md").read_text().split("<!-- minimal engine -->")[1]
    return re.findall(r"^- `(\S+\.py)`$", text.split("\n\n")[0], flags=re.M)


def lines_of_code(text):
    """The numbers of lines that are no blank line, comment or docstring."""
    silent = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER,
    }  # fmt: skip
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def test_lines_of_code_are_neither_comments_nor_docstrings():
    text = (
        '"""A\nB"""\n\nx = (  # why\n    1\n)\n\n\ndef f():\n    """F."""\n    return """a\nb"""\n'
    )
    assert lines_of_code(text) == {4, 5, 6, 9, 11, 12}


def test_the_minimal_engine_is_short_and_imports_numpy_and_itself_only():
    files = minimal_engine()
    assert len(files) == len(set(files)) > 30
    assert sum(len(lines_of_code((ROOT / f).read_text())) for f in files) <= MOST_LINES
    modules = {f.removesuffix(".py").replace("/", ".").removeprefix("refmaml.") for f in files}
    packages = {m.rpartition(".")[0] for m in modules}
    for f in files:
        for node in ast.walk(ast.parse((ROOT / f).read_text())):
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{a.name}" for a in node.names]
            else:
                continue
            for name in names:
                top, _, rest = name.partition(".")
                own = rest in modules | packages or rest.rpartition(".")[0] in modules
                known = top == "numpy" or top in sys.stdlib_module_names
                assert known or (top == "refmaml" and own), f"{f} imports {name}"


PROGRAM = """
import numpy as np
from refmaml.batch import Batch
from refmaml.layers.activation import ReLU
from refmaml.layers.batch_norm import BatchNorm2d
from refmaml.layers.bilinear import Conv2d, Linear
from refmaml.layers.losses import CrossEntropy
from refmaml.layers.pooling import MaxPool2d
from refmaml.layers.reshape import Flatten
from refmaml.methods.first_order_maml import FirstOrderMAML
from refmaml.methods.imaml import IMAML
from refmaml.methods.maml import MAML
from refmaml.methods.reptile import Reptile
from refmaml.network import Network

layers = [Conv2d(1, 4, 3, padding=1), BatchNorm2d(4), ReLU(), MaxPool2d(2)]
layers += [Flatten(), Linear(36, 3)]
net = Network(layers, CrossEntropy(), (1, 6, 6))
rng = np.random.default_rng(0)
x, y = rng.standard_normal((2, 3, 6, 1, 6, 6)), rng.integers(0, 3, (2, 3, 6))
batch, theta = Batch(x[0], y[0], x[1], y[1]), net.init(0, float)
for method in (MAML(0.1, 2), FirstOrderMAML(0.1, 2), Reptile(0.1), IMAML(2.0)):
    print(repr(float(np.linalg.norm(method.meta_gradient(net, theta, batch).grad))))
"""


def test_the_minimal_engine_runs_by_itself(tmp_path):
    for f in minimal_engine():
        f = f"refmaml/{f}" if f.startswith("kernels/") else f
        (copy := tmp_path / f).parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((ROOT / f).read_text())
        for folder in copy.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = [
        sys.executable,
        "-c",
        "import sys\nfor m in ('scipy', 'numba', 'matplotlib', 'tqdm'): sys.modules[m] = None\n"
        + PROGRAM,
    ]
    alone = subprocess.run(run, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    whole = subprocess.run(
        run,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert alone.stdout == whole.stdout and len(alone.stdout.split()) == 4
