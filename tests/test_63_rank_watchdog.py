"""The watchdog of MPI ranks names the rank that ended first, however late it looks."""

import select
import socket
from itertools import permutations

import pytest

from refmaml.cli.rank_watchdog import NORMAL_END, FirstReady, report

pytestmark = pytest.mark.skipif(
    not hasattr(select, "epoll"), reason="the order of ends is known to Linux's epoll only"
)


@pytest.fixture
def ranks():
    """([the ranks' ends of three connections], {the watchdog's end: name})."""
    pairs = [socket.socketpair() for _ in range(3)]
    yield [rank for rank, _ in pairs], {end: f"rank {i} of 3" for i, (_, end) in enumerate(pairs)}
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_rank_that_was_killed_first_is_named_alone(ranks, order):
    """mpiexec kills the others before the watchdog gets processor time."""
    ends, names = ranks
    first_ready = FirstReady(names)
    for rank in order:
        ends[rank].close()
    line = report(names, first_ready)
    assert line.startswith(f"refmaml: rank {order[0]} of 3 was killed, or crashed; ")
    assert line.count("rank ") == 1


@pytest.mark.parametrize("rank", range(3))
def test_nothing_is_reported_if_a_rank_ended_before_the_others_were_killed(ranks, rank):
    ends, names = ranks
    first_ready = FirstReady(names)
    ends[rank].sendall(NORMAL_END)
    for end in (ends[rank], *ends):
        end.close()
    assert report(names, first_ready) is None
