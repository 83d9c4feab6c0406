"""The GPU as the bench uses it: arrays, launches on a stream, times by the device."""

import shutil
import subprocess
from functools import partial
from pathlib import Path

from refmaml import kernels
from refmaml.bench.timing import runs_between_events
from refmaml.errors import ArgumentError
from refmaml.kernels.cuda_runtime.cupy_device import CupyDevice
from refmaml.kernels.cuda_runtime.source import PRECISIONS

ROOFS = Path(__file__).with_name("roofs.cu")
NVIDIA_SMI_FIELDS = {
    "driver": "driver_version",
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "most_sm_mhz": "clocks.max.sm",
    "most_memory_mhz": "clocks.max.mem",
    "power_limit_w": "power.limit",
    "power_w": "power.draw",
    "celsius": "temperature.gpu",
}
WARM_UP_RUNS = 2  # before the runs that are timed


class Gpu:
    """The current GPU, through CuPy.

    xp  the module of its arrays
    l2  bytes of its L2 cache
    Raises ImportError without CuPy and RuntimeError without a GPU, both in one line.
    """

    def __init__(self):
        self.device, self.sets, self.roof_kernels = CupyDevice(), {}, {}
        self.xp = self.device.xp
        self.stream = self.xp.cuda.Stream(non_blocking=True)
        self.l2 = self.attribute("L2CacheSize")

    def attribute(self, name):
        """A device attribute, by its name in CUDA without cudaDevAttr."""
        runtime = self.xp.cuda.runtime
        return runtime.deviceGetAttribute(
            getattr(runtime, f"cudaDevAttr{name}"), self.xp.cuda.Device().id
        )

    def properties(self):
        """Name, compute capability, versions, clocks and sizes, for the records."""
        cuda = self.xp.cuda
        device = cuda.runtime.getDeviceProperties(cuda.Device().id)
        return {
            "name": device["name"].decode(),
            "compute_capability": [device["major"], device["minor"]],
            "multiprocessors": self.attribute("MultiProcessorCount"),
            "l2_bytes": self.l2,
            "memory_bytes": device["totalGlobalMem"],
            "clock_khz": self.attribute("ClockRate"),
            "memory_clock_khz": self.attribute("MemoryClockRate"),
            "memory_bus_bits": self.attribute("GlobalMemoryBusWidth"),
            "cuda_driver_api": cuda.runtime.driverGetVersion(),
            "cuda_runtime": cuda.runtime.runtimeGetVersion(),
            "nvrtc": list(cuda.nvrtc.getVersion()),
            "cupy": self.xp.__version__,
            **nvidia_smi(),
        }

    # ---- arrays and kernels ----

    def to_device(self, a):
        """A copy of a NumPy array on the GPU."""
        return self.xp.array(a)

    def to_host(self, a):
        """A copy of an array of the GPU as a NumPy array."""
        return self.xp.asnumpy(a)

    def kernel_set(self, version=None):
        """The cuda kernels. version: of their products; None: the default one."""
        if version not in self.sets:
            chosen = {} if version is None else {"version": version}
            self.sets[version] = kernels.cuda(self.device, xp=self.xp, **chosen)
        return self.sets[version]

    def launch(self, kernel, dtype, grid, threads, arguments):
        """Launch one of the kernels of roofs.cu."""
        if dtype not in self.roof_kernels:
            self.roof_kernels[dtype] = self.xp.RawModule(
                code=ROOFS.read_text(),
                options=("--std=c++17", f"-DREAL={PRECISIONS[dtype]}"),
                backend="nvrtc",
            )
        self.roof_kernels[dtype].get_function(kernel)(grid, (threads, 1, 1), tuple(arguments))

    # ---- time ----

    def timings(self, run, count, graph=True):
        """(seconds of each of `count` runs, whether they were replays of a graph).

        Measured by events on the stream of the runs; several short runs are timed at
        once.

        graph  capture the launches of a run and replay them, which leaves no gaps
               between launches. A run that cannot be captured is launched eagerly

        What a run reads may come from a transfer on another stream. This stream does
        not wait for that by itself, so the device is synchronized first.
        """
        self.synchronize()
        with self.stream:
            for _ in range(WARM_UP_RUNS):
                run()
            self.stream.synchronize()
            captured = self.capture(run) if graph else None
            play = run if captured is None else partial(captured.launch, self.stream)
            for _ in range(WARM_UP_RUNS):
                play()
            together = runs_between_events(self.time_between_events(play))
            times = [self.time_between_events(play, together) / together for _ in range(count)]
        return times, captured is not None

    def capture(self, run):
        """The launches of a run as a graph, or None if they cannot be captured."""
        runtime = self.xp.cuda.runtime
        try:
            self.stream.begin_capture()
            try:
                run()
            finally:
                graph = self.stream.end_capture()
            return graph
        except (runtime.CUDARuntimeError, RuntimeError):
            self.stream.synchronize()
            return None

    def time_between_events(self, play, count=1):
        """Seconds between two events around `count` calls."""
        before, after = self.xp.cuda.Event(), self.xp.cuda.Event()
        before.record(self.stream)
        for _ in range(count):
            play()
        after.record(self.stream)
        after.synchronize()
        return self.xp.cuda.get_elapsed_time(before, after) / 1e3

    def synchronize(self):
        """Return when everything launched is complete."""
        self.xp.cuda.Device().synchronize()

    def free_pool(self):
        """Return the pool's free blocks to the device."""
        self.xp.get_default_memory_pool().free_all_blocks()


def open_gpu():
    """The Gpu. Raises ArgumentError in one line, as the command line does."""
    try:
        return Gpu()
    except (ImportError, RuntimeError) as error:
        raise ArgumentError(f"kernels: {error}") from None


def nvidia_smi():
    """Driver version, clocks and power now; empty if nvidia-smi does not answer."""
    if shutil.which("nvidia-smi") is None:
        return {}
    try:
        done = subprocess.run(
            [
                "nvidia-smi",
                f"--query-gpu={','.join(NVIDIA_SMI_FIELDS.values())}",
                "--format=csv,noheader,nounits",
            ],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return {name: number(value) for name, value in zip(NVIDIA_SMI_FIELDS, values, strict=False)}


def number(text):
    """The text as a number, if it is one."""
    try:
        return float(text)
    except ValueError:
        return text
