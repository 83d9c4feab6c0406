"""What the bench measured, as JSON can hold it."""
from refmaml.bench.contestants.sgemm import GFLOP
from refmaml.bench.timing import Spread

SCHEMA = 1


def plain(value):
    """Named tuples as objects, other tuples and sets as lists, keys as text."""
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    return value


def rate(gflop, seconds):
    """10^9 operations a second at the median, None where nothing was timed."""
    return gflop / seconds.median if isinstance(seconds, Spread) else None


def meta_record(workload, results):
    """One workload: each result with its rate; what part of sgemm's rate refmaml reaches, and how many times it is as fast as each peer."""
    by_name = {r.name: r for r in results}
    sgemm, ours = by_name.get("sgemm"), by_name.get("refmaml")
    top = rate(GFLOP, sgemm.seconds) if sgemm else None
    peers = {r.name: r.seconds.median for r in results if r.seconds and r.exact is not None and r is not ours}
    mine = ours.seconds.median if ours and ours.seconds else None
    return {"workload": workload.name, "title": workload.title, "tasks": workload.tasks, "support": workload.support,
            "query": workload.query, "inner_steps": workload.inner_steps, "gflop": workload.gflop, "sgemm_gflops": top,
            "of_sgemm": rate(workload.gflop, ours.seconds) / top if mine and top else None,
            "times_as_fast_as": {name: seconds / mine for name, seconds in peers.items()} if mine else {},
            "over_the_fastest_peer": min(peers.values()) / mine if mine and peers else None,
            "results": [plain(r) | {"gflops": rate(workload.gflop if r.exact is not None else GFLOP, r.seconds)} for r in results]}
