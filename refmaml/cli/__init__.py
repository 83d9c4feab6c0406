"""The command line `refmaml`: verify, train, evaluate, reproduce, demo, bench, doctor,
check, golden.
"""

from refmaml.cli.main import main

__all__ = ["main"]
