"""Options of the command line: registered, read, checked, and settled into a
configuration.
"""

from refmaml.cli import presets
from refmaml.cli.option_requirements import REQUIRES
from refmaml.cli.option_table import KINDS, SAVED
from refmaml.errors import ArgumentError, expect

__all__ = [
    "KINDS",
    "SAVED",
    "flag",
    "add",
    "read",
    "typed",
    "settle",
    "with_files",
    "has_effect",
    "refuse_unused",
    "reread",
]


def flag(name):
    """The option as it is typed: "inner_lr" -> "--inner-lr"."""
    return "--" + name.replace("_", "-")


def add(parser, names):
    """Add options to an argparse parser or group.

    The parsed result has only those that were typed, as text.
    """
    import argparse

    for name in names:
        kind, description = KINDS[name]
        how = (
            {"action": argparse.BooleanOptionalAction}
            if kind.nargs == 0
            else {"nargs": kind.nargs, "metavar": metavar(kind)}
        )
        parser.add_argument(flag(name), default=argparse.SUPPRESS, help=description, **how)


def metavar(kind):
    """An option's value in --help: the choices, or the kind of value."""
    if kind.expected.startswith("one of "):
        return "{" + kind.expected.removeprefix("one of ").replace(", ", ",") + "}"
    return {
        "some text": "PATH",
        "a path that ends in .png": "PATH",
        "names or patterns": "PATTERN",
        "names": "NAME",
        "NAME=AXES": "NAME=AXES",
        "NAME=FUNCTION": "NAME=FUNCTION",
        "numbers with commas between them": "N,N,...",
        "numbers with commas between them, or the NAME of a function": "N,N,...|NAME",
        "NAME, or FILE.py:NAME": "NAME",
        "an update rule": "RULE",
    }.get(kind.expected, "N")


def read(name, value):
    """The value of an option. Raises ArgumentError naming the option."""
    kind = KINDS[name][0]
    try:
        return kind.read(value)
    except ArgumentError as error:  # of a kind that says more: "rule: expected ..."
        _, _, text = str(error).partition(":")
        raise ArgumentError(f"{flag(name)}:{text}") from None
    except (ValueError, TypeError):
        raise ArgumentError(f"{flag(name)}: expected {kind.expected}, got {value!r}") from None
    except OverflowError:
        raise ArgumentError(f"{flag(name)}: expected a smaller number, got {value!r}") from None


def typed(arguments):
    """{option: value} for the options on the command line. Raises ArgumentError."""
    return {name: read(name, value) for name, value in vars(arguments).items() if name in KINDS}


def settle(given):
    """The configuration: a value for each option in SAVED.

    Values come from the tables of presets.py, a file that --config names, and the
    options given; later ones override earlier ones. Raises ArgumentError, and DataError
    for a file that is no configuration.
    """
    given = with_files(given)
    data = given.get("data", presets.DEFAULTS["data"])
    net = given.get("net", presets.BY_DATA[data].get("net", presets.DEFAULTS["net"]))
    method = given.get("method", presets.DEFAULTS["method"])
    norm = given.get("norm", presets.DEFAULTS["norm"])
    config = (
        presets.DEFAULTS
        | presets.BY_DATA[data]
        | presets.BY_NET[net]
        | (presets.BY_NORM[norm] if net == "conv4" else {})
        | ({} if data in presets.POLICIES else method_defaults(method, given))
        | {name: value for name, value in given.items() if name in presets.DEFAULTS}
    )
    return config if config["steps"] or config["minutes"] else config | {"steps": presets.STEPS}


def method_defaults(method, given):
    """The defaults of a method; a rule given takes the place of its inner optimiser."""
    defaults = presets.BY_METHOD[method]
    replaced = {"inner_optimizer"} if "rule" in given else set()
    return {name: value for name, value in defaults.items() if name not in replaced}


def with_files(given):
    """The options given, over those of --config's file, over those of --preset.

    Raises ArgumentError and DataError for a file that is no configuration.
    """
    from refmaml.training.files import read_json

    from_file = {}
    if "config" in given:
        from_file = reread(read_json(given["config"], "the config.json of a run"))
    return presets.PRESETS.get(given.get("preset"), {}) | from_file | given


def missing_value(name, config):
    """(another option, its values): what an option needs and does not have, or None."""
    if name not in REQUIRES:
        return None
    other, values = REQUIRES[name]
    return missing_value(other, config) if config[other] in values else (other, values)


def has_effect(name, config):
    """Whether an option has an effect under a configuration."""
    return missing_value(name, config) is None


def refuse_unused(given, config):
    """Raise ArgumentError for an option given that has no effect."""
    for name in given:
        if not has_effect(name, config):
            other, values = missing_value(name, config)
            raise ArgumentError(
                f"{flag(name)}: expected {flag(other)} {' or '.join(values)} beside it, "
                f"got {flag(other)} {config[other]}"
            )


def reread(config):
    """A configuration from a file, checked like typed options. Raises ArgumentError.

    Options that it lacks have their defaults.
    """
    names = set(presets.DEFAULTS)
    expect(
        isinstance(config, dict) and set(config) <= names,
        "configuration",
        f"some of the {len(names)} options of this version",
        f"others: {', '.join(sorted(set(config) - names))}"
        if isinstance(config, dict)
        else repr(config),
    )
    return presets.DEFAULTS | {
        name: None if value is None and presets.DEFAULTS[name] is None else read(name, value)
        for name, value in config.items()
    }
