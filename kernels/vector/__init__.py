"""Arithmetic on flat vectors of parameters."""
