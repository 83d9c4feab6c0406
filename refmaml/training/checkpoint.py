"""A training run in one file, written whole or not at all, and believed only after it has been checked.

An uncompressed .npz: meta.npy, state.NAME.npy for each array of the optimiser, curve.npy (steps, columns) and manifest.npy, a JSON text
as bytes: {"schema", "step", "config", "columns", "random", "sha256"}. "columns" names the curve's; "random" says where random numbers
come from: counters, so that `step` is their whole state. The sha256 is over the manifest's other entries and every array's name, dtype,
shape and bytes. Files of schema 1, which had neither columns nor random, are read too. Nothing is allocated that the file's own size does
not cover, and nothing in it is ever executed.
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
LIMIT = (
    1 << 30
)  # bytes in a file we agree to read: 44 million parameters in float64 with Adam's two moments
MANIFEST_LIMIT = 1 << 18
_MEMBER = re.compile(r"(meta|curve|manifest|state\.[a-z0-9_]+)\.npy")
_COLUMNS_1 = ["step", "loss", "accuracy", "grad_norm", "seconds"]
_ENTRIES = {
    "refmaml-checkpoint-1": {"schema", "step", "config", "sha256"},
    SCHEMA: {"schema", "step", "config", "columns", "random", "sha256"},
}


def save(path, progress, config, as_numpy=np.asarray):
    """Write `progress` and `config` (whatever JSON can hold) to `path`, whose folder exists.

    as_numpy  makes a NumPy array of one of the progress's arrays, which may lie elsewhere
    On any failure, power cuts included, the file that was there before is still there. Raises DataError.
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
            f"{path}: expected a run that fits into {LIMIT} bytes, its configuration into {MANIFEST_LIMIT}, got a larger one"
        )
    whole = (
        io.BytesIO()
    )  # a zip is written to and fro: here first, so that the disk sees one stream
    np.savez(whole, manifest=text, **arrays)
    with durable_write(path) as file:
        file.write(whole.getbuffer())


def load(path):
    """(Progress, config) as `save` was given them. Raises DataError, one line."""
    try:
        return restored(read_members(path, _MEMBER, LIMIT, "fu", {"manifest": MANIFEST_LIMIT}))
    except FileNotFoundError:
        raise DataError(f"{path}: expected a checkpoint, got no such file") from None
    except (
        Exception
    ) as error:  # zipfile, NumPy's header parser and JSON raise all kinds on damaged bytes
        reason = (
            " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        )
        raise DataError(
            f"{path}: expected a checkpoint of refmaml train, got {reason[:300]}"
        ) from error


def restored(arrays):
    """(Progress, config) from the members of a file."""
    require(
        {"meta", "curve", "manifest"} <= set(arrays),
        f"only the members {', '.join(sorted(arrays))}",
    )
    manifest = json.loads(arrays.pop("manifest").tobytes())
    require(
        isinstance(manifest, dict) and manifest.get("schema") in _ENTRIES,
        f"no schema {' or '.join(_ENTRIES)}",
    )
    require(set(manifest) == _ENTRIES[manifest["schema"]], f"a manifest of {', '.join(manifest)}")
    stated = manifest.pop("sha256")
    require(stated == digest(manifest, arrays), "contents that differ from their sha256")
    require(
        manifest.get("random", STREAMS) == STREAMS,
        "random numbers from elsewhere than this version's",
    )
    meta, curve, step = arrays.pop("meta"), arrays.pop("curve"), manifest["step"]
    require(
        meta.ndim == 1 and meta.dtype.kind == "f",
        f"meta-parameters {meta.dtype} of shape {meta.shape}",
    )
    for name, a in arrays.items():
        require(
            a.shape == meta.shape and a.dtype == meta.dtype, f"{name} {a.dtype} of shape {a.shape}"
        )
    state = {name.removeprefix("state."): a for name, a in arrays.items()}
    return Progress(
        meta, state, rows_of(curve, step, manifest.get("columns", _COLUMNS_1)), step
    ), manifest["config"]


def rows_of(curve, step, columns):
    """The learning curve from a file's table (step, columns); columns this version has and the file has not are NaN."""
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
