"""Training curves: metrics.jsonl for programs, a TensorBoard event file beside it for people."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from tristream.store.atomic import write_bytes

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter

EVENTS = "events.out.tfevents.tristream"  # TensorBoard reads what has `tfevents` in its name; no host's name in it


class Curves:
    """Takes the metrics of one epoch after the other; both files are of this training alone, whatever was there.

    tensorboard --logdir RUN/streams

    Args:
        folder: of the stream.
        is_writing: False for a process that trains along and leaves the files to another.
    """

    def __init__(self, folder: Path, *, is_writing: bool = True) -> None:
        self._folder = folder
        self._is_writing = is_writing
        self._lines: list[str] = []
        self._file: IO[bytes] | None = None
        self._events: RecordWriter | None = None

    def add(self, phase: str, metrics: Mapping[str, float]) -> None:
        """One epoch of one phase."""
        if not self._is_writing:
            return
        self._lines.append(json.dumps({"phase": phase, **metrics}))
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._events is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = (self._folder / EVENTS).open("wb")
            self._events = RecordWriter(self._file)
            self._events.write(
                Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()
            )
        values = [
            Summary.Value(tag=f"{phase}/{name}", simple_value=value)
            for name, value in metrics.items()
            if name != "epoch"
        ]
        event = Event(
            wall_time=time.time(), step=int(metrics["epoch"]), summary=Summary(value=values)
        )
        self._events.write(event.SerializeToString())
        self._events.flush()

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._lines:
            write_bytes(self._folder / "metrics.jsonl", ("\n".join(self._lines) + "\n").encode())
