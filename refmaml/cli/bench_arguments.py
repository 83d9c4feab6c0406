"""Arguments of `refmaml bench` that the CPU and a GPU share, and their checks."""

from refmaml.errors import expect

SECTIONS = ("meta", "kernels", "ourselves", "startup")


def positive(option, text):
    """The text as a number of seconds. Raises ArgumentError unless finite and > 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    expect(0 < value < float("inf"), option, "a finite number > 0", repr(text))
    return value


def available_peers(names, kernels):
    """(names of the peers that are installed, {name: why it is absent}).

    names  None: all peers. Raises ArgumentError for an unknown name.
    """
    from refmaml.bench.implementations import find, missing, peers

    known = peers(kernels)
    wanted = known if names is None else names
    for name in wanted:
        expect(name in known, "--peers", f"some of {', '.join(known)}", name)
    absent = {name: reason for name in wanted if (reason := missing(find(name, kernels)))}
    return [name for name in wanted if name not in absent], absent
