"""The learning curve as a table."""

import csv
import io
from math import isnan

import numpy as np

from refmaml.training.files import durable_write
from refmaml.training.rows import Row, Rows


def write_csv(path, rows):
    """Write one line for each Row, numbers in the shortest form that reads back
    exactly.

    A missing accuracy is an empty cell. The column cg_residual is left out where no row
    has one. Raises DataError where `path` cannot be written.
    """
    text, names = io.StringIO(newline=""), Row._fields
    if np.isnan(as_rows(rows).column("cg_residual")).all():
        names = tuple(name for name in names if name != "cg_residual")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    table.writerows(
        [["" if isnan(value) else repr(value) for value in row[: len(names)]] for row in rows]
    )
    with durable_write(path) as file:
        file.write(text.getvalue().encode())


def as_rows(rows):
    """A sequence of Row as Rows; Rows are returned as they are."""
    return rows if isinstance(rows, Rows) else Rows(rows)
