"""`refmaml bench` on a CPU: every section, printed as it is measured, then written."""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from refmaml.cli import bench_tables as tables
from refmaml.cli import report
from refmaml.cli.bench_arguments import SECTIONS, available_peers, positive
from refmaml.errors import ArgumentError, expect
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
    about = machine_record() | {
        "kernel_set": arguments.kernels,
        "busy": arguments.busy,
        "absent": absent,
        "seconds": 0.0,
        "resumed": 0,
    }
    about, record = earlier(out, about) if arguments.resume else (about, {})
    tables.print_limits(about["limits"], absent)
    before = about["seconds"]

    def save():
        about["seconds"] = round(before + perf_counter() - started, 1)
        write_record(out, about, record)

    with TemporaryDirectory() as folder:
        options = comparison_options(arguments, seconds, folder)
        names = ["refmaml", "sgemm", *names]
        only, limits = arguments.only or SECTIONS, about["limits"]
        measure_sections(only, chosen, names, options, limits, record, save)
    save()
    draw(out, record)
    print(f"\n{out / 'bench.json'}, after {about['seconds']:.0f} s")
    return int(any_wrong(record))


def earlier(out, about):
    """(about, record) of the bench.json in a folder, or `about` alone without one.

    A run that is stopped before its first workload ends has written none.
    Raises ArgumentError unless its versions, machine and settings are those of `about`.
    """
    from refmaml.bench.record import SCHEMA, to_json
    from refmaml.training.files import read_json

    path = out / "bench.json"
    if not path.exists():
        return about, {}
    found = read_json(path, "a record of refmaml bench")
    # Of the limits, their keys: numbers differ from run to run.
    fixed = {name: about[name] for name in about if name not in ("limits", "seconds", "resumed")}
    same = isinstance(found, dict) and {"schema": SCHEMA, **to_json(fixed)}.items() <= found.items()
    expect(same, "--resume", f"the versions, machine and settings of {path}", "others")
    record = {name: found.pop(name) for name in SECTIONS if name in found}
    limits = {
        name: {int(threads): rate for threads, rate in rates.items()}
        for name, rates in found["limits"].items()
    }
    return about | found | {"limits": limits, "resumed": found["resumed"] + 1}, record


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


def write_record(out, about, record):
    """bench.json, with what has been measured so far."""
    from refmaml.bench.record import SCHEMA, to_json
    from refmaml.training.files import write_json

    write_json(out / "bench.json", {"schema": SCHEMA, **to_json(about), **record})


def draw(out, record):
    """bench.png, if meta-gradients were compared."""
    if "meta" in record:
        from refmaml.bench.picture import write_picture

        write_picture(out / "bench.png", record["meta"])


def any_wrong(record):
    """Whether a gradient was refused, or a kernel's error exceeds its tolerance."""
    refused = any(r["refused"] for entry in record.get("meta", ()) for r in entry["results"])
    rows = record.get("kernels", ())
    return refused or any(tables.exceeds(row["error"], row["tolerance"]) for row in rows)


# ---- sections ----


def measure_sections(only, chosen, names, options, limits, record, save):
    """Fills record, {section: its record}, with what it does not have yet.

    Each result is printed as soon as it is measured. save() is called after each
    section, and after each workload of the comparison.
    """
    from refmaml.bench.comparison import compare
    from refmaml.bench.record import to_json, workload_record

    few = [w for w in chosen if w.name in STANDALONE] or chosen[:1]
    sections = {
        "kernels": lambda: [to_json(row) for row in kernel_rows(options.kernels, limits)],
        "ourselves": lambda: to_json(standalone(few, options)),
        "startup": lambda: to_json(first_calls(chosen[0], options)),
    }
    if "meta" in only:
        entries = record.setdefault("meta", [])
        known = {entry["workload"] for entry in entries}
        for workload in (w for w in chosen if w.name not in known):
            entries.append(workload_record(workload, compare(workload, names, options)))
            tables.print_comparison(entries[-1])
            save()
    for name, measured in sections.items():
        if name in only and name not in record:
            record[name] = measured()
            save()


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
