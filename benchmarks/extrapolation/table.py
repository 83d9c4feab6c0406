"""The table of docs/neural_process.md from extrapolation.json.

    python benchmarks/extrapolation/table.py           prints it
    python benchmarks/extrapolation/table.py --write   replaces it in the document

Errors are means over seeds and tasks. "diverges": steps overflowed in some task.
"""

import argparse
import json
import math
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parent.parent / "docs/neural_process.md"
COLUMNS = (
    ("predict 0", "0", "predict 0"),
    ("erm", "5", "ERM, 5 steps"),
    ("maml", "5", "MAML, 5 steps"),
    ("maml", "50", "MAML, 50 steps"),
    ("cnp", "0", "CNP"),
)
FIRST = "| waves |"
LARGEST = 1000.0  # an error above that of a divergent step; waves have an error of 50 at most


def figure(cell):
    """ "0.118 +- 0.026", in bold where a row's best; three digits."""
    mean, half = cell["mean"], cell["interval"]
    if not math.isfinite(mean) or mean > LARGEST:
        return "diverges"
    digits = max(0, 2 - math.floor(math.log10(max(mean, 1e-3))))
    digits = min(digits, 3)
    return f"{mean:.{digits}f} +- {half:.{digits}f}"


def line(row):
    """The line of a row, its smallest error in bold."""
    cells = [row["errors"][name][k] for name, k, _ in COLUMNS]
    means = [cell["mean"] if math.isfinite(cell["mean"]) else math.inf for cell in cells]
    texts = [
        f"**{figure(cell)}**" if mean == min(means) else figure(cell)
        for cell, mean in zip(cells, means, strict=True)
    ]
    return f"| {row['name']} | " + " | ".join(texts) + " |"


def markdown(record):
    """All lines of the table."""
    head = f"{FIRST} " + " | ".join(title for _, _, title in COLUMNS) + " |"
    return "\n".join([head, "|---|" + "---|" * len(COLUMNS), *map(line, record["rows"])])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into docs/neural_process.md")
    table = markdown(json.loads((HERE / "extrapolation.json").read_text()))
    if not parser.parse_args().write:
        return print(table)
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(FIRST)
    DOCUMENT.write_text(before + table + "\n\n" + rest.partition("\n\n")[2])


if __name__ == "__main__":
    main()
