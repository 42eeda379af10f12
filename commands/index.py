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
        int, typer.Option("--split", min=1, max=3, help="Which split of the official lists.")
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

    Without a list, DATA holds one folder per class, or train/, val/ and test/ with one folder per class in each. Videos
    of one group (of one source recording) never come into two splits. Where no split is given, a fifth of the groups is
    held out for test, then a fifth of the rest for val. A second call adds what is new and keeps what was decided
    (--force: decide anew).
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
    rows = _listed(data, list_file, ucf101, hmdb51, split)
    if not rows:
        raise UsageError(
            f"{data} holds no videos in folders of classes, and no videos.csv; see tristream index --help"
        )
    previous = None
    if workspace.manifest_path.exists() and not force:
        previous = manifests.read_manifest(workspace.manifest_path, root=data)
    with decode_pool(workers, limits) as pool:
        screen.note(f"reading the headers of {len(rows)} files ...")
        found = manifests.complete(
            rows, seed=seed, root=data.absolute(), previous=previous, test_fold=test_fold,
            probe=functools.partial(pool.probe, root=data.absolute(), follow_links=follow_links),
            follow_links=follow_links,
        )  # fmt: skip
    if not any(row.label for row in found.rows):
        screen.warn(
            f"no folder of a class was found in {data}: these videos have no label and can only be embedded, or "
            "searched for anomalies. Did you mean the folder above it?"
        )
    for warning in found.warnings:
        screen.warn(warning)
    manifests.write_manifest(found, workspace.manifest_path)
    _show(found)
    screen.note(f"wrote {workspace.manifest_path}")
    screen.emit(_summary(found, workspace.manifest_path), as_json=as_json)
    return screen.OK


def _listed(
    data: Path, list_file: Path | None, ucf101: Path | None, hmdb51: Path | None, split: int
) -> list[manifests.ListedVideo]:
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
        return manifests.index_csv(data / "videos.csv", data)
    return manifests.index_folder(data)


def _summary(found: manifests.Manifest, path: Path) -> dict[str, object]:
    return {
        "videos_csv": str(path),
        "n_videos": len(found.rows),
        "splits": dict(Counter(row.split for row in found.rows)),
        "classes": sorted({row.label for row in found.rows if row.label}),
        "n_groups": len({row.group for row in found.rows}),
        "n_with_sound": sum(row.has_audio is True for row in found.rows),
        "warnings": list(found.warnings),
    }


def _show(found: manifests.Manifest) -> None:
    splits = [
        name
        for name in ("train", "val", "test", "unlabelled")
        if any(row.split == name for row in found.rows)
    ]
    counts = Counter((row.label, row.split) for row in found.rows)
    labels = sorted({row.label for row in found.rows})
    rows = [
        [label or "(no label)", *(str(counts[label, split]) for split in splits)]
        for label in labels
    ]
    rows.append(["all", *(str(sum(row.split == split for row in found.rows)) for split in splits)])
    screen.table(
        f"{len(found.rows)} videos, {len({r.group for r in found.rows})} groups",
        ["class", *splits],
        rows,
    )
    silent = sum(row.has_audio is False for row in found.rows)
    if silent:
        screen.note(
            f"{silent} of {len(found.rows)} videos have no sound: their audio stream is masked"
        )
