"""The GPU as the bench sees it: arrays on it, launches on a stream, and how long they took by its own clock."""

import shutil
import subprocess
from functools import partial
from pathlib import Path

from refmaml import kernels
from refmaml.bench.timing import runs_between_events
from refmaml.kernels.cuda_runtime.cupy_device import CupyDevice
from refmaml.kernels.cuda_runtime.source import PRECISIONS

ROOFS = Path(__file__).with_name("roofs.cu")
QUERIED = {
    "driver": "driver_version",
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "most_sm_mhz": "clocks.max.sm",
    "most_memory_mhz": "clocks.max.mem",
    "power_limit_w": "power.limit",
    "power_w": "power.draw",
    "celsius": "temperature.gpu",
}
NOT_COUNTED = 2  # runs before those that are timed


class Gpu:
    """The current GPU, through CuPy. Raises ImportError without CuPy and RuntimeError without a GPU, in one line.

    xp    the module of its arrays
    l2    bytes of its L2 cache
    """

    def __init__(self):
        self.device, self.sets, self.roof_kernels = CupyDevice(), {}, {}
        self.xp = self.device.xp
        self.stream = self.xp.cuda.Stream(non_blocking=True)
        self.l2 = self.attribute("L2CacheSize")

    def attribute(self, name):
        """A number that the device tells of itself, by its name in CUDA's list of attributes."""
        runtime = self.xp.cuda.runtime
        return runtime.deviceGetAttribute(
            getattr(runtime, f"cudaDevAttr{name}"), self.xp.cuda.Device().id
        )

    def about(self):
        """Name, compute capability, versions, clocks and sizes: what a result was measured on."""
        cuda = self.xp.cuda
        properties = cuda.runtime.getDeviceProperties(cuda.Device().id)
        return {
            "name": properties["name"].decode(),
            "compute_capability": [properties["major"], properties["minor"]],
            "multiprocessors": self.attribute("MultiProcessorCount"),
            "l2_bytes": self.l2,
            "memory_bytes": properties["totalGlobalMem"],
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

    def bring(self, a):
        """A copy of a NumPy array on the GPU."""
        return self.xp.array(a)

    def fetch(self, a):
        """A NumPy array of a GPU's."""
        return self.xp.asnumpy(a)

    def kernel_set(self, version=None):
        """The cuda kernels on the GPU's arrays, their products in one version, or in the one they come with."""
        if version not in self.sets:
            chosen = {} if version is None else {"version": version}
            self.sets[version] = kernels.cuda(self.device, xp=self.xp, **chosen)
        return self.sets[version]

    def launch(self, kernel, dtype, grid, threads, arguments):
        """One of the kernels of roofs.cu."""
        if dtype not in self.roof_kernels:
            self.roof_kernels[dtype] = self.xp.RawModule(
                code=ROOFS.read_text(),
                options=("--std=c++17", f"-DREAL={PRECISIONS[dtype]}"),
                backend="nvrtc",
            )
        self.roof_kernels[dtype].get_function(kernel)(grid, (threads, 1, 1), tuple(arguments))

    # ---- time ----

    def timings(self, run, count, graph=True):
        """(seconds of each of `count` runs, whether they were replays of a graph), by events on the stream the runs are launched on.

        graph: the launches of a run are captured and replayed, so that no gap is left between them by whoever launches; a run that
        cannot be captured is launched. Of short runs several are timed at once. What a run reads may have been sent on another stream,
        which this one does not wait for by itself.
        """
        self.wait()
        with self.stream:
            for _ in range(NOT_COUNTED):
                run()
            self.stream.synchronize()
            captured = self.captured(run) if graph else None
            play = run if captured is None else partial(captured.launch, self.stream)
            for _ in range(NOT_COUNTED):
                play()
            together = runs_between_events(self.timed(play))
            times = [self.timed(play, together) / together for _ in range(count)]
        return times, captured is not None

    def captured(self, run):
        """The launches of a run as a graph, or None."""
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

    def timed(self, play, count=1):
        """Seconds between two events around so many of it."""
        before, after = self.xp.cuda.Event(), self.xp.cuda.Event()
        before.record(self.stream)
        for _ in range(count):
            play()
        after.record(self.stream)
        after.synchronize()
        return self.xp.cuda.get_elapsed_time(before, after) / 1e3

    def wait(self):
        """Return once everything launched is done."""
        self.xp.cuda.Device().synchronize()

    def held(self):
        """Bytes CuPy's pool holds: the most that was in use at once, as it gives nothing back."""
        return self.xp.get_default_memory_pool().total_bytes()

    def release(self):
        """Give the pool's free blocks back."""
        self.xp.get_default_memory_pool().free_all_blocks()


def nvidia_smi():
    """What the driver says of versions, clocks and power just now; nothing where nvidia-smi is not there or does not answer."""
    if shutil.which("nvidia-smi") is None:
        return {}
    try:
        done = subprocess.run(
            [
                "nvidia-smi",
                f"--query-gpu={','.join(QUERIED.values())}",
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
    return {name: number(value) for name, value in zip(QUERIED, values, strict=False)}


def number(text):
    """A number where the text is one."""
    try:
        return float(text)
    except ValueError:
        return text
