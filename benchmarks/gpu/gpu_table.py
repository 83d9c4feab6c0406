"""The table of docs/gpu.md, made from the committed benchmarks/gpu/gpu.json.

It says what was run on which device, with which results, and what was not run.

    python benchmarks/gpu/gpu_table.py          prints it
    python benchmarks/gpu/gpu_table.py --write  writes it into docs/gpu.md
"""

import json
import sys
from pathlib import Path
from textwrap import fill

HERE = Path(__file__).resolve().parent
PAGE, RESULT = HERE.parent.parent / "docs" / "gpu.md", HERE / "gpu.json"
BEGIN, END = (
    "<!-- what was run on a GPU: python benchmarks/gpu/gpu_table.py --write -->\n",
    "<!-- end -->\n",
)
NEVER = "**not yet run on a GPU**"
# The net whose convolutions are shown, and their shape: 64 channels of 14 x 14.
SHOWN = "max-pool, support"
ON_14 = "x14x14"


def text(record, sections):
    """The complete text.

    record    the content of gpu.json, or None before it exists
    sections  those of run.py
    """
    found = (record or {"sections": {}})["sections"]
    lines = [
        wrapped(device_line(found)),
        "",
        "| `make gpu` section | what it shows | result |",
        "|---|---|---|",
    ]
    lines += [f"| {s.name} | {s.title} | {verdict(s.name, found.get(s.name))} |" for s in sections]
    for title, table in (
        ("kernels", kernels),
        ("refmaml alone", ourselves),
        ("beside other libraries", meta),
    ):
        rows = table(found)
        lines += ["", wrapped(HEADS[title]), "", *rows] if rows else []
    return "\n".join(lines) + "\n"


def wrapped(sentence):
    """A sentence in lines as wide as those of the documents."""
    return fill(sentence, 88, break_long_words=False, break_on_hyphens=False)


HEADS = {
    "kernels": "Convolutions of 64 channels, 14 x 14, 5 images, 32 tasks, float32, each at its "
    "newest version; cuDNN's as a grouped convolution, TF32 off:",
    "refmaml alone": "Whole meta-gradients of refmaml, float32:",
    "beside other libraries": "Beside other libraries, by the wall "
    "clock, float32 without TF32 for all but the last column:",
}


def device_line(found):
    """The device, and the versions of the libraries."""
    if "device" not in found or not found["device"].get("found"):
        return f"This list needs a GPU and was {NEVER}. `make gpu` runs all of it."
    about, versions = found["device"]["found"]["device"], found["device"]["found"]["versions"]
    major, minor = about["cuda_runtime"] // 1000, about["cuda_runtime"] % 1000 // 10
    libraries = (
        f"driver {about.get('driver', 'unknown')}, CUDA {major}.{minor}, CuPy {about['cupy']}, "
        f"PyTorch {versions.get('torch') or 'absent'}, JAX {versions.get('jax') or 'absent'}"
    )
    codes = {entry["code"] for entry in found.values() if "code" in entry}
    return (
        f"Run on one {about['name']} ({libraries}), by `make gpu`; "
        "every figure is in [gpu.json](../benchmarks/gpu/gpu.json)."
        + (" The sections were run on more than one state of the code." if len(codes) > 1 else "")
    )


# ---- a line for each section ----


def verdict(name, entry):
    """The outcome of a section in words."""
    if entry is None or entry["status"] == "not run":
        return NEVER
    words = DETAILS.get(name, lambda found: "")(entry["found"]) if entry["found"] else ""
    return (
        f"{entry['status'] if entry['status'] == 'passed' else '**' + entry['status'] + '**'}"
        + (f": {words}" if words else "")
    )


def ladder(found):
    rows = found.get("rows")
    if not rows:
        return found.get("reason", "")
    passed, worst = sum(row["passed"] for row in rows), max(share(row) for row in rows)
    return f"{passed} of {len(rows)} checks, the largest error used {worst:.0%} of its tolerance"


def share(row):
    """The fraction of its tolerance that an error used; null stands for infinity."""
    return (
        row["error"] / row["tolerance"]
        if row["error"] is not None and row["tolerance"]
        else 0.0
        if row["passed"]
        else float("inf")
    )


def tests(found):
    return ", ".join(f"{count} {outcome}" for outcome, count in found.get("counts", {}).items())


def determinism(found):
    other = sum(bool(row["different"]) for row in found["kernels"]) + sum(
        len(row["digests"]) != 1 for row in found["gradients"]
    )
    counts = f"{len(found['kernels'])} kernels, {len(found['gradients'])} meta-gradients"
    return f"{counts}, {other} with other bits"


def graph(found):
    same = sum(row["same"] for row in found["replays"])
    return found.get("reason") or f"{same} of {len(found['replays'])} workloads"


def sanitizer(found):
    words = {True: "clean", False: "**found something**", None: "does not work here"}
    return found.get("reason") or ", ".join(
        f"{row['tool']} {words[row['passed']]}" for row in found["tools"]
    )


def bench_kernels(found):
    rows = found.get("kernels", [])
    return f"{sum(row['right'] for row in rows)} of {len(rows)} right"


DETAILS = {
    "ladder": ladder,
    "numba": ladder,
    "tests": tests,
    "determinism": determinism,
    "graph": graph,
    "sanitizer": sanitizer,
    "bench-kernels": bench_kernels,
}


# ---- tables ----


def result(found, section, part):
    """What a section of the bench measured of one part; [] if nothing."""
    entry = found.get(section)
    return ((entry or {}).get("found") or {}).get(part, [])


def kernels(found):
    """refmaml's newest version beside cuDNN, on one shape."""
    rows = [
        row
        for row in result(found, "bench-kernels", "kernels")
        if row["net"] == SHOWN
        and row["kernel"].startswith("conv2d_")
        and row["dtype"] == "float32"
        and "timing" in row
        and row["shape"].endswith(ON_14)
        and "x1x14" not in row["shape"]
    ]
    newest = {row["kernel"]: row for row in sorted(rows, key=lambda row: row["version"])}
    cudnn = {
        row["kernel"]: row
        for row in result(found, "bench-kernels", "library")
        if row["net"] == SHOWN
        and row["shape"].endswith(ON_14)
        and not row["reduced"]
        and row["timing"]
    }
    if not newest:
        return []
    lines = [
        "| kernel | version | time | of the float32 roof | of sgemm's rate | cuDNN |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in newest.items():
        library = us(cudnn[name]) if name in cudnn else ""
        lines.append(
            f"| `{name}` | {row['version']} | {us(row)} | {row['fraction']:.0%} | "
            f"{row['of_library']:.0%} | {library} |"
        )
    return lines


def us(row):
    """The median time of a row in microseconds."""
    return f"{1e6 * row['timing']['seconds']['median']:.0f} us"


def ms(seconds):
    return f"{1e3 * seconds:,.1f} ms" if seconds >= 0.01 else f"{1e3 * seconds:.3g} ms"


def ourselves(found):
    """Launching, products, float64."""
    rows = [row for row in result(found, "bench-ourselves", "ourselves") if "refused" not in row]
    if not rows:
        return []
    lines = [
        "| workload | launch by launch | graph | launching, of the graph's step "
        "| product / gradient | float64 off by |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = f"{row['launching']['graph']:.0%}" if row["launching"] else ""
        lines.append(
            f"| {row['workload']} | {ms(row['eager']['wall']['median'])} | "
            f"{ms(row['graph']['wall']['median']) if row['graph'] else '-'} | {share} | "
            f"{row['product_over_gradient']:.2f} | {row['exact']:.0e} |"
        )
    return lines


def meta(found):
    """refmaml beside the fastest peer."""
    parts = [
        part
        for name in found
        if name.startswith("meta-")
        for part in result(found, name, "meta")
        if part["times_as_fast_as"]
    ]
    if not parts:
        return []
    lines = [
        "| | refmaml | the fastest of PyTorch and JAX | times as fast "
        "| of the float32 roof | fastest with TF32 |",
        "|---|---|---|---|---|---|",
    ]
    for part in parts:
        by_name = {r["name"]: r for r in part["results"]}
        peer = min(part["times_as_fast_as"], key=part["times_as_fast_as"].get)
        mine = min(
            r["seconds"]["median"]
            for r in part["results"]
            if r["name"].startswith("refmaml") and r["seconds"]
        )
        rounded = min(
            (r for r in part["results"] if r["reduced"] and r["seconds"]),
            key=lambda r: r["seconds"]["median"],
            default=None,
        )
        lines.append(
            f"| {part['title']}, {part['tasks']} tasks | {ms(mine)} | {by_name[peer]['title']}: "
            f"{ms(by_name[peer]['seconds']['median'])} | {part['over_the_fastest_peer']:.1f} | "
            f"{part['of_roof']:.0%} | "
            + (f"{rounded['title']}: {ms(rounded['seconds']['median'])} |" if rounded else "|")
        )
    return lines


# ---- docs/gpu.md ----


def committed():
    """The content of gpu.json; None before it exists."""
    return json.loads(RESULT.read_text()) if RESULT.exists() else None


def between(page):
    """(before, the table, after) of the text of docs/gpu.md."""
    before, _, rest = page.partition(BEGIN)
    part, _, after = rest.partition(END)
    return before + BEGIN, part, END + after


def main(argv):
    """Print the table, or write it into the page."""
    sys.path.insert(0, str(HERE))
    from run import SECTIONS

    part = text(committed(), SECTIONS)
    if argv != ["--write"]:
        print(part, end="")
        return
    before, _, after = between(PAGE.read_text())
    PAGE.write_text(before + part + after)


if __name__ == "__main__":
    main(sys.argv[1:])
