"""The pictures of the demo."""

import numpy as np

from refmaml.training.plot import INK, apply_style, draw, save_figure

COLORS = {
    "untrained": "#b5babf",
    "erm": "#8d99a6",
    "reptile": "#7fb069",
    "fomaml": "#5fa8d3",
    "maml": "#c8553d",
}


def comparison(path, outcomes):
    """Bars of held-out accuracy with 95 % intervals, and learning curves."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(10, 3.8), dpi=150, layout="constrained")
    bars, curves = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for place, o in enumerate(outcomes):
        mean, half = o.evaluation.mean, o.evaluation.interval
        bars.barh(place, mean, xerr=half, color=COLORS[o.key], height=0.66, ecolor=INK, capsize=3)
        bars.text(
            mean + half + 0.012, place, f"{100 * mean:.1f} %", va="center", color=INK, fontsize=9
        )
        if o.rows:
            steps, accuracies = zip(*((row.step, row.accuracy) for row in o.rows), strict=True)
            draw(curves, steps, accuracies, COLORS[o.key], o.title)
    apply_style(bars, "accuracy on held-out scripts, adapted alike", "")
    bars.set_yticks(range(len(outcomes)), [o.title for o in outcomes])
    bars.set_xlim(0, 1.12 * max(o.evaluation.mean + o.evaluation.interval for o in outcomes) + 0.05)
    bars.invert_yaxis()
    bars.grid(visible=False)
    bars.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    apply_style(curves, "meta-step", "query accuracy while training")
    curves.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if curves.lines:
        curves.legend(frameon=False, fontsize=9, labelcolor=INK)
    save_figure(path, figure)


def contact_sheet(path, batch):
    """A batch's first task: a row for each class, support images left, query images
    right.
    """
    from matplotlib.figure import Figure

    sets = ((batch.x_support, batch.y_support), (batch.x_query, batch.y_query))
    support, query = (by_class(x[0], y[0]) for x, y in sets)
    (ways, shots, H, W), queries = support.shape, query.shape[1]
    gap = W // 3
    sheet = np.zeros((ways * H, (shots + queries) * W + gap))
    sheet[:, : shots * W] = tiled(support)
    sheet[:, shots * W + gap :] = tiled(query)
    figure = Figure(
        figsize=(0.75 * (shots + queries) + 0.6, 0.75 * ways + 0.6), dpi=150, layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(1 - sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.axvline(shots * W + gap / 2 - 0.5, color=COLORS["maml"], linewidth=1.5)
    axes.set_yticks(H * np.arange(ways) + H / 2, [f"class {c}" for c in range(ways)])
    axes.set_xticks([shots * W / 2, shots * W + gap + queries * W / 2], ["support", "query"])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, colors=INK, labelsize=9)
    axes.spines[:].set_visible(False)
    save_figure(path, figure)


def by_class(x, y):
    """Images (N, 1, H, W) with labels (N,), equally many of each: (classes, examples,
    H, W).
    """
    return np.stack([x[y == label, 0] for label in np.unique(y)])


def tiled(images):
    """Images (R, C, H, W) as one image (R H, C W)."""
    R, C, H, W = images.shape
    return images.transpose(0, 2, 1, 3).reshape(R * H, C * W)
