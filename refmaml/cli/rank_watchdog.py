"""A small process on each machine that outlives its ranks for a moment, to say which of them was killed.

A rank that is killed can say nothing, and mpiexec kills all others within a tenth of a second. So each rank holds a connection to the
watcher as long as it lives, and says a word before it ends by itself, for whatever reason; it tells the reason too. A connection that
breaks without the word was that of a rank that was killed, or crashed. The system closes it, whatever became of the rank.

Run as a script it is the watcher, which needs nothing but the standard library.
"""

import select
import socket
import sys

WORD = b"."
PATIENCE = 60  # seconds in which all ranks have to come


def watch(server, count):
    """What to say about the first of `count` connections that breaks without a word; None where one says it before, or not all come."""
    server.settimeout(PATIENCE)
    ranks = {}
    for _ in range(count):
        try:
            connection, _ = server.accept()
        except TimeoutError:
            return None
        ranks[connection], _, word = connection.recv(1024).partition(b"\n")
        if word:
            return None
    ready = select.select(list(ranks), [], [])[0]
    broken = [ranks[connection].decode() for connection in ready if connection.recv(1) != WORD]
    if not broken:
        return None
    return f"refmaml: {' and '.join(broken)} was killed, or crashed; this ends the run, checkpoints stay as they were saved"


if __name__ == "__main__":
    said = watch(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    if said:
        print(said, file=sys.stderr, flush=True)
