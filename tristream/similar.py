"""Videos of a run that are most similar to one video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.dataset.listing import video_id_of
from tristream.embeddings import fuse_tables
from tristream.errors import UsageError
from tristream.fused import read_tables, side_by_side, trained_spaces
from tristream.paths import expanded
from tristream.predict import embed_new
from tristream.results import Results
from tristream.workspace import Workspace, check_names

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow


@dataclass(frozen=True)
class Similar:
    """Video of the run that is similar to the query.

    Attributes:
        video_id, label, split: of the run.
        cosine: of standardised embeddings, over the streams that both videos have.
        streams: those streams.
    """

    video_id: str
    cosine: float
    label: str
    split: str
    streams: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "video_id": self.video_id,
            "cosine": self.cosine,
            "label": self.label,
            "split": self.split,
            "streams": list(self.streams),
        }


def similar(
    workspace: Workspace,
    video: str | Path,
    *,
    n_videos: int = 10,
    streams: Sequence[str] | None = None,
    split: str | None = None,
) -> Results[Similar]:
    """Return the most similar videos, most similar first; the video itself is not listed.

    Args:
        workspace: of the run.
        video: video_id of the run, or any file; a file outside the run is embedded first. A file
            that is rejected is in `failures` of the results.
        n_videos: at most so many.
        streams: trained streams to compare; None: all.
        split: only videos of this split.

    Raises:
        UsageError: no such video, no embeddings, or a split that no video is in.
    """
    from tristream.fusion.nearest import cosines, most_alike
    from tristream.fusion.standardise import fit_standardiser

    manifest = workspace.manifest()
    spaces = trained_spaces(workspace, check_names(streams))
    tables = read_tables(workspace, spaces)
    ids = list(next(iter(tables.values())).video_id)
    X, _, columns = fuse_tables(side_by_side(tables, ids, workspace.folder))
    rows = {row.video_id: row for row in manifest.rows}
    own = _own_row(str(video), ids, manifest.root)
    if own is None:
        path = expanded(video)
        if not path.exists():
            run = workspace.folder
            raise UsageError(
                f"{video} is no video_id of {run} and no file; video_ids are in {run}/videos.csv"
            )
        embeddings = embed_new(workspace, [path], spaces)
        if embeddings.failures:
            return Results((), embeddings.failures)
        query, _, _ = fuse_tables(embeddings)
    else:
        query = X[[own]]
    standardiser = fit_standardiser(X, columns=columns)
    cosine = cosines(standardiser, query, X)[0]
    if own is not None:
        cosine[own] = np.nan
    if split is not None:
        _check_split(split, manifest.rows)
        cosine[[name not in rows or rows[name].split != split for name in ids]] = np.nan
    shared = standardiser.masks(X) & standardiser.masks(query)[0]
    return Results(
        [
            Similar(
                video_id=ids[k],
                cosine=round(float(cosine[k]), 6),
                label=rows[ids[k]].label if ids[k] in rows else "",
                split=rows[ids[k]].split if ids[k] in rows else "",
                streams=tuple(n for n, both in zip(spaces, shared[k], strict=True) if both),
            )
            for k in most_alike(cosine, n_videos)
        ]
    )


def _own_row(video: str, ids: Sequence[str], root: Path) -> int | None:
    """Return the row of a video of the run, by its id or its path, else None."""
    place = {name: row for row, name in enumerate(ids)}
    if video in place:
        return place[video]
    return place.get(video_id_of(Path(video).absolute(), root))


def _check_split(split: str, rows: Sequence[VideoRow]) -> None:
    known = sorted({row.split for row in rows})
    if split not in known:
        raise UsageError(
            f"--split {split}: no video of this run is in it; there are {', '.join(known)}"
        )
