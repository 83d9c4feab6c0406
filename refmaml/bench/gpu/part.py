"""What every program that is a section of `make gpu` leaves: a JSON file with "passed"."""

from refmaml.training.files import write_json

NOT_AVAILABLE = 3  # the exit status of a program that could not look: 0 and 1 are verdicts


def finished(path, record, passed, reason=None):
    """Write it; returns the exit status. passed: None where nothing can be said (yet), then `reason` may say why."""
    write_json(path, {"passed": passed, **({"reason": reason} if reason else {}), **record})
    return NOT_AVAILABLE if passed is None else int(not passed)
