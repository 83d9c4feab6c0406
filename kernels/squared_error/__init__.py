"""Squared error."""
