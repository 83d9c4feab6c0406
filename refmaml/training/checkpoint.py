"""A training run in one file: written atomically, and fully checked when it is read.

An uncompressed .npz with the members
    meta.npy            (M,)
    state.NAME.npy      for each array of the optimiser, (M,)
    curve.npy           (steps, columns), float64
    manifest.npy        a JSON text as bytes:
                        {"schema", "step", "config", "columns", "random", "sha256"}
"columns" names the curve's columns. "random" names the source of random numbers:
counters, so that `step` is their whole state. "sha256" is over the other entries of the
manifest and each array's name, dtype, shape and bytes. Files of schema 1, without
"columns" and "random", are read too. Reading allocates no more than the file's size,
and executes nothing.
"""

import io
import json
import re

import numpy as np

from refmaml.errors import DataError
from refmaml.storage.npz import digest, read_members
from refmaml.storage.zips import require
from refmaml.tasks.streams import STREAMS
from refmaml.training.files import durable_write
from refmaml.training.rows import Row, Rows
from refmaml.training.trainer import Progress

SCHEMA = "refmaml-checkpoint-2"
# The most bytes of a file: 44 million parameters in float64 with Adam's two moments.
LIMIT = 1 << 30
MANIFEST_LIMIT = 1 << 18
_MEMBER = re.compile(r"(meta|curve|manifest|state\.[a-z0-9_]+)\.npy")
_COLUMNS_1 = ["step", "loss", "accuracy", "grad_norm", "seconds"]
_ENTRIES = {
    "refmaml-checkpoint-1": {"schema", "step", "config", "sha256"},
    SCHEMA: {"schema", "step", "config", "columns", "random", "sha256"},
}


def save(path, progress, config, as_numpy=np.asarray):
    """Write `progress` and `config` (any JSON value) to `path`, whose folder exists.

    as_numpy  converts one of the progress's arrays to a NumPy array
    After any failure, power cuts included, the old file is still there. Raises
    DataError.
    """
    arrays = {
        "meta": as_numpy(progress.meta),
        "curve": np.ascontiguousarray(progress.rows.table),
        **{f"state.{name}": as_numpy(a) for name, a in progress.state.items()},
    }
    manifest = {
        "schema": SCHEMA,
        "step": progress.step,
        "config": config,
        "columns": list(Row._fields),
        "random": STREAMS,
    }
    manifest["sha256"] = digest(manifest, arrays)
    text = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    if text.nbytes > MANIFEST_LIMIT or sum(a.nbytes for a in arrays.values()) > LIMIT - (1 << 20):
        raise DataError(
            f"{path}: expected a run that fits into {LIMIT} bytes, "
            f"its configuration into {MANIFEST_LIMIT}, got a larger one"
        )
    # A zip is not written front to back: in memory first, so that the disk gets one
    # stream.
    memory = io.BytesIO()
    np.savez(memory, manifest=text, **arrays)
    with durable_write(path) as file:
        file.write(memory.getbuffer())


def load(path):
    """(Progress, config) of a file that `save` wrote. Raises DataError, one line."""
    try:
        return parse(read_members(path, _MEMBER, LIMIT, "fu", {"manifest": MANIFEST_LIMIT}))
    except FileNotFoundError:
        raise DataError(f"{path}: expected a checkpoint, got no such file") from None
    except Exception as error:  # for damaged bytes zipfile, NumPy and JSON raise any exception
        text = " ".join(str(getattr(error, "strerror", None) or error).split())
        reason = (text or type(error).__name__)[:300]
        raise DataError(f"{path}: expected a checkpoint of refmaml train, got {reason}") from error


def parse(arrays):
    """(Progress, config) from the members of a file.

    Raises ValueError where they are wrong.
    """
    names = set(arrays)
    require({"meta", "curve", "manifest"} <= names, f"only the members {', '.join(sorted(names))}")
    manifest = json.loads(arrays.pop("manifest").tobytes())
    known = isinstance(manifest, dict) and manifest.get("schema") in _ENTRIES
    require(known, f"no schema {' or '.join(_ENTRIES)}")
    require(set(manifest) == _ENTRIES[manifest["schema"]], f"a manifest of {', '.join(manifest)}")
    stated = manifest.pop("sha256")
    require(stated == digest(manifest, arrays), "contents that differ from their sha256")
    require(
        manifest.get("random", STREAMS) == STREAMS, "random numbers of another version or source"
    )
    meta, curve, step = arrays.pop("meta"), arrays.pop("curve"), manifest["step"]
    require(
        meta.ndim == 1 and meta.dtype.kind == "f",
        f"meta-parameters {meta.dtype} of shape {meta.shape}",
    )
    for name, a in arrays.items():
        same = a.shape == meta.shape and a.dtype == meta.dtype
        require(same, f"{name} {a.dtype} of shape {a.shape}")
    state = {name.removeprefix("state."): a for name, a in arrays.items()}
    rows = parse_curve(curve, step, manifest.get("columns", _COLUMNS_1))
    return Progress(meta, state, rows, step), manifest["config"]


def parse_curve(curve, step, columns):
    """The Rows of a file's table (step, columns). Columns that the file lacks are NaN.

    Raises ValueError where the table is wrong.
    """
    require(
        isinstance(columns, list)
        and set(_COLUMNS_1) <= set(columns) <= set(Row._fields)
        and len(set(columns)) == len(columns),
        f"a curve of the columns {columns}",
    )
    require(
        type(step) is int and curve.dtype == np.float64 and curve.shape == (step, len(columns)),
        f"a curve of shape {curve.shape} at step {step!r}",
    )
    require(
        np.array_equal(curve[:, columns.index("step")], np.arange(1, step + 1)),
        "a curve whose steps are not counted from 1",
    )
    if columns == list(Row._fields):
        return Rows.of(curve)
    table = np.full((step, len(Row._fields)), np.nan)
    for name, values in zip(columns, curve.T, strict=True):
        table[:, Row._fields.index(name)] = values
    return Rows.of(table)
