"""The picture of the bench: a panel per workload, a bar per implementation.

Whiskers are the quartiles.
"""

from refmaml.training.plot import INK, apply_style, can_draw, save_figure

REFMAML, OTHERS, COLUMNS = "#c8553d", "#8d99a6", 3


def write_picture(path, meta):
    """Draw the record's list "meta". Raises DataError if the file cannot be written."""
    if not can_draw(path):
        return
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(meta))
    rows = -(-len(meta) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.2 * rows), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, entry in zip(panels, meta, strict=False):
        draw_panel(axes, entry)
    for axes in panels[len(meta) :]:
        axes.set_axis_off()
    save_figure(path, figure)


def draw_panel(axes, entry):
    """Milliseconds of one workload, the fastest at the top."""
    timed = [r for r in entry["results"] if r["seconds"] and r["exact"] is not None]
    timed.sort(key=lambda r: r["seconds"]["median"])
    for row, result in enumerate(timed):
        draw_bar(axes, row, result)
    apply_style(axes, "ms for one meta-gradient", "")
    axes.set_title(f"{entry['title']}, {entry['tasks']} tasks", fontsize=10, color=INK)
    axes.set_yticks(range(len(timed)), [r["title"] for r in timed])
    axes.invert_yaxis()
    axes.grid(visible=False)
    if timed:
        axes.set_xlim(0, 1.3e3 * max(r["seconds"]["high"] for r in timed))


def draw_bar(axes, row, result):
    """The median with its number, the quartiles as whiskers."""
    median, low, high = (1e3 * result["seconds"][name] for name in ("median", "low", "high"))
    axes.barh(
        row,
        median,
        xerr=[[median - low], [high - median]],
        height=0.66,
        ecolor=INK,
        capsize=3,
        color=REFMAML if result["name"].startswith("refmaml") else OTHERS,
    )
    text = f"  {median:,.0f} ms" if median >= 100 else f"  {median:.3g} ms"
    axes.text(high, row, text, va="center", color=INK, fontsize=9)
