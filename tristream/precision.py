"""Precision of a run's networks: chosen once and measured on the user's own videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tristream.errors import UsageError
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.streams.extraction import VideoResult
    from tristream.streams.model import TrainedStream

N_COMPARED = 3  # videos that are embedded in both precisions
LEAST_COSINE = 0.99  # between a video's embeddings in both precisions; below, a warning


def in_precision(
    workspace: Workspace,
    wanted: str | None,
    trained: Sequence[TrainedStream],
    rows: Sequence[VideoRow],
    embed: Callable[[Sequence[VideoRow], Sequence[TrainedStream]], Iterator[VideoResult]],
) -> list[TrainedStream]:
    """Return the streams in the wanted precision, which the run keeps; None: as chosen before.

    Before bf16 is used, the first videos are embedded in both precisions and the difference is
    reported.

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
        first = rows[:N_COMPARED]
        results = list(embed(first, exact)), list(embed(first, coarse))
        for stream in coarse:
            _report(workspace, stream, *results)
    for stream, before in zip(chosen, trained, strict=True):
        if stream.precision != before.precision:
            model.set_precision(workspace.stream_dir(stream.name), stream)
            workspace.progress.note(
                f"{stream.name}: {stream.precision} in this run from now on; it is another "
                "embedding space"
            )
    return chosen


def _report(
    workspace: Workspace,
    stream: TrainedStream,
    exact: Sequence[VideoResult],
    coarse: Sequence[VideoResult],
) -> None:
    """Report the error of one stream's segment and video embeddings relative to float32."""
    name = stream.name
    pairs = [
        (a, b)
        for a, b in zip(exact, coarse, strict=True)
        if name in a.embeddings and name in b.embeddings
    ]
    if not pairs:
        workspace.progress.note(f"{name}: none of the first videos has this stream to compare")
        return
    segments = [(a.segments[name].embedding, b.segments[name].embedding) for a, b in pairs]
    videos = [(a.embeddings[name], b.embeddings[name]) for a, b in pairs]
    cosine = min(_cosine(a, b) for a, b in videos)
    workspace.progress.note(
        f"{name}: bf16 against float32 on {len(pairs)} of your videos: relative error of segment "
        f"embeddings {_error(segments):.2%}, of video embeddings {_error(videos):.2%}, least "
        f"cosine {cosine:.5f}"
    )
    if cosine < LEAST_COSINE:
        workspace.progress.warn(
            f"{name}: a video's embedding turns by a cosine of {cosine:.4f} in bf16; "
            "--precision float32 takes it back"
        )


def _error(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Relative error over all pairs: ‖a − b‖ / ‖a‖."""
    difference = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
    size = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in pairs)
    return float(np.sqrt(difference / size)) if size else 0.0


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a.astype(np.float64) @ b) / lengths if lengths else 1.0
