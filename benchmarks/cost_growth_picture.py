"""The picture of cost_growth.py."""


def styles():
    """{method: the style of its line}, in the demo's colours for the demo's methods.

    One is dashed: in memory its line often coincides with that of iMAML.
    """
    from refmaml.cli.pictures import COLORS

    return {
        "MAML, stored": {"color": COLORS["maml"]},
        "MAML, recomputed": {"color": "#e09f3e", "linestyle": (0, (3, 1.5)), "zorder": 3},
        "first-order MAML": {"color": COLORS["fomaml"]},
        "iMAML": {"color": "#6d597a"},
        "Reptile": {"color": COLORS["reptile"]},
    }


def draw(path, sweeps, title, names):
    """Time above, memory below, a column for each quantity, all axes logarithmic.

    The exponents are in the corner of each panel.
    """
    from matplotlib.figure import Figure

    from refmaml.training.plot import INK, save_figure

    figure = Figure(figsize=(2.75 * len(sweeps), 6.4), dpi=150, layout="constrained")
    panels = figure.subplots(2, len(sweeps), sharey="row", squeeze=False)
    for row, cost, label in ((0, "seconds", "seconds"), (1, "peak_mb", "peak memory, MB")):
        for column, (quantity, sweep) in enumerate(sweeps.items()):
            draw_panel(
                panels[row, column],
                sweep,
                cost,
                names[quantity] if row else "",
                label if column == 0 else "",
            )
        bottom, top = panels[row, 0].get_ylim()
        # Room for the exponents above the lines.
        panels[row, 0].set_ylim(bottom, top * (top / bottom) ** 0.35)
    lines = panels[0, 0].get_lines()
    figure.legend(
        lines,
        [line.get_label() for line in lines],
        loc="outside lower center",
        ncols=len(lines),
        frameon=False,
        labelcolor=INK,
    )
    figure.suptitle(title, color=INK, fontsize=10)
    save_figure(path, figure)


def draw_panel(axes, sweep, cost, xlabel, ylabel):
    """One cost of every method against one quantity."""
    from matplotlib.ticker import NullFormatter, NullLocator

    from refmaml.training.plot import apply_style

    axes.set_xscale("log")
    axes.set_yscale("log")
    for i, (name, style) in enumerate((n, s) for n, s in styles().items() if n in sweep):
        axes.plot(
            sweep["values"],
            sweep[name][cost],
            marker="o",
            markersize=3.5,
            linewidth=1.6,
            label=name,
            **style,
        )
        axes.text(
            0.05,
            0.97 - 0.065 * i,
            f"$n^{{{sweep[name][cost + '_exponent']:.2f}}}$",
            transform=axes.transAxes,
            va="top",
            fontsize=9,
            color=style["color"],
        )
    apply_style(axes, xlabel, ylabel)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(sweep["values"], [str(value) for value in sweep["values"]])
