"""`python -m refmaml`."""
from refmaml.cli import main

raise SystemExit(main())
