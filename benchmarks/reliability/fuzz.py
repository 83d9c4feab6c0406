"""Does a damaged file make a loader fail in any way but its own?

    python benchmarks/reliability/fuzz.py [--seconds 600] [--loaders NAME ...]
                                          [--plant NAME] [--out benchmarks/reliability]

Good files are damaged at random (damage.py) and loaded, for minutes. A loader may
return, or raise DataError in one line. Anything else is an escape: another exception,
more than a second, or 64 MB more memory than the size of the file. With atheris
installed, a quarter of the time goes to its mutations, guided by coverage (guided.py).
--plant weakens a loader, to show that escapes are noticed. Exit status 1 if anything
escaped.
"""

import argparse
import hashlib
import io
import json
import random
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import numpy as np
from damage import damaged
from guided import guided

from refmaml.bench.memory import reset_peak, resident
from refmaml.errors import DataError
from refmaml.golden import files as golden
from refmaml.storage import npz
from refmaml.tasks import cache, drawings
from refmaml.training import Progress, Row, checkpoint

SCHEMA, SECOND, ROOM = "refmaml-fuzz-1", 1.0, 64 << 20


# ---- the loaders, each with good files ----


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
    """Load with the good file's manifest, but with the sha256 of the damaged file.

    An attacker would write both.
    """
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


# ---- escapes ----


def tried(load, path, size):
    """(whether a file was loaded, None or a description of the escape)."""
    before, started, loaded = reset_peak(), time.process_time(), False
    try:
        loaded = load(path) is not None
    except DataError as error:
        if "\n" in str(error):
            return False, "a message of several lines"
    except BaseException as error:  # any other exception is an escape
        return False, f"{type(error).__module__}.{type(error).__name__}"
    if time.process_time() - started > SECOND:
        return loaded, "more than a second"
    return loaded, "too much memory" if resident("VmHWM") - before > size + ROOM else None


def plant(name):
    """Weaken a loader as its author might have written it."""
    # Exceptions are caught one by one, as the documentation of NumPy and zipfile
    # suggests.
    if name == "catch":

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
    # An archive is unpacked before its sizes are checked.
    elif name == "memory":

        def load(path):
            try:
                with zipfile.ZipFile(path) as archive:
                    kept = [archive.read(m) * 100 for m in archive.infolist()]
                    return kept
            except Exception as error:
                raise DataError("refused") from error

        LOADERS["checkpoint"] = checkpoint_files, load


def fuzz(loader, seconds, choose, folder, executions=None):
    """{"executions", "loaded", "escapes": {what: [count, sha256 of the first]}}."""
    make, load = LOADERS[loader]
    good = []
    for name, write in make():
        path = folder / name
        write(path)
        good.append((path, path.read_bytes()))
        assert tried(load, path, len(good[-1][1])) == (True, None), (
            f"{loader}: a good file is refused"
        )
    found, end, count, loads = {}, time.monotonic() + seconds, 0, 0
    while time.monotonic() < end and (executions is None or count < executions):
        path, data = choose.choice(good)
        data = damaged(data, choose)
        path.write_bytes(data)
        loaded, what = tried(load, path, len(data))
        count, loads = count + 1, loads + loaded
        if what:
            found.setdefault(what, [0, hashlib.sha256(data).hexdigest()])[0] += 1
            (folder / f"escape-{loader}-{len(found)}").write_bytes(data)
    return {"executions": count, "loaded": loads, "escapes": found}


def main(argv=None):
    """Returns the exit status."""
    from refmaml.environment import circumstances
    from refmaml.training.files import make_folder, write_json

    options = parse(argv)
    warnings.simplefilter("ignore")
    plant(options.plant)
    share = options.seconds / len(options.loaders)
    found = {loader: both(loader, share, options.seed) for loader in options.loaders}
    command = f"python benchmarks/reliability/fuzz.py --seconds {options.seconds:g}"
    record = {
        "schema": SCHEMA,
        "command": command + f" --plant {options.plant}" * bool(options.plant),
        "loaders": found,
        "executions": sum(f["executions"] for f in found.values()),
        "escapes": sum(n for f in found.values() for n, _ in f["escapes"].values()),
        **circumstances(),
    }
    print(json.dumps(record, indent=2))
    if options.out:
        write_json(make_folder(options.out) / "fuzz.json", record)
    guided_escapes = any((f["atheris"] or {}).get("status") for f in found.values())
    return int(bool(record["escapes"] or guided_escapes))


def both(loader, seconds, seed):
    """Guided by coverage for a quarter of the time, if possible, then at random."""
    with tempfile.TemporaryDirectory() as folder:
        make, load = LOADERS[loader]
        by_coverage = guided(make, load, tried, seconds / 4, Path(folder))
        left = seconds if by_coverage is None else 3 * seconds / 4
        found = fuzz(loader, left, random.Random(seed), Path(folder))
    return found | {"atheris": by_coverage}


def parse(argv):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="for all loaders together")
    parser.add_argument(
        "--loaders",
        nargs="+",
        choices=tuple(LOADERS),
        default=list(LOADERS),
        help="the loaders to test (default: all)",
    )
    parser.add_argument("--plant", choices=("catch", "memory"), help="weaken the checkpoint loader")
    parser.add_argument("--seed", type=int, default=0, help="of the random damage")
    parser.add_argument("--out", help="a folder for fuzz.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
