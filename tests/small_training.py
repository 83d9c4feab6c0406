"""A small training loop on sinusoids, for tests of its parts."""

from refmaml import MAML, Sinusoids
from refmaml.models import mlp
from refmaml.training import Adam, Recipe, Row, Schedule


def recipe(sample, chunk=2):
    """MAML on a small net, with tasks from `sample`."""
    return Recipe(mlp((1, 5, 1), "tanh"), MAML(0.01), Adam(), Schedule(1e-2), sample, chunk)


def start(r):
    """The start of a recipe from random parameters."""
    return r.start(r.net.init(0))


def waves(step):
    """Three sinusoids for a step."""
    return Sinusoids().sample(3, seed=1, step=step)


def bits(now):
    """The bytes of the parameters and of the curve except the seconds."""
    return now.meta.tobytes(), [
        now.rows.column(name).tobytes() for name in Row._fields if name != "seconds"
    ]
