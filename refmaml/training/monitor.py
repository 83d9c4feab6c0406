"""Looking on while a run goes: a picture that is drawn again and again, and event files for TensorBoard.

A monitor is called with each Progress, in the process that trains; how much of its time that may cost is bounded here.
"""

import time
from math import inf, isnan

from refmaml.errors import DataError, expect_installed
from refmaml.log import say
from refmaml.training.curve import write_png
from refmaml.training.files import make_folder, unwritable

# A picture is drawn, and events are brought to disk, EVERY so many seconds; the picture more seldom, so that drawing takes at most SHARE.
EVERY, SHARE = 5.0, 0.02
# An event takes some 0.2 ms: steps that follow the last one's event sooner than this have none.
APART = 0.02
TAGS = {
    "loss": "query/loss",
    "accuracy": "query/accuracy",
    "grad_norm": "gradient/norm",
    "cg_residual": "gradient/cg_residual",
}


class Picture:
    """The learning curve as one PNG at `path`, drawn at once and then now and then; whoever opens it finds it whole.

    Raises DataError where it cannot be written at the beginning; later on that is said once, and training goes on without it.
    """

    def __init__(self, path, title, now, clock=time.monotonic):
        self.path, self.title, self.clock = path, title, clock
        write_png(path, now.rows, title)
        self.due = clock() + EVERY

    def __call__(self, now):
        if self.clock() < self.due:
            return
        started = self.clock()
        self.draw(now, "; training goes on without the picture")
        done = self.clock()
        self.due = max(self.due, done + max(EVERY, (done - started) * (1 - SHARE) / SHARE))

    def draw(self, now, regret, held_out=()):
        """The curve so far; where it cannot be written that is said, and no other is drawn."""
        try:
            write_png(self.path, now.rows, self.title, held_out)
        except DataError as error:
            say(f"refmaml: {error}{regret}")
            self.due = inf

    def conclude(self, now, result):
        """The whole curve, and the held-out Evaluation `result`."""
        if self.due < inf:
            self.draw(now, "", [(now.step, result)])


class Events:
    """Event files for TensorBoard in `folder`: query/loss and /accuracy, gradient/norm and /cg_residual, held-out/... at the end.

    Of a run that is resumed TensorBoard forgets the steps after `now` which an earlier process wrote.
    Raises DataError where they cannot be written at the beginning, ArgumentError without tensorboardX; later on (a disk that is full) it is
    said once, and training goes on without events.
    """

    def __init__(self, folder, now, clock=time.monotonic):
        require_tensorboardx()
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self.folder, self.clock, self.due, self.last = folder, clock, -inf, now
        own = f".{time.time_ns()}"  # tensorboardX tells files apart by the second, and would write over one
        try:
            # Not its SummaryWriter: the thread of that one dies of a full disk without a word, and the next events wait for it for ever.
            self.writer = EventsWriter(str(make_folder(folder) / "events"), own)
            self.writer.write_event(
                event(now.step + 1, session_log=SessionLog(status=SessionLog.START))
            )
            self.writer.flush()
        except OSError as error:
            raise unwritable(folder, "folder", error) from error
        self.flushed = clock()

    def __call__(self, now):
        self.last = now
        if self.clock() >= self.due:
            self.write(now)
            self.due = self.clock() + APART

    def write(self, now):
        """One event with all figures of the Progress's last step."""
        row, self.last = now.curve[now.step - 1], None
        self.add({tag: getattr(row, name) for name, tag in TAGS.items()}, now.step)

    def add(self, values, step):
        """One event with {tag: value}, but for those that are NaN; on disk within seconds."""
        from tensorboardX.proto.summary_pb2 import Summary

        there = [
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
            if not isnan(value)
        ]
        self.unless_lost(
            lambda writer: writer.write_event(event(step, summary=Summary(value=there)))
        )
        if self.clock() - self.flushed >= EVERY:
            self.unless_lost(lambda writer: writer.flush())
            self.flushed = self.clock()

    def unless_lost(self, act):
        """act(writer); after an OSError, which is said, nothing more."""
        try:
            if self.writer is not None:
                act(self.writer)
        except OSError as error:
            self.writer = None
            say(
                f"refmaml: {unwritable(self.folder, 'folder', error)}; training goes on without events"
            )

    def conclude(self, now, result):
        """The held-out Evaluation `result`."""
        self.add(
            {f"held-out/{result.quantity}": result.mean, "held-out/interval": result.interval},
            now.step,
        )

    def close(self):
        """The last step, if it was left out so far, and everything on disk."""
        if self.last is not None and self.last.step:
            self.write(self.last)
        self.unless_lost(lambda writer: writer.close())


def event(step, **content):
    """An Event of TensorBoard's, of now."""
    from tensorboardX.proto.event_pb2 import Event

    return Event(wall_time=time.time(), step=step, **content)


def require_tensorboardx():
    """Raise ArgumentError unless tensorboardX is installed."""
    expect_installed("tensorboard", "tensorboardX", "'refmaml[tensorboard]'")
