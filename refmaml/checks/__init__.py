"""Checks of single parts: a gradient, a product, a layer, a solve, a hypergradient."""

from refmaml.checks.gradient import check_gradient
