"""Monitors of a run: a picture that is redrawn, and event files for TensorBoard.

The training process calls a monitor with each Progress. This module bounds how much of
its time that takes.
"""

import time
from math import inf, isnan

from refmaml.errors import DataError, expect_installed
from refmaml.log import log
from refmaml.training.files import make_folder, unwritable
from refmaml.training.plot import write_png

# Seconds between two drawings, and between two flushes of events to disk.
INTERVAL = 5.0
# Drawing takes at most this fraction of the time; a slow picture is drawn less often.
MAX_DRAW_FRACTION = 0.02
# Seconds between two events, each of which takes 0.2 ms; faster steps get no event.
EVENT_INTERVAL = 0.02
TAGS = {
    "loss": "query/loss",
    "accuracy": "query/accuracy",
    "grad_norm": "gradient/norm",
    "cg_residual": "gradient/cg_residual",
    "inner_residual": "inner/residual",
    "inner_residual_median": "inner/residual_median",
    "inner_residual_p95": "inner/residual_p95",
}


class Picture:
    """The learning curve as a PNG at `path`, drawn at once and then repeatedly.

    The file is complete at any time. Raises DataError where it cannot be written at the
    beginning. A later failure is reported once, and training continues without the
    picture.
    """

    def __init__(self, path, title, now, clock=time.monotonic):
        self.path, self.title, self.clock = path, title, clock
        write_png(path, now.rows, title)
        self.due = clock() + INTERVAL

    def __call__(self, now):
        if self.clock() < self.due:
            return
        started = self.clock()
        self.draw(now, "; training continues without the picture")
        done = self.clock()
        pause = (done - started) * (1 - MAX_DRAW_FRACTION) / MAX_DRAW_FRACTION
        self.due = max(self.due, done + max(INTERVAL, pause))

    def draw(self, now, consequence, held_out=()):
        """Draw the curve. A failure is reported with its consequence, and is final."""
        try:
            write_png(self.path, now.rows, self.title, held_out)
        except DataError as error:
            log(f"refmaml: {error}{consequence}")
            self.due = inf

    def conclude(self, now, result):
        """Draw the whole curve with the held-out Evaluation `result`."""
        if self.due < inf:
            self.draw(now, "", [(now.step, result)])


class Events:
    """Event files for TensorBoard in `folder`.

    Tags: those of TAGS, and at the end held-out/... . When a run is resumed,
    TensorBoard drops the steps after `now` that an earlier process wrote.

    Raises ArgumentError without tensorboardX, and DataError where the files cannot be
    written at the beginning. A later failure (a full disk) is reported once, and
    training continues without events.
    """

    def __init__(self, folder, now, clock=time.monotonic):
        require_tensorboardx()
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self.folder, self.clock, self.due, self.pending = folder, clock, -inf, now
        # tensorboardX names files by the second: without a suffix it would overwrite
        # one.
        suffix = f".{time.time_ns()}"
        try:
            # Not tensorboardX's SummaryWriter: a full disk ends its thread silently,
            # and later events then wait for that thread for ever.
            self.writer = EventsWriter(str(make_folder(folder) / "events"), suffix)
            self.writer.write_event(
                event(now.step + 1, session_log=SessionLog(status=SessionLog.START))
            )
            self.writer.flush()
        except OSError as error:
            raise unwritable(folder, "folder", error) from error
        self.flushed = clock()

    def __call__(self, now):
        self.pending = now
        if self.clock() >= self.due:
            self.write(now)
            self.due = self.clock() + EVENT_INTERVAL

    def write(self, now):
        """Write one event with all metrics of the Progress's last step."""
        row, self.pending = now.curve[now.step - 1], None
        self.add({tag: getattr(row, name) for name, tag in TAGS.items()}, now.step)

    def add(self, values, step):
        """Write one event with {tag: value} without NaN values; on disk within
        INTERVAL.
        """
        from tensorboardX.proto.summary_pb2 import Summary

        finite = [
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
            if not isnan(value)
        ]
        self.guarded(lambda writer: writer.write_event(event(step, summary=Summary(value=finite))))
        if self.clock() - self.flushed >= INTERVAL:
            self.guarded(lambda writer: writer.flush())
            self.flushed = self.clock()

    def guarded(self, action):
        """action(writer). After an OSError, which is reported, do nothing any more."""
        try:
            if self.writer is not None:
                action(self.writer)
        except OSError as error:
            self.writer = None
            log(
                f"refmaml: {unwritable(self.folder, 'folder', error)}; "
                "training continues without events"
            )

    def conclude(self, now, result):
        """Write the held-out Evaluation `result`."""
        self.add(
            {f"held-out/{result.quantity}": result.mean, "held-out/interval": result.interval},
            now.step,
        )

    def close(self):
        """Write the last step if it has no event yet, and bring all to disk."""
        if self.pending is not None and self.pending.step:
            self.write(self.pending)
        self.guarded(lambda writer: writer.close())


def event(step, **content):
    """An Event of TensorBoard at the current time."""
    from tensorboardX.proto.event_pb2 import Event

    return Event(wall_time=time.time(), step=step, **content)


def require_tensorboardx():
    """Raise ArgumentError unless tensorboardX is installed."""
    expect_installed("tensorboard", "tensorboardX", "'refmaml[tensorboard]'")
