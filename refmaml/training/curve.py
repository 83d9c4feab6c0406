"""The learning curve as a table."""

import csv
import io
from math import isnan

import numpy as np

from refmaml.training.files import durable_write
from refmaml.training.rows import OPTIONAL, Row, Rows


def write_csv(path, rows):
    """Write one line for each Row, numbers in the shortest form that reads back
    exactly.

    A missing accuracy is an empty cell. A column of OPTIONAL is left out where no row
    has a value. Raises DataError where `path` cannot be written.
    """
    text, table = io.StringIO(newline=""), as_rows(rows)
    empty = {name for name in OPTIONAL if np.isnan(table.column(name)).all()}
    names = [name for name in Row._fields if name not in empty]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = (getattr(row, name) for name in names)
        writer.writerow(["" if isnan(value) else repr(value) for value in values])
    with durable_write(path) as file:
        file.write(text.getvalue().encode())


def as_rows(rows):
    """A sequence of Row as Rows; Rows are returned as they are."""
    return rows if isinstance(rows, Rows) else Rows(rows)
