"""Task distributions, each with `sample(tasks, ..., seed=0, step=0)`."""

from refmaml.tasks.glyph_completion import GlyphCompletion
from refmaml.tasks.glyphs import Glyphs
from refmaml.tasks.image_folder import ImageFolder
from refmaml.tasks.linear_regression import LinearRegression
from refmaml.tasks.omniglot import Omniglot
from refmaml.tasks.quadratics import Quadratics
from refmaml.tasks.sinusoid import Sinusoids
from refmaml.tasks.two_layer_linear import TwoLayerLinear

__all__ = [
    "Glyphs",
    "LinearRegression",
    "Omniglot",
    "Quadratics",
    "Sinusoids",
    "TwoLayerLinear",
    "ImageFolder",
    "GlyphCompletion",
]
