"""Training and validation examples: footage, or segment embeddings of a frozen encoder, per video."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tristream.errors import UsageError
from tristream.media.reasons import Rejected
from tristream.pretrained import places
from tristream.videos import decode_pool, decoder, make_video
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.streams.backend import Backend
    from tristream.streams.model import TrainedStream
    from tristream.streams.training import Example
    from tristream.streams.video import Video

SPOOL_BYTES = 1 << 16  # larger arrays are kept on disk while the stream trains


@dataclass
class Examples:
    """Examples of one stream.

    Attributes:
        train, val: one per video that has the stream.
        n_rejected: videos that could not be used.
    """

    train: list[Example] = field(default_factory=list)
    val: list[Example] = field(default_factory=list)
    n_rejected: int = 0


def read_examples(
    workspace: Workspace,
    stream: TrainedStream,
    rows: Sequence[VideoRow],
    content: Mapping[str, str],
    *,
    backend: Backend,
) -> Examples:
    """Read every video once and return what the stream learns from.

    Args:
        workspace: of the run; its `reading.root` is the data root.
        stream: with the encoder it starts from.
        rows: labelled videos of train and val.
        content: {video_id: sha256 of the bytes}.
        backend: engine of frozen encoders and flow networks.
    """
    from tristream.streams.segments import Absent, Footage
    from tristream.streams.spool import Spool
    from tristream.streams.training import Example

    name, progress = stream.name, workspace.progress
    by_id = {row.video_id: row for row in rows}
    examples, absent = Examples(), []
    spool = Spool(min_bytes=SPOOL_BYTES)
    with (
        _inputs(workspace, stream, rows, content, backend) as inputs,
        progress.bar(f"{name}: reading", len(by_id)) as move,
    ):
        for video, value in inputs:
            move()
            row = by_id[video.video_id]
            label = stream.classes.index(row.label)
            split = examples.train if row.split == "train" else examples.val
            if isinstance(value, Rejected | str):
                progress.warn(f"rejected: {value}")
                examples.n_rejected += 1
            elif isinstance(value, Absent):
                absent.append(value.reason)
            elif isinstance(value, Footage):
                footage = replace(value, array=spool.keep(value.array))
                split.append(Example(video.video_id, footage, label))
            else:
                split.append(Example(video.video_id, None, label, spool.keep(value)))
    for reason in sorted(set(absent)):
        n = absent.count(reason)
        progress.note(f"{name}: {n} of {len(by_id)} videos are skipped ({reason})")
    return examples


def training_classes(name: str, rows: Sequence[VideoRow]) -> list[str]:
    """Return the sorted labels of the training split.

    Raises:
        UsageError: fewer than two classes, no val split, or a class in the val split only.
    """
    classes = sorted({row.label for row in rows if row.split == "train"})
    if len(classes) < 2:
        what = f"one class only ('{classes[0]}')" if classes else "no labelled video"
        raise UsageError(
            f"the training split has {what}; a classifier needs two. Take a trained stream from "
            f"another run: tristream train-stream {name} --from RUN"
        )
    if not any(row.split == "val" for row in rows):
        raise UsageError(
            "no labelled video is in the val split; the best epoch is chosen by it. "
            "Run tristream index"
        )
    unknown = sorted({row.label for row in rows if row.split == "val"} - set(classes))
    if unknown:
        raise UsageError(
            f"class '{unknown[0]}' is in the val split only; put some of its videos into train"
        )
    return classes


@contextlib.contextmanager
def _inputs(
    workspace: Workspace,
    stream: TrainedStream,
    rows: Sequence[VideoRow],
    content: Mapping[str, str],
    backend: Backend,
) -> Iterator[Iterator[tuple[Video, Any]]]:
    """Open the decode pool; yield pairs of a video and its footage or segment embeddings."""
    from tristream.streams.extraction import encode_videos, gather_footage
    from tristream.streams.flow_needs import estimators_for

    cache, reading = workspace.cache(), workspace.reading
    where = places(workspace.weights_dir, workspace.cache_dir)
    flow = estimators_for([stream.stream], where=where)
    flow.backend = backend
    with decode_pool(workspace) as pool:
        videos = [
            make_video(
                row,
                content[row.video_id],
                [stream],
                decode=decoder(pool, reading),
                cache=cache,
                flow_from=reading.flow_from,
                estimators=flow,
            )
            for row in rows
        ]
        n_threads = workspace.compute.workers + 1
        if _encodes_once(stream):
            yield encode_videos(videos, stream, cache=cache, backend=backend, n_threads=n_threads)
        else:
            yield gather_footage(videos, stream.stream, n_threads=n_threads)


def _encodes_once(stream: TrainedStream) -> bool:
    """True if the encoder learns nothing and every video is seen in one view."""
    config = stream.config
    return config.encoder_training.mode == "frozen" and config.aggregator_training.n_views == 1
