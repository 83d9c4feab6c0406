"""The command line as `python -m refmaml`."""

from refmaml.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
