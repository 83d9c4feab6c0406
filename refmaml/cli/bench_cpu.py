"""`refmaml bench` on a CPU: every section, printed as it is measured, then written."""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from refmaml.cli import bench_tables as tables
from refmaml.cli import report
from refmaml.cli.bench_arguments import SECTIONS, available_peers, positive
from refmaml.errors import ArgumentError
from refmaml.log import log

# Threads, bits, products and memory are measured on these workloads, if they are
# chosen.
STANDALONE = ("strided-1", "max-pool-1")


def run_on_cpu(arguments):
    """Measure, print, write; returns 1 if a gradient or a kernel is wrong, else 0."""
    from refmaml.bench import workloads
    from refmaml.training.files import make_folder

    seconds = positive("--seconds", arguments.seconds)
    chosen = workloads.by_name(arguments.workloads or workloads.DEFAULT)
    names, absent = available_peers(arguments.peers, arguments.kernels)
    require_threadpoolctl()
    out, started = make_folder(arguments.out), perf_counter()
    about = machine_record()
    tables.print_limits(about["limits"], absent)
    with TemporaryDirectory() as folder:
        options = comparison_options(arguments, seconds, folder)
        record = measure_sections(
            arguments.only or SECTIONS,
            chosen,
            ["refmaml", "sgemm", *names],
            options,
            about["limits"],
        )
    about |= {
        "kernel_set": arguments.kernels,
        "busy": arguments.busy,
        "absent": absent,
        "seconds": round(perf_counter() - started, 1),
    }
    write(out, about, record)
    print(f"\n{out / 'bench.json'}, after {about['seconds']:.0f} s")
    return int(any_wrong(record))


def require_threadpoolctl():
    """Raise ArgumentError unless threadpoolctl is installed: it sets BLAS threads."""
    try:
        import threadpoolctl  # noqa: F401 (only whether it can be imported)
    except ImportError:
        raise ArgumentError(
            "threadpoolctl: expected it to be installed (pip install 'refmaml[bench]'), "
            "got nothing of that name"
        ) from None


def machine_record():
    """{"versions", "machine", "limits"}."""
    from refmaml.bench import machine

    about = report.circumstances()
    about["versions"] |= machine.versions()
    about["limits"] = machine.limits(about["machine"]["cores"])
    return about


def comparison_options(arguments, seconds, folder):
    """The Options of the comparison.

    JAX keeps compiled code on disk, as Numba does, and computes on the CPU even if
    there is a GPU.
    """
    from refmaml.bench.comparison import Options

    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    return Options(
        arguments.kernels,
        seconds,
        tune=seconds,
        busy=arguments.busy,
        environment=tuple(environment.items()),
        log=log,
    )


def write(out, about, record):
    """bench.json, and bench.png if meta-gradients were compared."""
    from refmaml.bench.record import SCHEMA
    from refmaml.training.files import write_json

    write_json(out / "bench.json", {"schema": SCHEMA, **about, **record})
    if "meta" in record:
        from refmaml.bench.picture import write_picture

        write_picture(out / "bench.png", record["meta"])


def any_wrong(record):
    """Whether a gradient was refused, or a kernel's error exceeds its tolerance."""
    refused = any(r["refused"] for entry in record.get("meta", ()) for r in entry["results"])
    rows = record.get("kernels", ())
    return refused or any(tables.exceeds(row["error"], row["tolerance"]) for row in rows)


# ---- sections ----


def measure_sections(only, chosen, names, options, limits):
    """{section: its record}; each result is printed as soon as it is measured."""
    from refmaml.bench.comparison import compare
    from refmaml.bench.record import to_json, workload_record

    record = {}
    if "kernels" in only:
        record["kernels"] = [to_json(row) for row in kernel_rows(options.kernels, limits)]
    if "meta" in only:
        record["meta"] = []
        for workload in chosen:
            record["meta"].append(workload_record(workload, compare(workload, names, options)))
            tables.print_comparison(record["meta"][-1])
    if "ourselves" in only:
        few = [w for w in chosen if w.name in STANDALONE] or chosen[:1]
        record["ourselves"] = to_json(standalone(few, options))
    if "startup" in only:
        record["startup"] = to_json(first_calls(chosen[0], options))
    return record


def kernel_rows(kernels, limits):
    """Yields the rows of the kernel table, each printed."""
    from refmaml.bench.implementations.refmaml_kernels import kernel_set_by_name
    from refmaml.bench.kernel_table import BYTE, FLOP, kernel_table

    most = max(limits["sgemm"])
    rates = {FLOP: limits["sgemm"][most], BYTE: limits["copy"][most]}
    tables.print_kernel_header()
    for row in kernel_table(kernel_set_by_name(kernels), rates):
        tables.print_kernel(row)
        yield row


def standalone(chosen, options):
    """Measurements of refmaml alone on some workloads."""
    from refmaml.bench import standalone

    record = {"imaml": standalone.imaml_passes(), "workloads": {}}
    print(f"\niMAML, {standalone.CG_STEPS} iterations: {record['imaml']}")
    for workload in chosen:
        entry = {
            "threads": standalone.thread_scaling(workload, options, sorted({1, report.cores()})),
            "bits": standalone.gradient_digests(workload, options),
            "product": standalone.product_over_gradient(workload, options),
            "memory": standalone.memory_over_tasks(workload, options),
        }
        record["workloads"][workload.name] = entry
        tables.print_standalone(workload.name, entry)
    return record


def first_calls(workload, options):
    """Start-up costs, printed."""
    from refmaml.bench.startup import startup

    record = startup(workload, options.kernels)
    print(
        f"\nimport refmaml {record['import'].median:.2f} s; "
        f"the first {workload.name}: {record['cold']:.1f} s with Numba's cache empty, "
        f"{record['warm'].median:.2f} s with it filled"
    )
    return record
