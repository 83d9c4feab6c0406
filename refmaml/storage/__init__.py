"""Files on disk: atomic writes, locks, and reads that are bounded."""
