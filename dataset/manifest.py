"""One validated table of videos with groups and splits, from listed videos."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from tristream.dataset.audit import audit
from tristream.dataset.listing import (
    ListedVideo,
    ManifestError,
    index_csv,
    index_folder,
    lonely_classes,
)
from tristream.dataset.official_lists import index_hmdb51, index_ucf101
from tristream.dataset.spelling import composed
from tristream.dataset.splits import held_out_groups
from tristream.dataset.video_row import Manifest, VideoRow
from tristream.dataset.videos_csv import read_manifest, write_manifest
from tristream.media.limits import DEFAULT_LIMITS
from tristream.media.opening import open_file
from tristream.media.reasons import Rejected, printable

if TYPE_CHECKING:
    from tristream.media.probe import Probe

__all__ = [
    "ListedVideo",
    "Manifest",
    "ManifestError",
    "VideoRow",
    "complete",
    "content_id",
    "index_csv",
    "index_folder",
    "index_hmdb51",
    "index_ucf101",
    "read_manifest",
    "write_manifest",
]

_HASH_BYTES = 1 << 20


def complete(
    rows: Sequence[ListedVideo],
    *,
    seed: int = 0,
    root: Path | None = None,
    previous: Manifest | None = None,
    test_fold: str | int | None = None,
    probe: Callable[[Path], Future[Probe]] | None = None,
    follow_links: bool = False,
    notes: Sequence[str] = (),
) -> Manifest:
    """Add groups, splits, content ids and the facts that headers declare to listed videos.

    Without any split, test is held out, then val from the rest; without val, val from train
    (`dataset.splits`).

    Args:
        rows: of one `index_…`.
        seed: of the hold-outs.
        root: the data root; by default the folder that the video ids are relative to.
        previous: an earlier manifest of the same data. Its entries stay, also under a video's new
            name if the bytes are known; only new groups are ranked.
        test_fold: the videos of this fold become test, the other folds train and val, whatever
            their splits were.
        probe: `DecodePool.probe` or similar, called for all videos at once.
        follow_links: also read files that links lead to outside `root`.
        notes: of `index_folder`; they come first in the manifest's warnings.

    Raises:
        ManifestError: no such fold, or a group in two splits.
    """
    root = _common_root(rows) if root is None else root
    facts = {row.video_id: probe(row.path) for row in rows} if probe is not None else {}
    videos = [_identified(row, root, follow_links) for row in rows]
    warnings = [*notes, *lonely_classes(rows)]
    if previous is not None:
        videos = _with_previous(videos, previous, warnings)
    if test_fold is not None:
        videos = _with_test_fold(videos, str(test_fold))
    _check_groups(videos)
    videos = _hold_out(videos, seed)
    warnings += audit(videos)
    videos = [_with_facts(row, facts.get(row.video_id)) for row in videos]
    return Manifest(root, tuple(videos), tuple(warnings))


def content_id(path: Path, *, root: Path | None = None, follow_links: bool = False) -> str:
    """Return the sha256 of a file's bytes in hex.

    Args:
        path: the file.
        root: folder that must contain it; None means anywhere.
        follow_links: allow links that lead out of `root`.

    Raises:
        Rejected: it is no regular file, or cannot be read.
    """
    digest = hashlib.sha256()
    limits = dataclasses.replace(DEFAULT_LIMITS, max_bytes=1 << 62)
    with open_file(path, limits=limits, root=root, follow_links=follow_links) as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _identified(row: ListedVideo, root: Path, follow_links: bool) -> VideoRow:
    try:
        content = content_id(row.path, root=root, follow_links=follow_links)
    except (Rejected, OSError):  # the video stays in the table: decoding rejects it with a reason
        content = ""
    return VideoRow(
        video_id=row.video_id,
        path=row.path,
        label=row.label,
        split=row.split,
        group=row.group or content or row.video_id,
        anomaly=row.anomaly,
        fold=row.fold,
        content_id=content,
    )


def _with_previous(rows: list[VideoRow], previous: Manifest, warnings: list[str]) -> list[VideoRow]:
    """Return the rows as `previous` has them; a row of a known group joins that group's split."""
    by_id = {row.video_id: row for row in previous.rows}
    here = {row.video_id for row in rows}
    gone = {
        row.content_id: row for row in previous.rows if row.video_id not in here and row.content_id
    }
    homes = {composed(row.group): row.split for row in previous.rows if row.split != "unlabelled"}
    merged = []
    for row in rows:
        if row.video_id in by_id:
            merged.append(_as_known(row, by_id[row.video_id], warnings))
        elif row.content_id in gone:  # renamed; its new folder may have given it a new label
            merged.append(
                dataclasses.replace(_as_known(row, gone[row.content_id], []), label=row.label)
            )
        else:
            home = homes.get(row.group, "")
            joins = home and (not row.split or (row.split, home) == ("train", "val"))
            merged.append(dataclasses.replace(row, split=home) if joins else row)
    contents = {row.content_id for row in rows} - {""}
    lost = [
        row.video_id
        for row in previous.rows
        if row.video_id not in here and row.content_id not in contents
    ]
    if lost:
        warnings.append(
            f"{len(lost)} videos of the earlier index are gone (first: {printable(lost[0])})"
        )
    return merged


def _as_known(row: VideoRow, known: VideoRow, warnings: list[str]) -> VideoRow:
    entries = {
        **{name: composed(getattr(known, name)) for name in ("label", "group", "fold")},
        **{name: getattr(known, name) for name in ("split", "anomaly")},
    }
    for name in ("label", "split", "anomaly", "fold"):
        now = getattr(row, name)
        if now not in ("", None, entries[name]) and not (
            name == "split" and now == "train" and entries[name] == "val"
        ):
            warnings.append(
                f"{printable(row.video_id)}: {name} is {entries[name]!r} in the earlier index and"
                f" {now!r} in the list; the earlier one stays (to change it, edit videos.csv)"
            )
    return dataclasses.replace(row, **entries)


def _with_test_fold(rows: list[VideoRow], fold: str) -> list[VideoRow]:
    folds = sorted({row.fold for row in rows if row.fold})
    if fold not in folds:
        raise ManifestError(
            "--test-fold", [f"unknown_fold: {fold!r}; there are {', '.join(folds) or 'none'}"]
        )
    # a row of no fold is never held out: as the only val video it would keep val from the others
    return [
        row
        if row.split == "unlabelled" or (row.split and not row.fold)
        else dataclasses.replace(row, split="test" if row.fold == fold else "train")
        for row in rows
    ]


def _check_groups(rows: Iterable[VideoRow]) -> None:
    homes: dict[str, VideoRow] = {}
    problems = []
    for row in rows:
        if not row.split or row.split == "unlabelled":
            continue
        home = homes.setdefault(row.group, row)
        if home.split != row.split:
            what = (
                "has the same bytes as"
                if row.group == row.content_id
                else f"has the group {row.group!r} of"
            )
            problems.append(
                f"group_in_two_splits: {printable(row.video_id)} ({row.split}) {what} {printable(home.video_id)}"
                f" ({home.split}); put them into one split, or make one of them unlabelled"
            )
    if problems:
        raise ManifestError("splits", problems)


def _hold_out(rows: list[VideoRow], seed: int) -> list[VideoRow]:
    """Give every row a split: test, val or train if it has none; a missing val comes from train."""
    if any(not row.split for row in rows):
        rows = _move(rows, "", "test", seed)
        rows = _move(rows, "", "val", seed)
        rows = [dataclasses.replace(row, split=row.split or "train") for row in rows]
    splits = {row.split for row in rows}
    if "val" not in splits and "train" in splits:
        rows = _move(rows, "train", "val", seed)
    return rows


def _move(rows: list[VideoRow], source: str, target: str, seed: int) -> list[VideoRow]:
    candidates = [row for row in rows if row.split == source]
    inside = [row for row in rows if row.split == "train" and source != "train"]
    outside = [row for row in rows if row.split == target]
    groups = held_out_groups(candidates, seed=seed, inside=inside, outside=outside)
    return [
        dataclasses.replace(row, split=target)
        if row.split == source and row.group in groups
        else row
        for row in rows
    ]


def _with_facts(row: VideoRow, pending: Future[Probe] | None) -> VideoRow:
    if pending is None:
        return row
    try:
        probe = pending.result()
    except Rejected:  # the video stays in the table: decoding rejects it with a reason
        return row
    return dataclasses.replace(
        row,
        n_frames=probe.n_frames,
        fps=probe.fps,
        duration_seconds=probe.duration_seconds,
        height=probe.height,
        width=probe.width,
        has_audio=probe.has_audio,
    )


def _common_root(rows: Sequence[ListedVideo]) -> Path:
    """Folder that the video ids are relative to."""
    for row in rows:
        parts = Path(row.video_id).parts
        if not Path(row.video_id).is_absolute():
            return row.path.parents[len(parts) - 1]
    return Path("/")
