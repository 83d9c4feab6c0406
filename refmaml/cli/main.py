"""`refmaml COMMAND ...`: runs a command; errors become one line and an exit status."""

import argparse
import os
import signal
import sys
from contextlib import contextmanager
from importlib import import_module

from refmaml.cli import mpi
from refmaml.cli.options import KINDS, flag
from refmaml.cli.streams import prepare_streams
from refmaml.errors import ArgumentError, RefmamlError
from refmaml.kernels.kernel_set import MissingKernelError
from refmaml.log import log
from refmaml.version import __version__

# Modules of this package in the order of --help. Each has add(subparsers), which sets
# `func`: arguments -> exit status.
COMMANDS = (
    *("verify", "train", "evaluate", "reproduce", "demo", "bench"),
    *("doctor", "check", "golden", "learn", "curves", "posterior", "returns"),
)
SHARED = ("train", "evaluate")  # commands whose work several ranks can share
FAILED, BROKEN_PIPE = 2, 141  # a shell reports SIGPIPE as 141
# How NumPy's ValueErrors begin for an array that no memory could hold.
TOO_LARGE = ("Maximum allowed", "array is too big")
QUIET = "REFMAML_QUIET"  # set to 1: kernels compile without messages


class Parser(argparse.ArgumentParser):
    """argparse with ArgumentErrors, and without abbreviated options."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        raise ArgumentError(f"{message} ({self.prog} --help lists what there is)")


def parser(argv):
    """The parser of the command that argv begins with; of all commands if it names
    none.
    """
    top = Parser(
        prog="refmaml", description="A hand-written reference for gradient-based meta-learning."
    )
    top.add_argument("--version", action="version", version=f"refmaml {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in argv[:1] if argv[:1] and argv[0] in COMMANDS else COMMANDS:
        import_module(f"refmaml.cli.{name}").add(commands)
    return top


def main(argv=None):
    """Run one command, alone or as one of several ranks.

    Returns the exit status: 0, the status of the command, or 2 after an error.
    """
    prepare_streams()
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        ranks = mpi.detect_ranks()
    except ArgumentError as error:
        if mpi.env_int(mpi.RANK) == 0:  # one rank reports it for all
            log(f"refmaml: {error}")
        return FAILED
    with mpi.watched_ranks(ranks), mpi.silence_other_ranks(ranks):
        return mpi.finalize(ranks, run_command(argv, ranks))


def run_command(argv, ranks):
    """The exit status of a command. Errors are printed as one line."""
    try:
        with ranks.shared_errors():
            arguments = parser(argv).parse_args(argv)
            mpi.refuse_ranks(ranks, argv[0], SHARED)
        arguments.ranks = ranks
        with quiet_kernels(getattr(arguments, "quiet", False)):
            status = arguments.func(arguments)
        sys.stdout.flush()  # a write error is found here, not at exit
        return status or 0
    except (RefmamlError, MissingKernelError) as error:
        print_error(ranks, as_option(str(error)))
        return FAILED
    except MemoryError as error:
        return out_of_memory(error)
    except BrokenPipeError:
        discard_stdout()
        return BROKEN_PIPE
    except OSError as error:
        return io_failure(ranks, error)
    except KeyboardInterrupt as stop:
        log("; ".join(["refmaml: interrupted", *map(str, stop.args)]))
        return 128 + getattr(stop, "signum", signal.SIGINT)  # as a shell reports it
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(TOO_LARGE):
            return out_of_memory(error)
        if ranks.size > 1:  # above the traceback, which does not name the rank
            print_error(
                ranks,
                f"{type(error).__name__}: {error}; "
                "this ends the run, checkpoints stay as they were saved",
            )
        raise


@contextmanager
def quiet_kernels(quiet):
    """A block in which this process and its workers compile without messages."""
    before = os.environ.get(QUIET)
    if quiet:
        os.environ[QUIET] = "1"
    try:
        yield
    finally:
        if quiet and before is None:
            del os.environ[QUIET]
        elif quiet:
            os.environ[QUIET] = before


def io_failure(ranks, error):
    """Print an OSError that no other message covers (a full disk behind stdout); the
    status.
    """
    print_error(
        ranks,
        f"{error.filename or 'stdout'}: expected a place to read from or write to, "
        f"got {error.strerror or error}",
    )
    if error.filename is None:
        discard_stdout()
    return FAILED


def discard_stdout():
    """Send stdout to the null device, so that the flush at exit cannot fail too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def out_of_memory(error):
    """Print which allocation failed; the exit status."""
    log(f"refmaml: expected enough memory, got {(str(error) or 'none').splitlines()[0]}")
    return FAILED


def print_error(ranks, text):
    """Print a line to stderr: rank 0 where all ranks have the error, else the rank that
    has it.
    """
    if ranks.all_stop:
        log(f"refmaml: {text}")
    else:
        print(
            f"refmaml: rank {ranks.rank} of {ranks.size}: {text}", file=sys.__stderr__, flush=True
        )


def as_option(message):
    """An error about an argument, with the option's name: "inner_lr: ..." ->
    "--inner-lr: ...".
    """
    name, colon, rest = message.partition(":")
    return f"{flag(name)}{colon}{rest}" if name in KINDS else message
