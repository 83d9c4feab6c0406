"""Shared by tests of arguments: the error about a wrong one."""

import pytest

import refmaml as rm


def refused(make, argument):
    """The message of the ArgumentError that make() raises.

    It must be one line that begins with the argument's name.
    """
    with pytest.raises(rm.ArgumentError) as error:
        make()
    message = str(error.value)
    assert message.startswith(f"{argument}: expected ") and "\n" not in message
    assert ", got " in message
    return message
