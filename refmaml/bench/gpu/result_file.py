"""The result of a section of `make gpu`: a JSON file with "passed"."""

from refmaml.training.files import write_json

NOT_AVAILABLE = 3  # exit status of a program that could not check; 0 and 1 are verdicts


def write_result(path, record, passed, reason=None):
    """Write the file and return the exit status.

    passed  None: no verdict, or not yet; `reason` may say why
    """
    write_json(path, {"passed": passed, **({"reason": reason} if reason else {}), **record})
    return NOT_AVAILABLE if passed is None else int(not passed)
