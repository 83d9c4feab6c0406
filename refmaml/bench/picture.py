"""The picture of the bench: a panel for each workload, a bar for each contestant, the quartiles as whiskers."""

from refmaml.training.plot import INK, apply_style, can_draw, save_figure

OURS, OTHERS, ACROSS = "#c8553d", "#8d99a6", 3


def write_picture(path, meta):
    """meta: the list "meta" of the bench's record. Raises DataError where `path` cannot be written."""
    if not can_draw(path):
        return
    from matplotlib.figure import Figure

    columns = min(ACROSS, len(meta))
    rows = -(-len(meta) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.2 * rows), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, part in zip(panels, meta, strict=False):
        panel(axes, part)
    for axes in panels[len(meta) :]:
        axes.set_axis_off()
    save_figure(path, figure)


def panel(axes, part):
    """Milliseconds of one workload, the fastest on top."""
    timed = sorted(
        (r for r in part["results"] if r["seconds"] and r["exact"] is not None),
        key=lambda r: r["seconds"]["median"],
    )
    for place, r in enumerate(timed):
        middle, low, high = (1e3 * r["seconds"][name] for name in ("median", "low", "high"))
        axes.barh(
            place,
            middle,
            xerr=[[middle - low], [high - middle]],
            height=0.66,
            ecolor=INK,
            capsize=3,
            color=OURS if r["name"].startswith("refmaml") else OTHERS,
        )
        axes.text(
            high,
            place,
            f"  {middle:,.0f} ms" if middle >= 100 else f"  {middle:.3g} ms",
            va="center",
            color=INK,
            fontsize=9,
        )
    apply_style(axes, "ms for one meta-gradient", "")
    axes.set_title(f"{part['title']}, {part['tasks']} tasks", fontsize=10, color=INK)
    axes.set_yticks(range(len(timed)), [r["title"] for r in timed])
    axes.invert_yaxis()
    axes.grid(visible=False)
    if timed:
        axes.set_xlim(0, 1.3e3 * max(r["seconds"]["high"] for r in timed))
