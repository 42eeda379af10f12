"""The precision a run's networks compute in: chosen once, measured on the user's own videos, never silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tristream.commands import screen
from tristream.commands.workspace import Workspace
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.streams.extraction import VideoResult
    from tristream.streams.model import TrainedStream

N_COMPARED = 3  # videos that are embedded in both precisions
LEAST_COSINE = 0.99  # of a video's embeddings; below, it is said in yellow


def in_precision(
    wanted: str | None,
    trained: Sequence[TrainedStream],
    rows: Sequence[VideoRow],
    workspace: Workspace,
    embed: Callable[[Sequence[VideoRow], Sequence[TrainedStream]], Iterator[VideoResult]],
) -> list[TrainedStream]:
    """The streams in the precision that is asked for, which is theirs from now on; None: as it was chosen before.

    Before bf16 is used, the first videos are embedded in both, and the difference is printed.

    Raises:
        UsageError: an unknown precision.
    """
    from tristream.streams import model
    from tristream.streams.backend import PRECISIONS

    if wanted not in (None, *PRECISIONS):
        raise UsageError(f"--precision {wanted} is unknown; available: {', '.join(PRECISIONS)}")
    chosen = [replace(stream, precision=wanted or stream.precision) for stream in trained]
    coarse = [stream for stream in chosen if stream.precision != "float32"]
    if coarse:
        exact = [replace(stream, precision="float32") for stream in coarse]
        some = rows[:N_COMPARED]
        _say(coarse, list(embed(some, exact)), list(embed(some, coarse)))
    for stream, before in zip(chosen, trained, strict=True):
        if stream.precision != before.precision:
            model.set_precision(workspace.stream_dir(stream.name), stream)
            screen.note(
                f"{stream.name}: {stream.precision} in this run from now on; it is another embedding space"
            )
    return chosen


def _say(
    streams: Sequence[TrainedStream], exact: Sequence[VideoResult], coarse: Sequence[VideoResult]
) -> None:
    rows, worst = [], 1.0
    for stream in streams:
        pairs = [
            (a, b)
            for a, b in zip(exact, coarse, strict=True)
            if stream.name in a.embeddings and stream.name in b.embeddings
        ]
        if not pairs:
            rows.append([stream.name, "0", "–", "–", "–"])
            continue
        segments = [
            (a.segments[stream.name].embedding, b.segments[stream.name].embedding) for a, b in pairs
        ]
        videos = [(a.embeddings[stream.name], b.embeddings[stream.name]) for a, b in pairs]
        cosine = min(_cosine(a, b) for a, b in videos)
        worst = min(worst, cosine)
        rows.append(
            [
                stream.name,
                str(len(pairs)),
                f"{_error(segments):.2%}",
                f"{_error(videos):.2%}",
                f"{cosine:.5f}",
            ]
        )
    header = ["stream", "videos", "error of segments", "error of videos", "least cosine"]
    screen.table(
        "bf16 against float32 on your videos",
        header,
        rows,
        caption="relative to the size in float32",
    )
    if worst < LEAST_COSINE:
        screen.warn(
            f"a video's embedding turns by a cosine of {worst:.4f} in bf16; --precision float32 takes it back"
        )


def _error(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Of all together: ‖difference‖ / ‖first‖."""
    difference = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
    size = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in pairs)
    return float(np.sqrt(difference / size)) if size else 0.0


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a.astype(np.float64) @ b) / lengths if lengths else 1.0
