"""`refmaml bench`: kernels, meta-gradients beside other libraries, start-up costs.

This file has the options. bench_arguments.py checks them, bench_cpu.py and bench_gpu.py
measure, bench_tables.py and bench_gpu_tables.py print.
"""

from refmaml.cli.bench_arguments import SECTIONS
from refmaml.cli.kernels import kernel_set

KERNELS = ("cpu", "cuda", "numba_cuda", "reference")  # functions of refmaml.kernels


def add(subparsers):
    """Register the command."""
    command = subparsers.add_parser(
        "bench",
        help="time kernels and whole meta-gradients, beside PyTorch, JAX and higher",
        description="Times kernels one by one; whole meta-gradients in turns with the libraries "
        "that are installed (pip install 'refmaml[bench]'); refmaml on one thread and on many; "
        "and its first call. Every gradient is checked before it is timed; exit status 1 if one "
        "is wrong. Nothing else should run on the machine meanwhile.",
    )
    add_choices(command)
    add_limits(command)
    command.set_defaults(func=run)


def add_choices(command):
    """Options that choose what is measured."""
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
        help="which meta-gradients (an unknown name lists them)",
    )
    command.add_argument(
        "--peers",
        nargs="*",
        metavar="NAME",
        help="beside which libraries (an unknown name lists them)",
    )
    command.add_argument(
        "--kernels", choices=KERNELS, default="cpu", help="the kernel set of refmaml"
    )


def add_limits(command):
    """Options for times and for the output."""
    command.add_argument(
        "--seconds",
        default="6",
        metavar="S",
        help="for each implementation on each workload (default 6)",
    )
    command.add_argument(
        "--busy",
        action="store_true",
        help="no threads spin while they wait: for a machine with other work",
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
    command.add_argument(
        "--resume",
        action="store_true",
        help="on a CPU: go on with the bench.json in DIR, if there is one: it is written after "
        "each workload",
    )


def run(arguments):
    """Measure, print, write; returns 1 if a gradient or a kernel is wrong, else 0."""
    if arguments.kernels.endswith("cuda"):
        # Without a GPU this raises, before any process starts.
        kernel_set(arguments.kernels)
    if arguments.kernels == "cuda":
        from refmaml.cli.bench_gpu import run_on_gpu

        return run_on_gpu(arguments)
    from refmaml.cli.bench_cpu import run_on_cpu

    return run_on_cpu(arguments)
