"""Batch normalisation with the statistics of the batch."""
