"""The tables that `refmaml bench` prints."""

import sys


def exceeds(error, tolerance):
    """Whether a kernel's error exceeds its tolerance, if it has one."""
    return tolerance is not None and not error <= tolerance


def megabytes(count):
    return "-" if count is None else f"{count / 1e6:.0f} MB"


def print_limits(limits, absent):
    """The machine's limits, and the peers that are absent."""
    for name, unit in (("sgemm", "Gflop/s"), ("dgemm", "Gflop/s"), ("copy", "Gbyte/s")):
        rates = (
            f"{value:.1f} {unit} on {n} thread{'s' * (n > 1)}" for n, value in limits[name].items()
        )
        print(f"{name:<6}", ", ".join(rates))
    for name, reason in absent.items():
        print(f"without {name}: {reason}")


# ---- kernels ----


def print_kernel_header():
    print(
        f"\n{'net':<12} {'kernel':<25} {'largest array':<20} {'ms':>9} {'10^9/s':>8} {'':4} "
        f"{'of limit':>8} {'error':>8} {'within':>8}"
    )


def print_kernel(row):
    """A line of the kernel table."""
    tolerance = "" if row.tolerance is None else f"{row.tolerance:8.0e}"
    print(
        f"{row.net:<12} {row.kernel:<25} {row.shape:<20} {1e3 * row.seconds.median:9.3f} "
        f"{row.rate:8.1f} {row.unit:<4} {row.fraction:8.0%} {row.error:8.0e} {tolerance}"
        + "  WRONG"
        * exceeds(row.error, row.tolerance),
        flush=True,
    )


# ---- refmaml alone ----


def print_standalone(name, entry):
    """The lines of one workload."""
    from refmaml.bench.standalone import DIGEST_RUNS, DIGEST_THREADS

    times, product = entry["threads"], entry["product"]
    most = max(times)
    same = len({digest for digests in entry["bits"].values() for digest in digests}) == 1
    print(
        f"{name}: {most} threads over 1: {times[1].median / times[most].median:.2f}; "
        f"the same bits for {', '.join(map(str, DIGEST_THREADS))} threads and over "
        f"{DIGEST_RUNS} runs: {'yes' if same else 'NO'}"
    )
    peaks = ", ".join(f"{n} tasks {megabytes(peak)}" for n, peak in entry["memory"].items())
    ratio = product["hvp"].median / product["gradient"].median
    print(f"{name}: product over gradient: {ratio:.2f}; memory: {peaks}", flush=True)


# ---- meta-gradients beside other libraries ----


def print_comparison(entry):
    """The table of one workload."""
    title = f"{entry['workload']}: {entry['title']}, {entry['tasks']} tasks"
    print(f"\n{title}, {entry['gflop']:.3g} Gflop")
    for result in entry["results"]:
        print_result(result)
    if entry["over_the_fastest_peer"]:
        ratio = f"{entry['over_the_fastest_peer']:.2f} times as fast as the fastest peer"
        share = entry.get("of_sgemm")
        print(f"  refmaml is {ratio}" + (f", and at {share:.0%} of sgemm's rate" if share else ""))
    sys.stdout.flush()


def print_result(result):
    """One implementation: times, rate, memory, settings, or why it was refused."""
    if result["refused"]:
        print(f"  {result['name']:<20} refused: {result['refused']}")
        return
    s = result["seconds"]
    print(
        f"  {result['name']:<20} {1e3 * s['median']:9.2f} ms  "
        f"({1e3 * s['low']:.2f} to {1e3 * s['high']:.2f}, {s['count']} times) "
        f"{result['gflops']:8.2f} Gflop/s  {megabytes(result['peak']):>8}  {settings(result)}"
    )


def settings(result):
    """The settings of a result as text."""
    wait = {"OMP_WAIT_POLICY": result["wait"]} if result["wait"] else {}
    return ", ".join(f"{name} {value}" for name, value in (result["settings"] | wait).items())
