"""`refmaml bench`: kernels beside the machine's limits, whole meta-gradients beside other libraries, and what the first call costs."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from refmaml.cli.kernels import kernel_set
from refmaml.errors import ArgumentError, expect
from refmaml.log import log

SECTIONS = ("meta", "kernels", "ourselves", "startup")
KERNELS = ("cpu", "cuda", "numba_cuda", "reference")  # functions of refmaml.kernels
THREADED = (
    "strided-1",
    "max-pool-1",
)  # workloads on which threads, memory and start-up are measured, where they are chosen


def add(subparsers):
    """Register the command."""
    command = subparsers.add_parser(
        "bench",
        help="time kernels and whole meta-gradients, beside PyTorch, JAX and higher",
        description="Times kernels one by one, whole meta-gradients by turns with the libraries that are installed (pip install "
        "'refmaml[bench]'), refmaml on one thread and on many, and its first call. Everybody's gradient is checked first; exit status 1 "
        "if one is wrong. Nothing else should run on the machine meanwhile.",
    )
    command.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        metavar="SECTION",
        help=f"some of {', '.join(SECTIONS)} (on a GPU all but the last)",
    )
    command.add_argument(
        "--workloads",
        nargs="+",
        metavar="NAME",
        help="which meta-gradients (an unknown one lists them)",
    )
    command.add_argument(
        "--peers",
        nargs="*",
        metavar="NAME",
        help="beside which libraries (an unknown one lists them)",
    )
    command.add_argument(
        "--kernels", choices=KERNELS, default="cpu", help="what refmaml computes with"
    )
    command.add_argument(
        "--seconds",
        default="6",
        metavar="S",
        help="for each contestant on each workload (default 6)",
    )
    command.add_argument(
        "--busy",
        action="store_true",
        help="nobody's threads wait in a spin: where the machine has other work to do",
    )
    command.add_argument(
        "--limit",
        default="120",
        metavar="S",
        help="on a GPU: for an answer of another library (default 120)",
    )
    command.add_argument(
        "--out",
        default="runs/bench",
        metavar="DIR",
        help="where bench.json and bench.png go (default runs/bench)",
    )
    command.set_defaults(func=run)


def run(arguments):
    """Measure, print, write; returns 1 if somebody's gradient was wrong, else 0."""
    from refmaml.bench import machine, workloads
    from refmaml.bench.record import SCHEMA
    from refmaml.cli import report
    from refmaml.training.files import make_folder, write_json

    if arguments.kernels.endswith("cuda"):
        kernel_set(
            arguments.kernels
        )  # without a GPU this says so, and not every process that is started
    if arguments.kernels == "cuda":
        from refmaml.cli.bench_gpu import run_on_gpu

        return run_on_gpu(arguments)
    arguments.only = arguments.only or SECTIONS
    seconds = positive("--seconds", arguments.seconds)
    chosen = workloads.named(arguments.workloads or workloads.DEFAULT)
    names, absent = contestants(arguments.peers, arguments.kernels)
    require_threadpoolctl()
    out, started = make_folder(arguments.out), perf_counter()
    about = report.circumstances()
    about["versions"] |= machine.versions()
    about["limits"] = machine.limits(about["machine"]["cores"])
    show_limits(about["limits"], absent)
    with TemporaryDirectory() as folder:
        record = sections(
            arguments,
            chosen,
            ["refmaml", "sgemm", *names],
            settings(arguments, seconds, folder),
            about["limits"],
        )
    took = round(perf_counter() - started, 1)
    about |= {
        "kernel_set": arguments.kernels,
        "busy": arguments.busy,
        "absent": absent,
        "seconds": took,
    }
    write_json(out / "bench.json", {"schema": SCHEMA, **about, **record})
    if "meta" in record:
        from refmaml.bench.picture import write_picture

        write_picture(out / "bench.png", record["meta"])
    print(f"\n{out / 'bench.json'}, after {took:.0f} s")
    refused = any(r["refused"] for part in record.get("meta", ()) for r in part["results"])
    return int(
        refused or any(wrong(row["error"], row["tolerance"]) for row in record.get("kernels", ()))
    )


def wrong(error, tolerance):
    """Whether a kernel's error is beyond its tolerance, where it has one."""
    return tolerance is not None and not error <= tolerance


def positive(option, text):
    """The seconds as a number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    expect(0 < value < float("inf"), option, "a finite number > 0", repr(text))
    return value


def require_threadpoolctl():
    """Raise ArgumentError unless the threads of the BLAS can be set."""
    try:
        import threadpoolctl  # noqa: F401
    except ImportError:
        raise ArgumentError(
            "threadpoolctl: expected it to be installed (pip install 'refmaml[bench]'), got nothing of that name"
        ) from None


def contestants(given, kernels):
    """(names of the peers that take part, {name: why it does not}). Raises ArgumentError for an unknown one."""
    from refmaml.bench.contestants import find, missing, peers

    known = peers(kernels)
    wanted = known if given is None else given
    for name in wanted:
        expect(name in known, "--peers", f"some of {', '.join(known)}", name)
    absent = {name: reason for name in wanted if (reason := missing(find(name, kernels)))}
    return [name for name in wanted if name not in absent], absent


def settings(arguments, seconds, folder):
    """The Options of the race. JAX keeps what it compiles, as Numba does, and computes on the processor if there is a GPU too."""
    from refmaml.bench.race import Options

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
        tell=log,
    )


def sections(arguments, chosen, names, options, limits):
    """{section: its record}, printed as they come."""
    from refmaml.bench.race import race
    from refmaml.bench.record import meta_record, plain

    record = {}
    if "kernels" in arguments.only:
        record["kernels"] = [plain(row) for row in kernel_rows(options.kernels, limits)]
    if "meta" in arguments.only:
        record["meta"] = []
        for workload in chosen:
            record["meta"].append(meta_record(workload, race(workload, names, options)))
            show_race(record["meta"][-1])
    if "ourselves" in arguments.only:
        record["ourselves"] = plain(
            ourselves([w for w in chosen if w.name in THREADED] or chosen[:1], options)
        )
    if "startup" in arguments.only:
        record["startup"] = plain(first_calls(chosen[0], options))
    return record


def kernel_rows(kernels, limits):
    """The kernels' rows, each printed when it is measured."""
    from refmaml.bench.contestants.ours import kernels_of
    from refmaml.bench.kernel_table import BYTE, FLOP, kernel_table

    all_threads = max(limits["sgemm"])
    top = {FLOP: limits["sgemm"][all_threads], BYTE: limits["copy"][all_threads]}
    print(
        f"\n{'net':<12} {'kernel':<25} {'largest array':<20} {'ms':>9} {'10^9/s':>8} {'':4} {'of limit':>8} {'error':>8} {'within':>8}"
    )
    for row in kernel_table(kernels_of(kernels), top):
        print(
            f"{row.net:<12} {row.kernel:<25} {row.shape:<20} {1e3 * row.seconds.median:9.3f} {row.rate:8.1f} {row.unit:<4} "
            f"{row.fraction:8.0%} {row.error:8.0e} {'' if row.tolerance is None else f'{row.tolerance:8.0e}'}"
            + "  WRONG"
            * wrong(row.error, row.tolerance),
            flush=True,
        )
        yield row


def ourselves(chosen, options):
    """refmaml beside itself on some workloads."""
    from refmaml.bench import ourselves as measure
    from refmaml.cli.report import cores

    found = {"imaml": measure.imaml_passes(), "workloads": {}}
    print(f"\niMAML, {measure.CG_STEPS} iterations: {found['imaml']}")
    for workload in chosen:
        part = {
            "threads": measure.threads(workload, options, sorted({1, cores()})),
            "bits": measure.bits(workload, options),
            "product": measure.product_over_gradient(workload, options),
            "memory": measure.memory_over_tasks(workload, options),
        }
        found["workloads"][workload.name] = part
        show_ourselves(workload.name, part)
    return found


def show_ourselves(name, part):
    """One workload's lines."""
    from refmaml.bench.ourselves import BIT_RUNS, BIT_THREADS

    most = max(part["threads"])
    same = len({digest for digests in part["bits"].values() for digest in digests}) == 1
    print(
        f"{name}: {most} threads over 1: {part['threads'][1].median / part['threads'][most].median:.2f}; the same bits for "
        f"{', '.join(map(str, BIT_THREADS))} threads and over {BIT_RUNS} runs: {'yes' if same else 'NO'}"
    )
    print(
        f"{name}: product over gradient: {part['product']['hvp'].median / part['product']['gradient'].median:.2f}; memory: "
        + ", ".join(f"{n} tasks {megabytes(peak)}" for n, peak in part["memory"].items()),
        flush=True,
    )


def first_calls(workload, options):
    """Start-up costs, printed."""
    from refmaml.bench.startup import startup

    found = startup(workload, options.kernels)
    print(
        f"\nimport refmaml {found['import'].median:.2f} s; the first {workload.name}: {found['cold']:.1f} s with Numba's cache empty, "
        f"{found['warm'].median:.2f} s with it filled"
    )
    return found


def show_limits(limits, absent):
    """What the machine can do, and who is not here."""
    for name, unit in (("sgemm", "Gflop/s"), ("dgemm", "Gflop/s"), ("copy", "Gbyte/s")):
        print(
            f"{name:<6}",
            ", ".join(
                f"{value:.1f} {unit} on {n} thread{'s' * (n > 1)}"
                for n, value in limits[name].items()
            ),
        )
    for name, reason in absent.items():
        print(f"without {name}: {reason}")


def show_race(part):
    """The table of one workload."""
    print(
        f"\n{part['workload']}: {part['title']}, {part['tasks']} tasks, {part['gflop']:.3g} Gflop"
    )
    for r in part["results"]:
        if r["refused"]:
            print(f"  {r['name']:<20} refused: {r['refused']}")
            continue
        s = r["seconds"]
        print(
            f"  {r['name']:<20} {1e3 * s['median']:9.2f} ms  ({1e3 * s['low']:.2f} to {1e3 * s['high']:.2f}, {s['count']} times) "
            f"{r['gflops']:8.2f} Gflop/s  {megabytes(r['peak']):>8}  {used(r)}"
        )
    if part["over_the_fastest_peer"]:
        print(
            f"  refmaml is {part['over_the_fastest_peer']:.2f} times as fast as the fastest peer",
            end="",
        )
        print(f", and at {part['of_sgemm']:.0%} of sgemm's rate" if part.get("of_sgemm") else "")
    sys.stdout.flush()


def used(result):
    """The settings of a result in words."""
    settings = result["settings"] | ({"OMP_WAIT_POLICY": result["wait"]} if result["wait"] else {})
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def megabytes(count):
    return "-" if count is None else f"{count / 1e6:.0f} MB"
