"""What the bench measured, as JSON can hold it."""

from refmaml.bench.contestants.sgemm import GFLOP
from refmaml.bench.timing import Spread

SCHEMA = 1


def plain(value):
    """Named tuples as objects, other tuples and sets as lists, keys as text."""
    if hasattr(value, "_asdict"):
        return plain(value.record() if hasattr(value, "record") else value._asdict())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    return value


def rate(gflop, seconds):
    """10^9 operations a second at the median, None where nothing was timed."""
    return gflop / seconds.median if isinstance(seconds, Spread) else None


def meta_record(workload, results, roof=None):
    """One workload: each result with its rate; what part of sgemm's rate, or of `roof` (10^9 operations a second), refmaml reaches, and how
    many times it is as fast as each peer of equal precision. Refmaml is its fastest result."""
    sgemm = next((r for r in results if r.name == "sgemm"), None)
    ours = min(
        (r for r in results if r.name.startswith("refmaml") and r.seconds),
        key=lambda r: r.seconds.median,
        default=None,
    )
    top = rate(GFLOP, sgemm.seconds) if sgemm else roof
    peers = {
        r.name: r.seconds.median
        for r in results
        if r.seconds and r.exact is not None and not r.name.startswith("refmaml") and not r.reduced
    }
    mine = ours.seconds.median if ours else None
    return {
        "workload": workload.name,
        "title": workload.title,
        "tasks": workload.tasks,
        "support": workload.support,
        "query": workload.query,
        "inner_steps": workload.inner_steps,
        "gflop": workload.gflop,
        "sgemm_gflops" if sgemm else "roof_gflops": top,
        "of_sgemm" if sgemm else "of_roof": rate(workload.gflop, ours.seconds) / top
        if mine and top
        else None,
        "times_as_fast_as": {name: seconds / mine for name, seconds in peers.items()}
        if mine
        else {},
        "over_the_fastest_peer": min(peers.values()) / mine if mine and peers else None,
        "results": [
            plain(r) | {"gflops": rate(workload.gflop if r.exact is not None else GFLOP, r.seconds)}
            for r in results
        ],
    }
