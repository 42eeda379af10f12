"""tristream index: a labelled folder, a CSV or official lists → RUN/videos.csv."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from tristream.commands import options, screen, settings
from tristream.commands.workspace import Workspace, decode_pool, say_links
from tristream.dataset import manifest as manifests
from tristream.dataset.folders import FolderScan, scan_folder
from tristream.errors import UsageError


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
    if not data.is_dir():
        raise UsageError(f"--data {data} is not a folder")
    workspace = Workspace(run, options.CACHE)
    workspace.check_writable(run)
    limits = settings.limits(config, assignments or ())
    say_links(data, follow_links)
    scan = scan_folder(data)
    notes: list[str] = []
    rows = _listed(scan, list_file, ucf101, hmdb51, split, notes)
    if account := scan.account():
        screen.note(account)
    if n_unlisted := len(set(scan.files) - {row.path for row in rows}):
        files = "file is" if n_unlisted == 1 else "files are"
        screen.note(f"{n_unlisted} media {files} below {data} but not in the list")
    previous = None
    if workspace.manifest_path.exists() and not force:
        previous = manifests.read_manifest(workspace.manifest_path, root=data)
    with decode_pool(workers, limits) as pool:
        screen.note(f"reading the headers of {len(rows)} files ...")
        videos = manifests.complete(
            rows, seed=seed, root=data.absolute(), previous=previous, test_fold=test_fold,
            probe=functools.partial(pool.probe, root=data.absolute(), follow_links=follow_links),
            follow_links=follow_links, notes=notes,
        )  # fmt: skip
    if not any(row.label for row in videos.rows):
        screen.warn(
            f"{data} has no class folders: its videos have no label and can only be embedded or "
            "searched for anomalies; for labels, give --data with the folder above it, or a list "
            "with a column label"
        )
    for warning in videos.warnings:
        screen.warn(warning)
    manifests.write_manifest(videos, workspace.manifest_path)
    _show(videos)
    if folds := _folds(videos, test_fold):
        screen.note(folds)
    screen.note(f"wrote {workspace.manifest_path}")
    summary = _summary(videos, workspace.manifest_path)
    screen.emit(
        {**summary, "skipped": dict(scan.skipped), "n_unlisted": n_unlisted}, as_json=as_json
    )
    return screen.OK


def _listed(
    scan: FolderScan,
    list_file: Path | None,
    ucf101: Path | None,
    hmdb51: Path | None,
    split: int,
    notes: list[str],
) -> list[manifests.ListedVideo]:
    data = scan.root
    given = [
        name
        for name, value in (("--list", list_file), ("--ucf101", ucf101), ("--hmdb51", hmdb51))
        if value
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other; give one of them")
    if ucf101 is not None:
        return manifests.index_ucf101(data, ucf101, split)
    if hmdb51 is not None:
        return manifests.index_hmdb51(data, hmdb51, split)
    if list_file is not None:
        return manifests.index_csv(list_file, data)
    if (data / "videos.csv").exists():
        screen.note(f"reading the list {data / 'videos.csv'}")
        return manifests.index_csv(data / "videos.csv", data)
    return manifests.index_folder(data, scan=scan, notes=notes)


def _folds(videos: manifests.Manifest, test_fold: str | None) -> str:
    """Return a sentence about the column `fold`, "" without one."""
    folds = sorted(
        {row.fold for row in videos.rows if row.fold}, key=lambda fold: (len(fold), fold)
    )
    if not folds:
        return ""
    shown = f"{', '.join(folds[:10])}{', …' if len(folds) > 10 else ''}"
    if test_fold is not None:
        return (
            f"the column fold has {len(folds)} values ({shown}); fold {test_fold} is test, the "
            "others are train and val"
        )
    return (
        f"the column fold has {len(folds)} values ({shown}) and was not used for these splits; "
        f"to test on one of them: --test-fold {folds[0]}"
    )


def _summary(videos: manifests.Manifest, path: Path) -> dict[str, object]:
    return {
        "videos_csv": str(path),
        "n_videos": len(videos.rows),
        "splits": dict(Counter(row.split for row in videos.rows)),
        "classes": sorted({row.label for row in videos.rows if row.label}),
        "folds": sorted({row.fold for row in videos.rows if row.fold}),
        "n_groups": len({row.group for row in videos.rows}),
        "n_with_sound": sum(row.has_audio is True for row in videos.rows),
        "warnings": list(videos.warnings),
    }


def _show(videos: manifests.Manifest) -> None:
    splits = [
        name
        for name in ("train", "val", "test", "unlabelled")
        if any(row.split == name for row in videos.rows)
    ]
    counts = Counter((row.label, row.split) for row in videos.rows)
    labels = sorted({row.label for row in videos.rows})
    rows = [
        [label or "(no label)", *(str(counts[label, split]) for split in splits)]
        for label in labels
    ]
    rows.append(["all", *(str(sum(row.split == split for row in videos.rows)) for split in splits)])
    screen.table(
        f"{len(videos.rows)} videos, {len({r.group for r in videos.rows})} groups",
        ["class", *splits],
        rows,
    )
    silent = sum(row.has_audio is False for row in videos.rows)
    if silent:
        screen.note(
            f"{silent} of {len(videos.rows)} videos have no audio: their audio stream is masked"
        )
