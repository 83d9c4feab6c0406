"""A neural process completes glyphs of scripts that training never saw.

    refmaml train --data completion --method cnp --hidden 128 128 128 --context 128 \\
        --encoder 128 128 --schedule cosine --steps 15000 --kernels reference --out RUN
    python benchmarks/completion/measure.py RUN

writes completion.json and completion.png beside this file. Errors are mean squares on
all pixels that are not in the support set. Two predictions without learning stand
beside: the mean of the support pixels, and the nearest support pixel.
"""

import argparse
from pathlib import Path

import numpy as np

from refmaml.cli import options, problem
from refmaml.cli.run_folder import CHECKPOINT
from refmaml.environment import circumstances
from refmaml.tasks import GlyphCompletion
from refmaml.training import checkpoint, files
from refmaml.training.evaluation import Evaluation
from refmaml.training.plot import INK, save_figure

HERE = Path(__file__).parent
SHOTS, PICTURES, SHOWN, SEED, AT_ONCE = (10, 50, 200), 200, (0, 1, 2, 3, 4), 10**6, 10


class Completion:
    """A trained run, and the held-out pictures that it completes."""

    def __init__(self, folder):
        self.now, config = checkpoint.load(folder / CHECKPOINT)
        self.config = options.reread(config) | {"kernels": "reference"}
        self.net = problem.make_net(self.config)
        self.method = problem.make_method(self.config)
        tasks = GlyphCompletion("test", frequencies=self.config["frequencies"])
        pictures, self.order, _ = tasks.draw(PICTURES, 1, 1, SEED, 0)
        self.pixels, self.places, self.inputs = pictures / 255, tasks.places, tasks.inputs

    def support(self, chosen, shots):
        """The first `shots` pixels in the order of some pictures, and their ink."""
        order = self.order[chosen, :shots]
        y = np.take_along_axis(self.pixels[chosen], order, axis=1)
        return order, y[..., None]

    def predicted(self, chosen, shots):
        """Means and standard deviations (T, pixels) of some pictures."""
        order, y = self.support(chosen, shots)
        meta = np.asarray(self.now.meta, np.float64)
        phi = self.method.adapt(self.net, meta, self.inputs[order], y)
        everywhere = np.broadcast_to(self.inputs, (len(order), *self.inputs.shape))
        z, _ = self.net.forward(self.net.parameters.views(phi), everywhere, keep=False)
        return [a[..., 0] for a in self.net.loss_function.split(self.net.kernels, z)]

    def squares(self, chosen, predicted, shots):
        """(T,): mean squares on the pixels outside of the support set."""
        e = (predicted - self.pixels[chosen]) ** 2
        return np.take_along_axis(e, self.order[chosen, shots:], axis=1).mean(axis=1)

    def errors(self, chosen, shots):
        """{name: (T,)}: the errors of the CNP and of the two predictions beside it."""
        order, y = self.support(chosen, shots)
        mean, sigma = self.predicted(chosen, shots)
        x = self.places[order]
        distance = ((self.places[None, :, None] - x[:, None]) ** 2).sum(axis=3)
        nearest = np.take_along_axis(y[..., 0], distance.argmin(axis=2), axis=1)
        flat = np.broadcast_to(y.mean(axis=1), mean.shape)
        scores = np.log(sigma) + ((self.pixels[chosen] - mean) / sigma) ** 2 / 2
        unseen = np.take_along_axis(scores, self.order[chosen, shots:], axis=1).mean(axis=1)
        return {
            "cnp": self.squares(chosen, mean, shots),
            "nearest pixel": self.squares(chosen, nearest, shots),
            "mean of the pixels": self.squares(chosen, flat, shots),
            "cnp, -log p": unseen + np.log(2 * np.pi) / 2,
        }


def summary(values):
    """The mean over pictures and the half-width of its 95 % interval."""
    found = Evaluation("loss", values)
    return {"mean": round(found.mean, 5), "interval": round(found.interval, 5)}


def measured(run):
    """{support pixels: {name: summary}} over all pictures."""
    found = {}
    for shots in SHOTS:
        parts = [
            run.errors(np.arange(first, min(first + AT_ONCE, PICTURES)), shots)
            for first in range(0, PICTURES, AT_ONCE)
        ]
        found[str(shots)] = {
            name: summary(np.concatenate([part[name] for part in parts])) for name in parts[0]
        }
    return found


def draw(path, run):
    """A row for each picture: it, then support, mean and standard deviation."""
    from matplotlib.figure import Figure

    size = round(len(run.places) ** 0.5)
    columns = 1 + 3 * len(SHOTS)
    figure = Figure(figsize=(0.95 * columns, 0.95 * len(SHOWN) + 0.5), dpi=150)
    panels = figure.subplots(len(SHOWN), columns, squeeze=False)
    chosen = np.array(SHOWN)
    for row, picture in enumerate(chosen):
        show(panels[row, 0], run.pixels[picture], size, "picture" if row == 0 else "")
    for block, shots in enumerate(SHOTS):
        means, sigmas = run.predicted(chosen, shots)
        for row, picture in enumerate(chosen):
            known = np.full(len(run.places), np.nan)
            given = run.order[picture, :shots]
            known[given] = run.pixels[picture, given]
            titles = (f"{shots} pixels", "mean", "sigma") if row == 0 else ("", "", "")
            cells = (known, means[row], sigmas[row] / sigmas.max())
            for k, (values, title) in enumerate(zip(cells, titles, strict=True)):
                show(panels[row, 1 + 3 * block + k], values, size, title)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.93, 0.06, 0.06)
    save_figure(path, figure)


def show(axes, values, size, title):
    """One picture: ink is black, pixels that are not known are blue."""
    from matplotlib import colormaps

    colors = colormaps["gray_r"].with_extremes(bad="#b9d7ea")
    axes.imshow(values.reshape(size, size), cmap=colors, vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    if title:
        axes.set_title(title, fontsize=8, color=INK, pad=3)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="the folder of the run")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to write to")
    given = parser.parse_args(argv)
    run = Completion(given.run)
    record = {
        "schema": 1, "meta_steps": run.now.step, "parameters": len(run.now.meta),
        "configuration": run.config, "pictures": PICTURES, "errors": measured(run),
        **circumstances(),
    }  # fmt: skip
    files.write_json(given.out / "completion.json", record)
    draw(given.out / "completion.png", run)


if __name__ == "__main__":
    main()
