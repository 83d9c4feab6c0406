"""`refmaml COMMAND ...`: finds the command, and turns what goes wrong into one line and an exit status."""

import argparse
import os
import signal
import sys
from importlib import import_module

from refmaml.cli import mpi
from refmaml.cli.options import KINDS, flag
from refmaml.errors import ArgumentError, RefmamlError
from refmaml.log import say
from refmaml.version import __version__

# Modules of this package, in the order of --help; add(subparsers) of each sets `func`: arguments -> status.
COMMANDS = ("verify", "train", "evaluate", "reproduce", "demo", "bench", "doctor", "golden")
SHARED = ("train", "evaluate")  # commands that several ranks can do together
FAILED, READER_GONE = 2, 141  # the latter as a shell reports SIGPIPE
TOO_LARGE = (
    "Maximum allowed",
    "array is too big",
)  # how NumPy's ValueErrors begin for an array that no memory could hold


class Parser(argparse.ArgumentParser):
    """argparse, whose complaints are ArgumentErrors and whose options are not abbreviated."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        raise ArgumentError(f"{message} ({self.prog} --help lists what there is)")


def parser(argv):
    """The parser of the command that argv begins with, or of all of them where it begins with none."""
    top = Parser(
        prog="refmaml", description="A hand-written reference for gradient-based meta-learning."
    )
    top.add_argument("--version", action="version", version=f"refmaml {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in argv[:1] if argv[:1] and argv[0] in COMMANDS else COMMANDS:
        import_module(f"refmaml.cli.{name}").add(commands)
    return top


def main(argv=None):
    """Run one command, alone or as one of several ranks; returns the exit status: 0, what the command says, or 2 after an error."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        ranks = mpi.launched()
    except ArgumentError as error:
        if mpi.told(1) == 0:  # once is enough
            say(f"refmaml: {error}")
        return FAILED
    with mpi.watched(ranks), mpi.first_speaks(ranks):
        return mpi.leave(ranks, attempt(argv, ranks))


def attempt(argv, ranks):
    """The exit status of a command; what goes wrong as one line."""
    try:
        with ranks.together():
            arguments = parser(argv).parse_args(argv)
            mpi.refuse_ranks(ranks, argv[0], SHARED)
        arguments.ranks = ranks
        status = arguments.func(arguments)
        sys.stdout.flush()  # a reader who left is noticed here, not at exit
        return status or 0
    except RefmamlError as error:
        complain(ranks, as_typed(str(error)))
        return FAILED
    except MemoryError as error:
        return out_of_memory(error)
    except BrokenPipeError:
        silence_stdout()
        return READER_GONE
    except (
        OSError
    ) as error:  # of a place that none of our own lines is about, as a full disk behind stdout
        complain(
            ranks,
            f"{error.filename or 'stdout'}: expected a place to read from or write to, got {error.strerror or error}",
        )
        if error.filename is None:
            silence_stdout()
        return FAILED
    except KeyboardInterrupt as stop:
        say("; ".join(["refmaml: interrupted", *map(str, stop.args)]))
        return 128 + getattr(stop, "signum", signal.SIGINT)  # as a shell reports it
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(TOO_LARGE):
            return out_of_memory(error)
        if ranks.size > 1:  # above the traceback, which does not tell whose it is
            complain(
                ranks,
                f"{type(error).__name__}: {error}; this ends the run, checkpoints stay as they were saved",
            )
        raise


def silence_stdout():
    """Nothing more to stdout, where it cannot be written: not what is flushed at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def out_of_memory(error):
    """Say what could not be had; the exit status."""
    say(f"refmaml: expected enough memory, got {(str(error) or 'none').splitlines()[0]}")
    return FAILED


def complain(ranks, text):
    """A line on stderr: by the first rank where all know, by the one that failed where only that one does."""
    if ranks.agreed:
        say(f"refmaml: {text}")
    else:
        print(
            f"refmaml: rank {ranks.rank} of {ranks.size}: {text}", file=sys.__stderr__, flush=True
        )


def as_typed(message):
    """An error about an argument that is an option, as the option: "inner_lr: ..." -> "--inner-lr: ..."."""
    name, colon, rest = message.partition(":")
    return f"{flag(name)}{colon}{rest}" if name in KINDS else message
