"""Softmax cross-entropy."""
