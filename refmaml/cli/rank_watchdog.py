"""A small process on each machine that outlives its ranks, to report which one was
killed.

A rank that is killed cannot report anything, and mpiexec kills all others within a
tenth of a second. So each rank holds a connection to the watchdog as long as it lives,
and sends NORMAL_END before it ends by itself, for whatever reason; it reports that
reason itself. A connection that breaks without NORMAL_END belonged to a rank that was
killed or crashed: the operating system closes it in any case.

Which rank ended first must not depend on when the watchdog gets processor time. Linux's
epoll queues connections in the order in which they become ready, so the first in the
queue is the cause, and the others are its consequences.

Run as a script, this file is the watchdog. It needs only the standard library.
"""

import select
import socket
import sys

NORMAL_END = b"."
PATIENCE = 60  # seconds in which all ranks have to connect


def accept_ranks(server, count):
    """{connection: name of its rank} of `count` ranks.

    None where one has ended already, or not all connect within PATIENCE.
    """
    server.settimeout(PATIENCE)
    ranks = {}
    for _ in range(count):
        try:
            connection, _ = server.accept()
        except TimeoutError:
            return None
        name, _, rest = connection.recv(1024).partition(b"\n")
        if rest:
            return None
        ranks[connection] = name.decode()
    return ranks


class FirstReady:
    """The first connection that becomes readable, however late it is called."""

    def __init__(self, connections):
        self.by_descriptor = {connection.fileno(): connection for connection in connections}
        self.poll = select.epoll() if hasattr(select, "epoll") else select.poll()
        for descriptor in self.by_descriptor:
            self.poll.register(descriptor, select.POLLIN)

    def __call__(self):
        """Wait, and return the connection."""
        # One event at a time: the first in the queue. (select.poll returns all,
        # unordered.)
        limit = {"maxevents": 1} if hasattr(select, "epoll") else {}
        return self.by_descriptor[self.poll.poll(**limit)[0][0]]


def report(ranks, first_ready):
    """A line about the first rank that ends; None where it ends with NORMAL_END."""
    connection = first_ready()
    try:
        if connection.recv(1) == NORMAL_END:
            return None
    except ConnectionResetError:
        pass
    return (
        f"refmaml: {ranks[connection]} was killed, or crashed; "
        "this ends the run, checkpoints stay as they were saved"
    )


def watch(server, count):
    """The line to print about `count` ranks that connect to `server`, or None."""
    ranks = accept_ranks(server, count)
    return ranks and report(ranks, FirstReady(ranks))


if __name__ == "__main__":
    line = watch(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    if line:
        print(line, file=sys.stderr, flush=True)
