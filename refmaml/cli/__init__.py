"""The command line: `refmaml verify`, `train`, `evaluate`, `demo`, `bench`."""
from refmaml.cli.main import main

__all__ = ["main"]
