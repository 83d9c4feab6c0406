"""Normalisation over groups of numbers of one example."""
