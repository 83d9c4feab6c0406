"""Batch-norm, a piecewise linear activation and max-pooling as one operation."""

FUSES = ("batch_norm", "activation", "pooling")
