"""A training run in one file, written whole or not at all, and believed only after it has been checked.

An uncompressed .npz: meta.npy, state.NAME.npy for each array of the optimiser, curve.npy (steps, 5 or, with CG residuals, 6) and
manifest.npy, a JSON text as bytes: {"schema", "step", "config", "sha256"}. The sha256 is over the manifest's
other entries and every array's name, dtype, shape and bytes. Nothing is allocated that the file's own size
does not cover, and nothing in it is ever executed.
"""
import hashlib
import json
import re

import numpy as np

from refmaml.errors import DataError
from refmaml.training.files import durable_write
from refmaml.training.npz import read_members, require
from refmaml.training.trainer import FEWEST, Progress, Row, columns

SCHEMA = "refmaml-checkpoint-1"
LIMIT = 1 << 32                                           # bytes in a file we agree to read
_MEMBER = re.compile(r"(meta|curve|manifest|state\.[a-z0-9_]+)\.npy")


def save(path, progress, config):
    """Write `progress` and `config` (whatever JSON can hold) to `path`, whose folder exists.

    On any failure, power cuts included, the file that was there before is still there. Raises DataError.
    """
    curve = np.array(progress.rows, np.float64).reshape(-1, len(Row._fields))
    arrays = {"meta": progress.meta, "curve": curve[:, :len(columns(progress.rows))],
              **{f"state.{name}": a for name, a in progress.state.items()}}
    manifest = {"schema": SCHEMA, "step": progress.step, "config": config}
    manifest["sha256"] = digest(manifest, arrays)
    text = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    with durable_write(path) as file:
        np.savez(file, manifest=text, **arrays)


def load(path):
    """(Progress, config) as `save` was given them. Raises DataError, one line."""
    try:
        with open(path, "rb") as file:
            return restored(read_members(file, _MEMBER, LIMIT, "fu"))
    except FileNotFoundError:
        raise DataError(f"{path}: expected a checkpoint, got no such file") from None
    except Exception as error:      # zipfile, NumPy's header parser and JSON raise all kinds on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: expected a checkpoint of refmaml train, got {reason}") from error


def restored(arrays):
    """(Progress, config) from the members of a file."""
    require({"meta", "curve", "manifest"} <= set(arrays), f"only the members {', '.join(sorted(arrays))}")
    manifest = json.loads(arrays.pop("manifest").tobytes())
    require(isinstance(manifest, dict) and manifest.get("schema") == SCHEMA, f"no schema {SCHEMA}")
    require(set(manifest) == {"schema", "step", "config", "sha256"}, f"a manifest of {', '.join(manifest)}")
    stated = manifest.pop("sha256")
    require(stated == digest(manifest, arrays), "contents that differ from their sha256")
    meta, curve, step = arrays.pop("meta"), arrays.pop("curve"), manifest["step"]
    require(meta.ndim == 1 and meta.dtype.kind == "f", f"meta-parameters {meta.dtype} of shape {meta.shape}")
    require(type(step) is int and curve.shape in [(step, len(names)) for names in (FEWEST, Row._fields)],
            f"a curve of shape {curve.shape} at step {step!r}")
    for name, a in arrays.items():
        require(a.shape == meta.shape and a.dtype == meta.dtype, f"{name} {a.dtype} of shape {a.shape}")
    state = {name.removeprefix("state."): a for name, a in arrays.items()}
    rows = [Row(int(row[0]), *row[1:]) for row in curve.tolist()]
    return Progress(meta, state, rows, step), manifest["config"]


def digest(manifest, arrays):
    """sha256 over a manifest and named arrays, in an order of its own."""
    h = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode())
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        h.update(f"{name} {a.dtype.str} {a.shape}\n".encode())
        h.update(a.data)
    return h.hexdigest()
