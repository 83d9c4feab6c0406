"""What cuDNN takes for the same convolutions: a grouped convolution with a group for each task, through PyTorch, in a process of its own.

This is what vmap over the weights of a convolution becomes. The order of memory is the one it wants, (N, tasks C, H, W): bringing it about
costs nothing here. A border that is not the same on both sides is added before.
"""

from typing import NamedTuple

import numpy as np

from refmaml.bench.gpu.rotation import REPEATS, Rotation, sets_beyond
from refmaml.bench.kernel_table import arguments_by_name
from refmaml.bench.timing import runs_between_events, spread
from refmaml.bench.worker import Worker, WorkerError

KERNELS = ("conv2d_forward", "conv2d_backward_x", "conv2d_backward_w")


class LibraryRow(NamedTuple):
    """One convolution by the library. error: of the first task, relative, against the library's own in float64 without groups."""

    net: str
    kernel: str
    tasks: int
    shape: str
    reduced: bool
    timing: Rotation | None
    error: float | None
    refused: str | None = None


class Extents(NamedTuple):
    """What a convolution is: x (T, N, C, H, W), w (T, O, C, kH, kW), y (T, N, O, Ho, Wo)."""

    x: tuple
    w: tuple
    y: tuple
    stride: tuple
    padding: tuple


def extents(call, tasks):
    """The Extents of a recorded call, grown to so many tasks."""
    named = arguments_by_name(call)
    shapes = {
        name: (tasks, *named[name if name in named else f"d{name}"].shape[1:]) for name in "xwy"
    }
    return Extents(**shapes, stride=named["stride"], padding=named["padding"])


class Seat:
    """What the process can be asked. device: "cuda"; on "cpu" the same convolutions are computed, and not timed."""

    def __init__(self, name, device):
        import torch

        torch.backends.cudnn.benchmark = True
        self.torch, self.device = torch, device

    def ready(self):
        """Once the library is loaded."""

    def arrays(self, of):
        """x, w and y of random numbers, tasks among the channels."""
        torch, (T, N, C, H, W) = self.torch, of.x
        (top, bottom), (left, right) = of.padding
        even = top == bottom and left == right
        x = torch.randn(N, T * C, H, W, device=self.device)
        x = x if even else torch.nn.functional.pad(x, (left, right, top, bottom))
        w = torch.randn(T * of.w[1], *of.w[2:], device=self.device)
        return (
            x,
            w,
            torch.randn(N, T * of.y[2], *of.y[3:], device=self.device),
            (top, left) if even else (0, 0),
        )

    def operation(self, kernel, of, padding, groups):
        """(x, w, dy) -> what the kernel fills."""
        aten, how = (
            self.torch.ops.aten,
            (list(of.stride), list(padding), [1, 1], False, [0, 0], groups),
        )
        if kernel == "conv2d_forward":
            return lambda x, w, dy: aten.convolution(x, w, None, *how)
        place = ("conv2d_backward_x", "conv2d_backward_w").index(kernel)
        wanted = [place == 0, place == 1, False]
        return lambda x, w, dy: aten.convolution_backward(dy, x, w, None, *how, wanted)[place]

    def convolution(self, kernel, of, reduced, l2):
        """(Rotation, error) of one convolution."""
        torch, T = self.torch, of.x[0]
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = reduced
        *first, padding = self.arrays(of)
        size = sum(a.nbytes for a in first)
        sets = [first, *([a.clone() for a in first] for _ in range(sets_beyond(l2, size) - 1))]
        run = self.operation(kernel, of, padding, T)
        error = self.error(run(*first), kernel, of, first, padding)
        times, graph = self.timings(lambda: [run(*each) for each in sets])
        return Rotation(
            spread([t / len(sets) for t in times]), len(sets), size * len(sets), graph
        ), error

    def error(self, value, kernel, of, arrays, padding):
        """Of the first task."""
        T, x, w, dy = of.x[0], *arrays
        one = [
            a.double()
            for a in (x[:, : x.shape[1] // T], w[: len(w) // T], dy[:, : dy.shape[1] // T])
        ]
        exact = self.operation(kernel, of, padding, 1)(*(a.contiguous() for a in one))
        mine = value[: len(exact)] if kernel == "conv2d_backward_w" else value[:, : exact.shape[1]]
        return float((mine - exact).abs().max() / exact.abs().max())

    def timings(self, run):
        """(seconds of each run, whether they were replays of a graph), by events."""
        play, captured = run, torch_graph(self.torch, run)
        if captured is not None:
            play = captured.replay
        for _ in range(2):
            play()
        together = runs_between_events(self.timed(play, 1))
        return [self.timed(play, together) / together for _ in range(REPEATS)], captured is not None

    def timed(self, play, count):
        """Seconds between two events around so many of it."""
        before, after = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        for _ in range(count):
            play()
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / 1e3


def torch_graph(torch, run):
    """The launches of a run as a graph, after runs on the side that try algorithms out; None where they cannot be captured."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(beside)
    captured = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(captured):
            run()
    except RuntimeError:
        return None
    return captured


def library_rows(calls, l2, limit, environment=()):
    """Yields a LibraryRow for each convolution of the calls, in float32 and in TF32. limit: seconds each may take."""
    kept = [(call, tasks) for call, tasks in calls if call.kernel in KERNELS]
    worker = None
    try:
        for call, tasks in kept:
            of = extents(call, tasks)
            for reduced in (False, True):
                worker = (
                    worker if alive(worker) else Worker("cuDNN", "cuda", environment, limit, Seat)
                )
                shape = "x".join(map(str, max(of.x, of.y, of.w, key=np.prod)))
                row = LibraryRow(call.net, call.kernel, tasks, shape, reduced, None, None)
                try:
                    timing, error = worker.ask("convolution", call.kernel, of, reduced, l2)
                    yield row._replace(timing=timing, error=error)
                except WorkerError as reason:
                    yield row._replace(refused=str(reason))
    finally:
        if worker is not None:
            worker.__exit__()


def alive(worker):
    return worker is not None and worker.process.is_alive()
