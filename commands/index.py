"""tristream index: read a labelled folder, a list or official lists into RUN/videos.csv."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.dataset.manifest import Manifest
    from tristream.index import Indexed


@screen.command
def run(
    data: options.Data = None,
    list_file: Annotated[
        Path | None,
        typer.Option(
            "--list", help="CSV: path,label[,split,group,anomaly,fold]. Default: DATA/videos.csv."
        ),
    ] = None,
    ucf101: Annotated[
        Path | None, typer.Option("--ucf101", help="Folder of UCF101's official lists.")
    ] = None,
    hmdb51: Annotated[
        Path | None, typer.Option("--hmdb51", help="Folder of HMDB51's official lists.")
    ] = None,
    split: Annotated[
        int, typer.Option("--split", min=1, max=3, help="Number of the official split.")
    ] = 1,
    test_fold: Annotated[
        str | None, typer.Option("--test-fold", help="The fold that becomes the test split.")
    ] = None,
    run: options.Run = options.RUN,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    follow_links: options.FollowLinks = False,
    seed: options.Seed = 0,
    workers: options.Workers = options.WORKERS,
    as_json: options.Json = False,
    force: options.Force = False,
) -> int:
    """Read a labelled folder, a CSV or official lists into RUN/videos.csv.

    Without a list, DATA holds one folder per class, or train/, val/ and test/ (in any case;
    training, valid and the like too) with one folder per class in each; ambiguous folder names are
    refused. Videos of one group (one source recording) stay in one split. Without splits, a fifth
    of the groups is held out for test, then a fifth of the rest for val. A second call adds new
    videos and keeps earlier decisions (--force: decide again).
    """
    if data is None:
        raise UsageError(
            "--data is missing; name the folder that holds the videos: tristream index --data DIR"
        )
    from tristream.index import IndexOptions, folds_sentence, index

    workspace = options.workspace(
        run,
        limits=options.limits(config, assignments),
        follow_links=follow_links,
        workers=workers,
    )
    chosen = IndexOptions(list_file, ucf101, hmdb51, split, test_fold, seed, force)
    indexed = index(workspace, data, chosen)
    _show(indexed.manifest)
    if folds := folds_sentence(indexed.manifest, test_fold):
        screen.note(folds)
    screen.note(f"wrote {workspace.manifest_path}")
    screen.emit(_summary(indexed, workspace.manifest_path), as_json=as_json)
    return screen.OK


def _summary(indexed: Indexed, path: Path) -> dict[str, object]:
    rows = indexed.manifest.rows
    return {
        "videos_csv": str(path),
        "n_videos": len(rows),
        "splits": dict(Counter(row.split for row in rows)),
        "classes": sorted({row.label for row in rows if row.label}),
        "folds": sorted({row.fold for row in rows if row.fold}),
        "n_groups": len({row.group for row in rows}),
        "n_with_sound": sum(row.has_audio is True for row in rows),
        "warnings": list(indexed.manifest.warnings),
        "skipped": dict(indexed.skipped),
        "n_unlisted": indexed.n_unlisted,
    }


def _show(manifest: Manifest) -> None:
    splits = [
        name
        for name in ("train", "val", "test", "unlabelled")
        if any(row.split == name for row in manifest.rows)
    ]
    counts = Counter((row.label, row.split) for row in manifest.rows)
    labels = sorted({row.label for row in manifest.rows})
    rows = [
        [label or "(no label)", *(str(counts[label, split]) for split in splits)]
        for label in labels
    ]
    rows.append(
        ["all", *(str(sum(row.split == split for row in manifest.rows)) for split in splits)]
    )
    screen.table(
        f"{len(manifest.rows)} videos, {len({r.group for r in manifest.rows})} groups",
        ["class", *splits],
        rows,
    )
    silent = sum(row.has_audio is False for row in manifest.rows)
    if silent:
        screen.note(
            f"{silent} of {len(manifest.rows)} videos have no audio: their audio stream is masked"
        )
