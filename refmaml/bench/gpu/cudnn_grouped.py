"""The time of the same convolutions in cuDNN, through PyTorch, in another process.

Tasks are the groups of a grouped convolution, which is what vmap over the weights
becomes. The arrays are made in the memory order that it needs, (N, tasks C, H, W), so
reordering is not timed. Padding that is not symmetric is added before.
"""

from typing import NamedTuple

import numpy as np

from refmaml.bench.gpu.rotation import REPEATS, Rotation, rotation, sets_exceeding_cache
from refmaml.bench.kernel_table import arguments_by_name
from refmaml.bench.timing import runs_between_events
from refmaml.bench.worker import Worker, WorkerError

KERNELS = ("conv2d_forward", "conv2d_backward_x", "conv2d_backward_w")


class LibraryRow(NamedTuple):
    """One convolution by the library.

    error  of the first task, relative, against the library in float64 without groups
    """

    net: str
    kernel: str
    tasks: int
    shape: str
    reduced: bool
    timing: Rotation | None
    error: float | None
    refused: str | None = None


class Extents(NamedTuple):
    """Shapes of a convolution.

    x (T, N, C, H, W), w (T, O, C, kH, kW), y (T, N, O, Ho, Wo)
    """

    x: tuple
    w: tuple
    y: tuple
    stride: tuple
    padding: tuple


def extents(call, tasks):
    """The Extents of a recorded call, extended to `tasks` tasks."""
    named = arguments_by_name(call)
    shapes = {
        name: (tasks, *named[name if name in named else f"d{name}"].shape[1:]) for name in "xwy"
    }
    return Extents(**shapes, stride=named["stride"], padding=named["padding"])


class ConvolutionService:
    """The methods that the Worker calls.

    device  "cuda"; on "cpu" the same convolutions are computed and not timed
    """

    def __init__(self, name, device):
        import torch

        torch.backends.cudnn.benchmark = True
        self.torch, self.device = torch, device

    def arrays(self, sizes):
        """(x, w, dy, padding): random numbers, tasks along the channels."""
        torch, (T, N, C, H, W) = self.torch, sizes.x
        (top, bottom), (left, right) = sizes.padding
        symmetric = top == bottom and left == right
        x = torch.randn(N, T * C, H, W, device=self.device)
        x = x if symmetric else torch.nn.functional.pad(x, (left, right, top, bottom))
        w = torch.randn(T * sizes.w[1], *sizes.w[2:], device=self.device)
        dy = torch.randn(N, T * sizes.y[2], *sizes.y[3:], device=self.device)
        return x, w, dy, (top, left) if symmetric else (0, 0)

    def operation(self, kernel, sizes, padding, groups):
        """(x, w, dy) -> the output of the kernel."""
        aten, stride = self.torch.ops.aten, list(sizes.stride)
        options = (stride, list(padding), [1, 1], False, [0, 0], groups)
        if kernel == "conv2d_forward":
            return lambda x, w, dy: aten.convolution(x, w, None, *options)
        output = ("conv2d_backward_x", "conv2d_backward_w").index(kernel)
        mask = [output == 0, output == 1, False]
        return lambda x, w, dy: aten.convolution_backward(dy, x, w, None, *options, mask)[output]

    def convolution(self, kernel, sizes, reduced, l2):
        """(Rotation, error) of a convolution. reduced: TF32 is allowed; l2: bytes."""
        torch, T = self.torch, sizes.x[0]
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = reduced
        *first, padding = self.arrays(sizes)
        size = sum(a.nbytes for a in first)
        count = sets_exceeding_cache(l2, size)
        sets = [first, *([a.clone() for a in first] for _ in range(count - 1))]
        run = self.operation(kernel, sizes, padding, T)
        error = self.error(run(*first), kernel, sizes, first, padding)
        times, graph = self.timings(lambda: [run(*each) for each in sets])
        return rotation(times, count, size, graph), error

    def error(self, value, kernel, sizes, arrays, padding):
        """The relative error of the first task."""
        T, x, w, dy = sizes.x[0], *arrays
        first = (x[:, : x.shape[1] // T], w[: len(w) // T], dy[:, : dy.shape[1] // T])
        run = self.operation(kernel, sizes, padding, 1)
        exact = run(*(a.double().contiguous() for a in first))
        tasks_first = kernel == "conv2d_backward_w"
        value = value[: len(exact)] if tasks_first else value[:, : exact.shape[1]]
        return float((value - exact).abs().max() / exact.abs().max())

    def timings(self, run):
        """(seconds of each run, whether they were replays of a graph), by events."""
        play, captured = run, capture(self.torch, run)
        if captured is not None:
            play = captured.replay
        for _ in range(2):
            play()
        together = runs_between_events(self.time_between_events(play, 1))
        times = [self.time_between_events(play, together) / together for _ in range(REPEATS)]
        return times, captured is not None

    def time_between_events(self, play, count):
        """Seconds between two events around `count` calls."""
        before, after = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        for _ in range(count):
            play()
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / 1e3


def capture(torch, run):
    """The launches of a run as a graph; None if they cannot be captured.

    Two runs on a side stream, before the capture, let cuDNN choose its algorithms.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(captured):
            run()
    except RuntimeError:
        return None
    return captured


def library_rows(calls, l2, limit, environment=()):
    """Yields a LibraryRow for each convolution, in float32 and in TF32.

    calls  [(call, number of tasks)]
    l2     bytes of the L2 cache
    limit  seconds that each may take
    """
    worker = None
    try:
        for call, tasks in calls:
            if call.kernel not in KERNELS:
                continue
            sizes = extents(call, tasks)
            shape = "x".join(map(str, max(sizes.x, sizes.y, sizes.w, key=np.prod)))
            for reduced in (False, True):
                if not is_alive(worker):
                    worker = Worker("cuDNN", "cuda", environment, limit, ConvolutionService)
                row = LibraryRow(call.net, call.kernel, tasks, shape, reduced, None, None)
                try:
                    timing, error = worker.call("convolution", call.kernel, sizes, reduced, l2)
                    yield row._replace(timing=timing, error=error)
                except WorkerError as reason:
                    yield row._replace(refused=str(reason))
    finally:
        if worker is not None:
            worker.__exit__()


def is_alive(worker):
    return worker is not None and worker.process.is_alive()
