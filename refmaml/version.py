"""The version of refmaml. setup and documents read it from here."""

__version__ = "0.1.0"
