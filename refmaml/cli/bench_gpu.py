"""`refmaml bench --kernels cuda`: kernels beside the GPU's own limits and cuDNN, meta-gradients beside PyTorch and JAX on that GPU."""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from refmaml.cli import report
from refmaml.cli.bench import contestants, positive, show_race, wrong
from refmaml.errors import ArgumentError, expect
from refmaml.log import log

SECTIONS = (
    "kernels",
    "ourselves",
    "meta",
)  # in this order: what needs nothing but refmaml comes first
LIBRARIES = (
    "numpy",
    "scipy",
    "torch",
    "triton",
    "jax",
    "jaxlib",
    "jax-cuda13-plugin",
    "nvidia-cudnn-cu13",
    "nvidia-cublas",
)
OURS = ("refmaml", "refmaml-graph")
NO_ANSWER = "expected an answer within"  # in the words of who was refused


class Record:
    """What was measured so far, in a file."""

    def __init__(self, path, about):
        self.path, self.value, self.file = path, dict(about), report.PeriodicFile(self.write)

    def add(self, section, entry, now=False):
        self.value.setdefault(section, []).append(entry)
        self.file.changed(now)

    def write(self):
        from refmaml.training.files import write_json

        write_json(self.path, self.value)


def run_on_gpu(arguments, gpu=None):
    """Measure, print, write; returns 1 if a kernel or a gradient of refmaml was wrong, else 0. gpu: a stand-in, in tests."""
    from refmaml.bench import workloads
    from refmaml.bench.gpu.roofs import roofs
    from refmaml.bench.record import SCHEMA, plain
    from refmaml.training.files import make_folder

    only = arguments.only or SECTIONS
    expect(
        set(only) <= set(SECTIONS),
        "--only",
        f"some of {', '.join(SECTIONS)} with --kernels cuda",
        " ".join(only),
    )
    seconds, limit = positive("--seconds", arguments.seconds), positive("--limit", arguments.limit)
    chosen = workloads.named(arguments.workloads or workloads.DEFAULT)
    peers, absent = contestants(arguments.peers, "cuda")
    gpu, started = gpu or open_gpu(), perf_counter()
    about = {"schema": SCHEMA, **about_device(gpu), "kernel_set": "cuda", "absent": absent}
    record = Record(make_folder(arguments.out) / "bench.json", about)
    limits = roofs(gpu)
    record.value |= {"limits": plain(limits), "device_after_limits": gpu.about()}
    show_limits(limits, absent)
    with TemporaryDirectory() as folder:
        options = settings(seconds, folder)
        right = [
            measure(gpu, limits, chosen, peers, options, limit, record)
            for name, measure in (("kernels", kernels), ("ourselves", ourselves), ("meta", meta))
            if name in only
        ]
    record.value["seconds"] = round(perf_counter() - started, 1)
    record.write()
    print(f"\n{record.path}, after {record.value['seconds']:.0f} s")
    return int(not all(right))


def about_device(gpu):
    """{"versions", "machine", "device"}: what is measured, and with what."""
    from refmaml.bench.machine import installed

    about = report.circumstances()
    about["versions"] |= installed(LIBRARIES)
    return {**about, "device": gpu.about()}


def open_gpu():
    """The GPU. Raises ArgumentError in the words of the other commands."""
    from refmaml.bench.gpu.device import Gpu

    try:
        return Gpu()
    except (ImportError, RuntimeError) as error:
        raise ArgumentError(f"kernels: {error}") from None


def settings(seconds, folder):
    """The Options of the race. JAX takes memory as it needs it, as others want some too, and keeps what it compiles for a while."""
    from refmaml.bench.race import Options

    environment = {
        "JAX_PLATFORMS": "cuda",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "jax"),
    }
    return Options(
        "cuda", seconds, tune=10 * seconds, environment=tuple(environment.items()), tell=log
    )


# ---- the sections: each returns whether refmaml was right --------------------------------------------------------


def kernels(gpu, limits, chosen, peers, options, limit, record):
    """Every version of every kernel, then cuDNN on the same convolutions."""
    from refmaml.bench.gpu.grouped import library_rows
    from refmaml.bench.gpu.kernel_rows import kernel_rows, nets_on_gpu, recorded
    from refmaml.bench.record import plain

    options.tell("recording the calls of the nets")
    calls, right = recorded(nets_on_gpu()), True
    print(
        f"\n{'net':<18} {'kernel':<26} {'precision':<9} {'us':>10} {'Gflop/s':>9} {'Gbyte/s':>8} {'of roof':>8}  {'error':>7} "
        f"{'within':>7}   (* the roof of arithmetic, else of memory)"
    )
    for row in kernel_rows(gpu, limits, calls):
        record.add("kernels", plain(row) | {"right": row.right})
        right = right and row.right
        show_kernel(row)
    if any(name.startswith("torch") for name in peers):
        for row in library_rows(calls, gpu.l2, limit, options.environment):
            record.add("library", plain(row))
            show_library(row)
    record.write()
    return right


def ourselves(gpu, limits, chosen, peers, options, limit, record):
    """Refmaml alone: launching, products over gradients, float64."""
    from refmaml.bench.gpu.kernel_rows import said
    from refmaml.bench.gpu.race import OURS_EXACT
    from refmaml.bench.gpu.whole import whole
    from refmaml.bench.record import plain

    right = True
    for workload in chosen:
        try:
            part = plain(whole(gpu, workload))
        except (
            Exception
        ) as error:  # a driver's, a compiler's, the memory's: the others are still to be measured
            part = {"workload": workload.name, "refused": said(error)}
        record.add("ourselves", part, now=True)
        right = right and "refused" not in part and part["exact"] <= OURS_EXACT
        show_whole(part)
    return right


def meta(gpu, limits, chosen, peers, options, limit, record):
    """Whole meta-gradients beside other libraries."""
    from refmaml.bench.gpu.race import gpu_race
    from refmaml.bench.record import meta_record
    from refmaml.bench.worker import Worker

    gpu.release()

    def sit(name):
        return Worker(name, "cuda", options.environment, limit)

    right = True
    for workload in chosen:
        results = gpu_race(workload, [*OURS, *peers], options, sit)
        record.add("meta", meta_record(workload, results, limits["float32"].rate), now=True)
        show_race(record.value["meta"][-1])
        right = right and not any(r.refused for r in results if r.name in OURS)
        slow = {r.name for r in results if r.refused and NO_ANSWER in r.refused}
        peers = [
            name for name in peers if name not in slow
        ]  # who took too long once is not waited for again
    return right


# ---- tables ------------------------------------------------------------------------------------------------------


def show_limits(limits, absent):
    """What the device can do, and who is not here."""
    for name, roof in limits.items():
        unit = "Gbyte/s" if name == "copy" else "Gflop/s"
        print(
            f"{name:<8} {roof.rate:10,.0f} {unit}"
            + (f", nominal {roof.nominal:,.0f}" if roof.nominal else "")
        )
    for name, reason in absent.items():
        print(f"without {name}: {reason}")


def name_of(row):
    return row.kernel + (f" v{row.version}" if row.version else "")


def show_kernel(row):
    """A line of the table."""
    if hasattr(row, "reason"):
        print(f"{row.net:<18} {name_of(row):<26} {row.dtype:<9} FAILED: {row.reason}", flush=True)
        return
    print(
        f"{row.net:<18} {name_of(row):<26} {row.dtype:<9} {1e6 * row.timing.seconds.median:10.1f} {row.gflops:9.0f} {row.gbytes:8.0f} "
        f"{row.fraction:7.0%}{'*' if row.bound == 'flop' else ' '}  {row.error:7.0e} {row.tolerance:7.0e}"
        + "  TASKS DIFFER" * (not row.same)
        + "  WRONG" * wrong(row.error, row.tolerance),
        flush=True,
    )


def show_library(row):
    """cuDNN's line."""
    precision = "tf32" if row.reduced else "float32"
    if row.refused:
        print(
            f"{row.net:<18} cuDNN {row.kernel:<20} {precision:<9} refused: {row.refused}",
            flush=True,
        )
    else:
        print(
            f"{row.net:<18} cuDNN {row.kernel:<20} {precision:<9} {1e6 * row.timing.seconds.median:10.1f} {'':28}{row.error:7.0e}",
            flush=True,
        )


def show_whole(part):
    """Lines of one workload."""
    if "refused" in part:
        print(f"{part['workload']}: FAILED: {part['refused']}", flush=True)
        return
    ms = {name: 1e3 * step["wall"]["median"] for name in ("eager", "graph") if (step := part[name])}
    print(
        f"{part['workload']}: "
        + ", ".join(f"{name} {value:.3g} ms" for name, value in ms.items())
        + (
            f"; launching takes {', '.join(f'{share:.0%} {name}' for name, share in part['launching'].items())}"
            if part["launching"]
            else f"; no graph: {part['graph_refused']}"
        )
        + f"; product over gradient {part['product_over_gradient']:.2f}; float64 is {part['exact']:.0e} off",
        flush=True,
    )
