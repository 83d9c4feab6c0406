"""Can a file make a loader fail in any way but its own? Good files are damaged at random and loaded, for minutes.

    python benchmarks/reliability/fuzz.py [--seconds 600] [--loaders NAME ...] [--plant NAME] [--out benchmarks/reliability]

A loader may return, or raise DataError in one line. Anything else is an escape: another exception, a second passed, or 64 MB more memory
than the file has. Damage is done to bytes (flips, cuts, pieces moved), to members of the zip, which is packed again with
valid sums so that what lies behind them is reached, to the headers of arrays, and to manifests, which are sealed again. With atheris
installed, a quarter of the time goes to its own mutations, guided by coverage. --plant weakens a loader, to see that this is noticed.
Exit status 1 if anything escaped.
"""

import argparse
import hashlib
import io
import json
import os
import random
import sys
import tempfile
import time
import types
import warnings
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import numpy as np

from refmaml.bench.memory import reset_peak, resident
from refmaml.errors import DataError
from refmaml.golden import files as golden
from refmaml.storage import npz, zips
from refmaml.tasks import cache, drawings
from refmaml.training import Progress, Row, checkpoint

SCHEMA, SECOND, ROOM = "refmaml-fuzz-1", 1.0, 64 << 20
# What a header, a manifest or a name may hold that its reader has not thought of.
WORDS = [
    b"(",
    b"[" * 300,
    b"'" * 3,
    b"\\x00",
    b"-1",
    b"(-2, -4)",
    b"1099511627776",
    b"(0, 9223372036854775807)",
    b"True",
    b"'|O'",
    b"'>f8'",
    b"'<U0'",
    b"'V8'",
    b"'<M8[s]'",
    b"[('a', '<f8')]",
    b"{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3)}",
    b"0x7f",
    b"1e999",
    b"NaN",
    b"{}",
    b"None",
    b"9" * 5000,
    b"../x",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"PK\x05\x06",
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"\x93NUMPY\x02\x00",
    b"\x93NUMPY\x01\x00",
    b"IHDR",
    b"zTXt",
]


# ---- the loaders, each with good files and what becomes of a damaged one ----------------------------------------------


def checkpoint_files():
    now = Progress(
        np.arange(6.0),
        {"m": np.ones(6), "v": np.ones(6)},
        [Row(t, 1.0, 0.5, 0.1, 0.2) for t in (1, 2)],
        2,
    )
    yield "checkpoint.npz", lambda path: checkpoint.save(path, now, {"net": "mlp", "hidden": [4]})


GOLDEN = {"theta": np.arange(4.0), "labels": np.arange(3)}


def golden_files():
    yield "mlp.npz", lambda path: golden.write_arrays(path, GOLDEN)


def cache_files():
    arrays = {"images": np.zeros((2, 3, 4, 4), np.uint8), "names": np.array(["a", "bc"])}
    yield "thing.npz", lambda path: cache._store(path, "recipe", arrays)


def omniglot_files():
    from PIL import Image

    picture = io.BytesIO()
    Image.new("1", (105, 105), 1).save(picture, "PNG")

    def write(path, compression):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for d in range(20):
                archive.writestr(f"{path.stem}/Korean/character01/{d:02d}.png", picture.getvalue())

    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        yield (
            "images_background.zip",
            lambda path, compression=compression: write(path, compression),
        )


def load_golden(path):
    """Beside a manifest that says what the good file holds, under the damaged one's sha256: who does harm writes both."""
    return golden.read_arrays(
        path,
        {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "arrays": {name: golden.entry(a) for name, a in GOLDEN.items()},
        },
    )


def load_cache(path):
    return cache._load(path, "recipe")


def load_omniglot(path):
    return drawings.read_drawings([path], 28, "nearest")


LOADERS = {
    "checkpoint": (checkpoint_files, checkpoint.load),
    "golden": (golden_files, load_golden),
    "cache": (cache_files, load_cache),
    "omniglot": (omniglot_files, load_omniglot),
}


# ---- damage --------------------------------------------------------------------------------------------------------------


def damaged_bytes(data, choose):
    """A few bytes flipped, cut, put elsewhere, or a word put among them."""
    data = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 5))):
        at, n = choose.randrange(len(data) + 1), choose.randint(1, 16)
        how = choose.randrange(6)
        if how == 0 and at < len(data):
            data[at] ^= 1 << choose.randrange(8)
        elif how == 1:
            data[at : at + n] = choose.randbytes(n)
        elif how == 2:
            del data[at : at + choose.choice((n, len(data)))]
        elif how == 3:
            data[at:at] = data[:n]
        elif how == 4:
            data[at : at + n] = choose.choice((b"\xff", b"\0", b"\x7f")) * n
        else:
            word = choose.choice(WORDS)
            data[at : at + choose.choice((0, len(word)))] = word
    return bytes(data)


def damaged_header(data, choose):
    """A .npy whose header's text is other, its length right."""
    if data[:6] != b"\x93NUMPY" or len(data) < 10:
        return damaged_bytes(data, choose)
    end = 10 + int.from_bytes(data[8:10], "little")
    text = damaged_bytes(data[10:end].rstrip(), choose)
    for old in (b"(6,)", b"'<f8'", b"False"):
        if choose.random() < 0.3:
            text = text.replace(old, choose.choice(WORDS))
    text = text[:60_000] + b"\n"
    return data[:8] + len(text).to_bytes(2, "little") + text + data[end:]


def resealed(members, choose):
    """A checkpoint whose manifest says something else, under a sha256 that holds."""
    arrays = {
        n.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(data)) for n, data in members
    }
    manifest = json.loads(arrays.pop("manifest").tobytes())
    key = choose.choice(list(manifest))
    manifest[key] = choose.choice(
        [None, -1, 1e400, "", [], {}, [[]], "x" * 100, 2, 3, True, {"a": {"b": []}}, ["step"] * 5]
    )
    if choose.random() < 0.3:
        arrays[choose.choice(list(arrays))] = np.zeros(
            choose.choice([(), (2,), (0, 5), (2, 5)]), choose.choice(["<f4", "<f8", "<u1"])
        )
    manifest["sha256"] = npz.digest({k: v for k, v in manifest.items() if k != "sha256"}, arrays)
    arrays["manifest"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    return [(f"{n}.npy", golden.npy(a)) for n, a in arrays.items()]


def damaged(data, choose):
    """A file's bytes after one kind of damage or another."""
    if choose.random() < 0.35:
        return damaged_bytes(data, choose)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    how = choose.randrange(6)
    at = choose.randrange(len(members))
    name, content = members[at]
    if how == 0:
        members[at] = name, damaged_bytes(content, choose)
    elif how in (1, 2):
        members[at] = name, damaged_header(content, choose)
    elif how == 3:
        members[at] = (
            damaged_bytes(name.encode(), choose).decode("latin-1")[:1000].replace("\0", "?") or "x",
            content,
        )
    elif how == 4:
        members.insert(
            at,
            (
                choose.choice([name, f"{name}/", f"../{name}", f"/{name}"]),
                bytes(choose.choice((0, 10, 1 << 20))),
            ),
        )
    elif "manifest.npy" in dict(members):
        members = resealed(members, choose)
    stream = io.BytesIO()
    packing = choose.choice(
        [zipfile.ZIP_STORED] * 4 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


# ---- watching ------------------------------------------------------------------------------------------------------------


def tried(load, path, size):
    """(whether a file was loaded, None or what went wrong)."""
    before, started, loaded = reset_peak(), time.process_time(), False
    try:
        loaded = load(path) is not None
    except DataError as error:
        if "\n" in str(error):
            return False, "a message of several lines"
    except BaseException as error:  # whatever it is, it is what is looked for
        return False, f"{type(error).__module__}.{type(error).__name__}"
    if time.process_time() - started > SECOND:
        return loaded, "more than a second"
    return loaded, "too much memory" if resident("VmHWM") - before > size + ROOM else None


def plant(name):
    """Weaken a loader as its author might have written it."""
    if (
        name == "catch"
    ):  # what a loader catches, named one by one, as the documentation of NumPy and zipfile suggests

        def load(path):
            try:
                return checkpoint.parse(
                    npz.read_members(path, checkpoint._MEMBER, checkpoint.LIMIT, "fu")
                )
            except (
                OSError,
                ValueError,
                KeyError,
                EOFError,
                zipfile.BadZipFile,
                TypeError,
            ) as error:
                raise DataError("refused") from error

        LOADERS["checkpoint"] = checkpoint_files, load
    elif name == "memory":  # an archive unpacked before it is looked at

        def load(path):
            try:
                with zipfile.ZipFile(path) as archive:
                    kept = [archive.read(m) * 100 for m in archive.infolist()]
                    return kept
            except Exception as error:
                raise DataError("refused") from error

        LOADERS["checkpoint"] = checkpoint_files, load


def fuzz(loader, seconds, choose, folder, executions=None):
    """{"executions", "loaded", "escapes": {what: [how often, sha256 of the first file]}} of a loader."""
    make, load = LOADERS[loader]
    good = []
    for name, write in make():
        path = folder / name
        write(path)
        good.append((path, path.read_bytes()))
        assert tried(load, path, len(good[-1][1])) == (True, None), (
            f"{loader}: a good file is refused"
        )
    found, end, count, whole = {}, time.monotonic() + seconds, 0, 0
    while time.monotonic() < end and (executions is None or count < executions):
        path, data = choose.choice(good)
        data = damaged(data, choose)
        path.write_bytes(data)
        loaded, what = tried(load, path, len(data))
        count, whole = count + 1, whole + loaded
        if what:
            found.setdefault(what, [0, hashlib.sha256(data).hexdigest()])[0] += 1
            (folder / f"escape-{loader}-{len(found)}").write_bytes(data)
    return {"executions": count, "loaded": whole, "escapes": found}


def guided(loader, seconds, folder):
    """The same by atheris, guided by coverage, in a process of its own; None where it is not installed."""
    from importlib.util import find_spec

    if find_spec("atheris") is None:
        return None
    make, load = LOADERS[loader]
    for number, (name, write) in enumerate(make()):
        corpus = folder / "corpus"
        corpus.mkdir(exist_ok=True)
        write(folder / name)
        (corpus / str(number)).write_bytes((folder / name).read_bytes())
    path, child = folder / name, os.fork()
    if child:
        return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}
    import atheris

    def one(data):
        path.write_bytes(data)
        what = tried(load, path, len(data))[1]
        if what:
            raise RuntimeError(what)

    for module in map(
        sys.modules.get,
        (
            "zipfile",
            "numpy.lib._format_impl",
            "tokenize",
            npz.__name__,
            zips.__name__,
            load.__module__,
        ),
    ):
        for name, value in list(vars(module).items()) if module else ():
            if (
                isinstance(value, types.FunctionType)
                and value.__module__ == module.__name__
                and value is not load
            ):
                setattr(module, name, atheris.instrument_func(value))
    atheris.Setup(
        [
            sys.argv[0],
            str(folder / "corpus"),
            f"-max_total_time={max(1, round(seconds))}",
            "-verbosity=0",
        ],
        one,
    )
    atheris.Fuzz()
    os._exit(0)


def main(argv=None):
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--loaders", nargs="+", choices=tuple(LOADERS), default=list(LOADERS))
    parser.add_argument("--plant", choices=("catch", "memory"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="a folder for fuzz.json")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    plant(options.plant)
    share, found = options.seconds / len(options.loaders), {}
    for loader in options.loaders:
        with tempfile.TemporaryDirectory() as folder:
            by_coverage = guided(loader, share / 4, Path(folder))
            part = share if by_coverage is None else 3 * share / 4
            found[loader] = fuzz(loader, part, random.Random(options.seed), Path(folder)) | {
                "atheris": by_coverage
            }
    from refmaml.environment import circumstances
    from refmaml.training.files import make_folder, write_json

    command = (
        f"python benchmarks/reliability/fuzz.py --seconds {options.seconds:g}"
        + f" --plant {options.plant}" * bool(options.plant)
    )
    record = {
        "schema": SCHEMA,
        "command": command,
        "loaders": found,
        "executions": sum(f["executions"] for f in found.values()),
        "escapes": sum(n for f in found.values() for n, _ in f["escapes"].values()),
        **circumstances(),
    }
    print(json.dumps(record, indent=2))
    if options.out:
        write_json(make_folder(options.out) / "fuzz.json", record)
    return (
        1
        if record["escapes"] or any((f["atheris"] or {}).get("status") for f in found.values())
        else 0
    )


if __name__ == "__main__":
    sys.exit(main())
