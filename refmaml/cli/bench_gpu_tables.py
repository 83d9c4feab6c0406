"""The tables that `refmaml bench --kernels cuda` prints."""

from refmaml.cli.bench_tables import exceeds


def print_limits(limits, absent):
    """The device's limits, and the peers that are absent."""
    for name, roof in limits.items():
        unit = "Gbyte/s" if name == "copy" else "Gflop/s"
        nominal = f", nominal {roof.nominal:,.0f}" if roof.nominal else ""
        print(f"{name:<8} {roof.rate:10,.0f} {unit}{nominal}")
    for name, reason in absent.items():
        print(f"without {name}: {reason}")


# ---- kernels ----


def print_kernel_header():
    print(
        f"\n{'net':<18} {'kernel':<26} {'precision':<9} {'us':>10} {'Gflop/s':>9} {'Gbyte/s':>8} "
        f"{'of roof':>8}  {'error':>7} {'within':>7}   (* the roof of arithmetic, else of memory)"
    )


def print_kernel(row):
    """A line of the kernel table: a KernelRow or a Failed."""
    kernel = row.kernel + (f" v{row.version}" if row.version else "")
    start = f"{row.net:<18} {kernel:<26} {row.dtype:<9}"
    if hasattr(row, "reason"):
        print(f"{start} FAILED: {row.reason}", flush=True)
        return
    print(
        f"{start} {1e6 * row.timing.seconds.median:10.1f} {row.gflops:9.0f} {row.gbytes:8.0f} "
        f"{row.fraction:7.0%}{'*' if row.bound == 'flop' else ' '}  "
        f"{row.error:7.0e} {row.tolerance:7.0e}"
        + "  TASKS DIFFER" * (not row.same)
        + "  WRONG" * exceeds(row.error, row.tolerance),
        flush=True,
    )


def print_library(row):
    """cuDNN's line."""
    precision = "tf32" if row.reduced else "float32"
    start = f"{row.net:<18} cuDNN {row.kernel:<20} {precision:<9}"
    if row.refused:
        print(f"{start} refused: {row.refused}", flush=True)
        return
    microseconds = 1e6 * row.timing.seconds.median
    print(f"{start} {microseconds:10.1f} {'':28}{row.error:7.0e}", flush=True)


# ---- refmaml alone ----


def print_standalone(entry):
    """The line of one workload."""
    if "refused" in entry:
        print(f"{entry['workload']}: FAILED: {entry['refused']}", flush=True)
        return
    steps = {name: step for name in ("eager", "graph") if (step := entry[name])}
    times = ", ".join(f"{name} {1e3 * s['wall']['median']:.3g} ms" for name, s in steps.items())
    ratio, error = entry["product_over_gradient"], entry["exact"]
    print(
        f"{entry['workload']}: {times}; {launching(entry)}; product over gradient {ratio:.2f}; "
        f"float64 is {error:.0e} off",
        flush=True,
    )


def launching(entry):
    """The part of a step that launching takes, or why it could not be measured."""
    if not entry["launching"]:
        return f"no graph: {entry['graph_refused']}"
    shares = (f"{share:.0%} {name}" for name, share in entry["launching"].items())
    return f"launching takes {', '.join(shares)}"
