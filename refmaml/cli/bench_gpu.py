"""`refmaml bench --kernels cuda`: measurements on a GPU.

Kernels beside the GPU's own limits and cuDNN; refmaml alone; meta-gradients beside
PyTorch and JAX on that GPU.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from refmaml.cli import bench_gpu_tables as tables
from refmaml.cli import report
from refmaml.cli.bench_arguments import available_peers, positive
from refmaml.cli.bench_tables import print_comparison
from refmaml.errors import expect
from refmaml.log import log

# In this order: those without peers come first.
SECTIONS = ("kernels", "ourselves", "meta")
REFMAML = ("refmaml", "refmaml-graph")
# Part of the error of a peer that took too long.
NO_ANSWER = "expected an answer within"


class Record:
    """The measurements so far, in a file that is rewritten as they grow."""

    def __init__(self, path, about):
        self.path, self.value, self.file = path, dict(about), report.PeriodicFile(self.write)

    def add(self, section, entry, now=False):
        """Append to a section. now: write the file at once."""
        self.value.setdefault(section, []).append(entry)
        self.file.changed(now)

    def write(self):
        from refmaml.training.files import write_json

        write_json(self.path, self.value)


def run_on_gpu(arguments, gpu=None):
    """Measure, print, write; returns 1 if refmaml is wrong anywhere, else 0.

    gpu  a stand-in, in tests
    """
    from refmaml.bench import workloads
    from refmaml.bench.gpu.device import open_gpu

    only = arguments.only or SECTIONS
    allowed = f"some of {', '.join(SECTIONS)} with --kernels cuda"
    expect(set(only) <= set(SECTIONS), "--only", allowed, " ".join(only))
    seconds, limit = positive("--seconds", arguments.seconds), positive("--limit", arguments.limit)
    chosen = workloads.by_name(arguments.workloads or workloads.DEFAULT_ON_GPU)
    peers, absent = available_peers(arguments.peers, "cuda")
    gpu, started = gpu or open_gpu(), perf_counter()
    record, limits = start_record(gpu, arguments.out, absent)
    sections = {"kernels": kernels, "ourselves": standalone, "meta": meta}
    with TemporaryDirectory() as folder:
        options = comparison_options(seconds, folder)
        right = [
            measure(gpu, limits, chosen, peers, options, limit, record)
            for name, measure in sections.items()
            if name in only
        ]
    record.value["seconds"] = round(perf_counter() - started, 1)
    record.write()
    print(f"\n{record.path}, after {record.value['seconds']:.0f} s")
    return int(not all(right))


def start_record(gpu, out, absent):
    """(the Record with the device and its limits, the limits), printed."""
    from refmaml.bench.gpu.device_info import device_info
    from refmaml.bench.gpu.roofs import roofs
    from refmaml.bench.record import SCHEMA, to_json
    from refmaml.training.files import make_folder

    about = {"schema": SCHEMA, **device_info(gpu), "kernel_set": "cuda", "absent": absent}
    record, limits = Record(make_folder(out) / "bench.json", about), roofs(gpu)
    record.value |= {"limits": to_json(limits), "device_after_limits": gpu.properties()}
    tables.print_limits(limits, absent)
    return record, limits


def comparison_options(seconds, folder):
    """The Options of the comparison.

    JAX allocates memory as it needs it, because other libraries need some, too, and
    keeps compiled code until the end of this run.
    """
    from refmaml.bench.comparison import Options

    environment = {
        "JAX_PLATFORMS": "cuda",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "jax"),
    }
    return Options(
        "cuda", seconds, tune=10 * seconds, environment=tuple(environment.items()), log=log
    )


# ---- the sections: each returns whether refmaml is right ----


def kernels(gpu, limits, chosen, peers, options, limit, record):
    """Every version of every kernel, then cuDNN on the same convolutions."""
    from refmaml.bench.gpu.cudnn_grouped import library_rows
    from refmaml.bench.gpu.kernel_rows import kernel_rows, nets_on_gpu, recorded_calls
    from refmaml.bench.record import to_json

    options.log("recording the calls of the nets")
    calls, right = recorded_calls(nets_on_gpu()), True
    tables.print_kernel_header()
    for row in kernel_rows(gpu, limits, calls):
        record.add("kernels", to_json(row) | {"right": row.right})
        right = right and row.right
        tables.print_kernel(row)
    if any(name.startswith("torch") for name in peers):
        for row in library_rows(calls, gpu.l2, limit, options.environment):
            record.add("library", to_json(row))
            tables.print_library(row)
    record.write()
    return right


def standalone(gpu, limits, chosen, peers, options, limit, record):
    """refmaml alone: launching, products over gradients, float64."""
    from refmaml.bench.gpu.comparison import REFMAML_LIMIT
    from refmaml.bench.gpu.kernel_rows import error_line
    from refmaml.bench.gpu.standalone import measure
    from refmaml.bench.record import to_json

    right = True
    for workload in chosen:
        try:
            entry = to_json(measure(gpu, workload))
        except Exception as error:  # of a driver, a compiler, memory: the others go on
            entry = {"workload": workload.name, "refused": error_line(error)}
        record.add("ourselves", entry, now=True)
        right = right and "refused" not in entry and entry["exact"] <= REFMAML_LIMIT
        tables.print_standalone(entry)
    return right


def meta(gpu, limits, chosen, peers, options, limit, record):
    """Whole meta-gradients beside other libraries."""
    from refmaml.bench.gpu.comparison import compare_on_gpu
    from refmaml.bench.record import workload_record
    from refmaml.bench.worker import Worker

    gpu.free_pool()

    def start(name):
        return Worker(name, "cuda", options.environment, limit)

    right = True
    for workload in chosen:
        results = compare_on_gpu(workload, [*REFMAML, *peers], options, start)
        record.add("meta", workload_record(workload, results, limits["float32"].rate), now=True)
        print_comparison(record.value["meta"][-1])
        right = right and not any(r.refused for r in results if r.name in REFMAML)
        slow = {r.name for r in results if r.refused and NO_ANSWER in r.refused}
        # The limit is not waited for again.
        peers = [name for name in peers if name not in slow]
    return right
