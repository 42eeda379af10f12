"""What predict and detect share: new videos through the run's streams, as the fitted decision knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.commands.embed import results_of, say, tables_of
from tristream.commands.workspace import Workspace, given_rows, write_csv, write_json
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.streams.extraction import VideoResult


@dataclass(frozen=True)
class NewVideos:
    """Embeddings of videos that were given on the command line.

    Attributes:
        results: what became of each, rejected ones included.
        X: fused embeddings of those that were not rejected.
        masks: which streams they have.
        columns: {stream: slice}.
        typed: absolute path → the path as it was typed.
    """

    results: list[VideoResult]
    X: np.ndarray
    masks: np.ndarray
    columns: dict[str, slice]

    typed: dict[Path, Path]

    def name(self, result: VideoResult) -> str:
        """The path of a video as it was typed."""
        return str(self.typed[result.video.path])

    @property
    def usable(self) -> list[VideoResult]:
        """The results that have a row in X."""
        return [result for result in self.results if not result.rejected]


def load_decision(path: Path, run: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """An artifact of `fuse`.

    Raises:
        UsageError: there is none yet.
    """
    from tristream.store.checkpoint import load_artifact

    if not path.with_name(f"{path.name}.json").exists():
        raise UsageError(f"{path}.json does not exist; make it first: tristream fuse --run {run}")
    return load_artifact(path)


def embed_new(
    paths: Sequence[Path],
    workspace: Workspace,
    spaces: Mapping[str, str],
    columns: Sequence[str],
    *,
    device: str,
    workers: int,
    flow_from: Path | None = None,
) -> NewVideos:
    """The given videos in the spaces a decision was fitted in.

    Raises:
        UsageError: a stream was trained again since.
    """
    from tristream.fusion.concatenate import fuse_tables

    trained = workspace.load_streams(list(columns))
    for stream in trained:
        if stream.space_id != spaces[stream.name]:
            raise UsageError(
                f"the stream '{stream.name}' now gives embeddings of space {stream.space_id}, the decision was fitted "
                f"in {spaces[stream.name]}; run tristream embed and tristream fuse with --run {workspace.run}"
            )
    root = workspace.manifest(None).root if workspace.manifest_path.exists() else None
    results = list(results_of(given_rows(paths, root), trained, workspace, root, device=device, workers=workers,
                              flow_from=flow_from))  # fmt: skip
    say(results, stored=False)
    typed = {path.absolute(): path for path in paths}
    if all(result.rejected for result in results):
        return NewVideos(results, np.zeros((0, 0)), np.zeros((0, len(columns)), bool), {}, typed)
    X, masks, found = fuse_tables(tables_of(trained, results))
    return NewVideos(results, X, masks, found, typed)


def check_out(out: Path | None) -> None:
    """Refuses a file name nothing can be written to as, before any work.

    Raises:
        UsageError: another ending than .csv or .json.
    """
    if out is not None and out.suffix not in (".csv", ".json"):
        raise UsageError(f"--out {out} ends in '{out.suffix}'; it must end in .csv or .json")


def write_out(
    out: Path | None,
    rows: Sequence[Mapping[str, Any]],
    flat: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> None:
    """The rows as .csv (flattened) or .json."""
    if out is None:
        return
    if out.suffix == ".json":
        write_json(out, list(rows))
    else:
        cells = [flat(row) for row in rows]
        header = list(dict.fromkeys(name for row in cells for name in row))
        write_csv(out, header, [[row.get(name, "") for name in header] for row in cells])
