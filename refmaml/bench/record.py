"""Measurements as JSON."""

from refmaml.bench.implementations.sgemm import GFLOP
from refmaml.bench.timing import Spread

SCHEMA = 1


def to_json(value):
    """Named tuples become objects, other tuples and sets lists, keys text."""
    if hasattr(value, "_asdict"):
        return to_json(value.record() if hasattr(value, "record") else value._asdict())
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_json(v) for v in value]
    return value


def rate(gflop, seconds):
    """10^9 operations a second at the median; None without timings."""
    return gflop / seconds.median if isinstance(seconds, Spread) else None


def is_refmaml(result):
    return result.name.startswith("refmaml")


def workload_record(workload, results, roof=None):
    """One workload and its results, with rates and ratios.

    roof  10^9 operations a second to compare with where there is no result of sgemm

    "of_sgemm" or "of_roof" is refmaml's part of that rate. "times_as_fast_as" has each
    peer of equal precision: its median over refmaml's. refmaml is its fastest result.
    """
    sgemm = next((r for r in results if r.name == "sgemm"), None)
    own = [r.seconds for r in results if is_refmaml(r) and r.seconds]
    fastest = min(own, key=lambda seconds: seconds.median, default=None)
    mine = fastest.median if fastest else None
    limit = rate(GFLOP, sgemm.seconds) if sgemm else roof
    timed = [r for r in results if r.seconds and r.exact is not None]
    peers = {r.name: r.seconds.median for r in timed if not is_refmaml(r) and not r.reduced}
    share = rate(workload.gflop, fastest) / limit if mine and limit else None
    return {
        "workload": workload.name,
        "title": workload.title,
        "tasks": workload.tasks,
        "support": workload.support,
        "query": workload.query,
        "inner_steps": workload.inner_steps,
        "gflop": workload.gflop,
        "sgemm_gflops" if sgemm else "roof_gflops": limit,
        "of_sgemm" if sgemm else "of_roof": share,
        "times_as_fast_as": {name: t / mine for name, t in peers.items()} if mine else {},
        "over_the_fastest_peer": min(peers.values()) / mine if mine and peers else None,
        "results": [
            to_json(r)
            | {"gflops": rate(workload.gflop if r.exact is not None else GFLOP, r.seconds)}
            for r in results
        ],
    }
