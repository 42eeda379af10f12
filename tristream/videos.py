"""Videos of a run as the streams read them: paths, contents, and one decode process pool."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream import streams
from tristream.dataset.folders import scan_folder
from tristream.dataset.listing import video_id_of
from tristream.dataset.manifest import VideoRow, content_id
from tristream.errors import UsageError
from tristream.media.reasons import Rejected
from tristream.paths import expanded
from tristream.progress import SILENT, Progress
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.media.sandbox.pool import DecodePool
    from tristream.store.cache import Cache
    from tristream.streams.flow_estimators import Estimators
    from tristream.streams.model import TrainedStream
    from tristream.streams.reading import Reading
    from tristream.streams.timings import Stages
    from tristream.streams.video import Decoder, Video


@contextlib.contextmanager
def decode_pool(workspace: Workspace) -> Iterator[DecodePool]:
    """Open decode processes; OpenCV keeps one thread here: several videos run at the same time."""
    import cv2

    from tristream.media.sandbox.pool import SHARE_OF_MEMORY, DecodePool

    cv2.setNumThreads(1)
    limits, n_workers = workspace.reading.limits, workspace.compute.workers
    with DecodePool(n_workers, limits=limits) as pool:
        if pool.n_workers < n_workers:
            workspace.progress.note(
                f"{pool.n_workers} instead of {n_workers} decode processes: each may use "
                f"{limits.memory_bytes >> 20} MiB, all of them {SHARE_OF_MEMORY:.0%} of this "
                "machine's memory"
            )
        yield pool


def decoder(pool: DecodePool, reading: Reading) -> Decoder:
    """Return a function that decodes one video in a process of the pool and waits for it."""

    def decode(
        path: Path, *, pictures: bool, sound: bool, max_side: int, stop_seconds: float
    ) -> Any:
        return pool.submit(
            path,
            pictures=pictures,
            sound=sound,
            max_side=max_side,
            stop_seconds=stop_seconds,
            root=reading.inside(path),
            follow_links=reading.follow_links,
        ).result()

    return decode


def note_links(workspace: Workspace, root: Path) -> None:
    """Print the real data root if links may lead out of it."""
    if workspace.reading.follow_links:
        workspace.progress.note(
            f"links are followed wherever they lead; the data root is {Path(root).resolve()}"
        )


def contents(
    rows: Sequence[VideoRow], reading: Reading, *, progress: Progress = SILENT, n_threads: int = 1
) -> dict[str, str]:
    """Return {video_id: sha256 of the current bytes}.

    A file that cannot be read gets a name under which nothing is cached; decoding reports why.

    Args:
        rows: videos.
        reading: root and links.
        progress: gets a bar.
        n_threads: files that are read at once.
    """

    def digest(row: VideoRow) -> str:
        try:
            return content_id(
                row.path, root=reading.inside(row.path), follow_links=reading.follow_links
            )
        except (Rejected, OSError):
            return f"unreadable {row.video_id}"

    digests = {}
    with (
        progress.bar("reading the contents of files", len(rows)) as move,
        ThreadPoolExecutor(n_threads) as pool,
    ):
        for row, found in zip(rows, pool.map(digest, rows), strict=True):
            digests[row.video_id] = found
            move()
    return digests


def given_rows(paths: Sequence[Path], root: Path | None) -> list[VideoRow]:
    """Return rows of the paths: video_ids relative to the root if inside it, else absolute."""
    return [
        VideoRow(
            video_id=video_id_of(path.absolute(), root),
            path=path.absolute(),
            label="",
            split="unlabelled",
            group="",
            anomaly=None,
            fold="",
            content_id="",
        )
        for path in paths
    ]


def expand_paths(paths: Sequence[str | Path]) -> list[Path]:
    """Return the media files that paths, folders and glob patterns stand for, in order.

    Raises:
        UsageError: a folder without media files, or a pattern without a match.
    """
    files: list[Path] = []
    for given in paths:
        path = expanded(given)
        if path.is_dir():
            inside = scan_folder(path).files
            if not inside:
                raise UsageError(f"{given} holds no file with the suffix of a video or audio file")
            files += inside
        elif not path.exists() and glob.has_magic(str(path)):
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - an absolute pattern
            if not matches:
                raise UsageError(f"{given} matches no file")
            files += expand_paths(matches)
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def make_video(
    row: VideoRow,
    content: str,
    trained: Sequence[TrainedStream],
    *,
    decode: Decoder,
    cache: Cache,
    flow_from: Path | None = None,
    estimators: Estimators | None = None,
    stages: Stages | None = None,
) -> Video:
    """Return a video as the trained streams read it; tracks that none of them needs stay undecoded."""
    from tristream.streams.video import FlowSource, Video, View

    wanted = [streams.stream_class(stream.name) for stream in trained]
    return Video(
        row.video_id,
        row.path,
        content,
        decode=decode,
        cache=cache,
        view=View(
            trained[0].data,
            trained[0].sampler,
            pictures=any(stream.needs_pictures for stream in wanted),
            sound=any(stream.needs_sound for stream in wanted),
        ),
        flow_source=FlowSource(estimators, flow_from),
        stages=stages,
    )
