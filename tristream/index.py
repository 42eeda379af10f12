"""Videos of a data set: a labelled folder, a list or official lists, written as RUN/videos.csv."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tristream.errors import UsageError
from tristream.paths import expanded
from tristream.videos import decode_pool, note_links
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.folders import FolderScan
    from tristream.dataset.listing import ListedVideo
    from tristream.dataset.manifest import Manifest


@dataclass(frozen=True)
class IndexOptions:
    """Choices of indexing; at most one of the three lists.

    Attributes:
        list_file: CSV with path, label[, split, group, anomaly, fold]; None: DATA/videos.csv, else
            folders of classes.
        ucf101, hmdb51: folders of official lists.
        split: which split of the official lists, 1 to 3.
        test_fold: fold that becomes the test split.
        seed: of the held-out groups.
        force: decide splits again instead of keeping those of an earlier videos.csv.
    """

    list_file: Path | None = None
    ucf101: Path | None = None
    hmdb51: Path | None = None
    split: int = 1
    test_fold: str | None = None
    seed: int = 0
    force: bool = False


@dataclass(frozen=True)
class Indexed:
    """Result of indexing.

    Attributes:
        manifest: videos with label, split and group, header facts, and warnings.
        skipped: files of the folder that are no media files, by kind.
        n_unlisted: media files of the folder that the list does not have.
    """

    manifest: Manifest
    skipped: Mapping[str, int]
    n_unlisted: int


def index(workspace: Workspace, data: str | Path, options: IndexOptions | None = None) -> Indexed:
    """Read which videos there are, probe them and write RUN/videos.csv.

    Args:
        workspace: of the run.
        data: folder that holds the videos.
        options: lists, folds, seed.

    Raises:
        UsageError: no such folder, no videos, two lists.
        ManifestError: a list with problems, or folders that could mean two things.
    """
    from tristream.dataset import manifest as manifests
    from tristream.dataset.folders import scan_folder

    options, data = options or IndexOptions(), expanded(data)
    progress = workspace.progress
    if not data.is_dir():
        raise UsageError(f"--data {data} is not a folder")
    workspace.check_writable(workspace.folder)
    note_links(workspace, data)
    scan = scan_folder(data)
    notes: list[str] = []
    rows = _listed(workspace, scan, options, notes)
    if account := scan.account():
        progress.note(account)
    if n_unlisted := len(set(scan.files) - {row.path for row in rows}):
        files = "file is" if n_unlisted == 1 else "files are"
        progress.note(f"{n_unlisted} media {files} below {data} but not in the list")
    previous = None
    if workspace.manifest_path.exists() and not options.force:
        previous = manifests.read_manifest(workspace.manifest_path, root=data)
    root, reading = data.absolute(), workspace.reading
    with decode_pool(workspace) as pool:
        progress.note(f"reading the headers of {len(rows)} files ...")
        probe = functools.partial(pool.probe, root=root, follow_links=reading.follow_links)
        manifest = manifests.complete(
            rows,
            seed=options.seed,
            root=root,
            previous=previous,
            test_fold=options.test_fold,
            probe=probe,
            follow_links=reading.follow_links,
            notes=notes,
        )
    if not any(row.label for row in manifest.rows):
        progress.warn(
            f"{data} has no class folders: its videos have no label and can only be embedded or "
            "searched for anomalies; for labels, give --data with the folder above it, or a list "
            "with a column label"
        )
    for warning in manifest.warnings:
        progress.warn(warning)
    manifests.write_manifest(manifest, workspace.manifest_path)
    return Indexed(manifest, scan.skipped, n_unlisted)


def _listed(
    workspace: Workspace, scan: FolderScan, options: IndexOptions, notes: list[str]
) -> list[ListedVideo]:
    """Return the videos of the list that is given or found, or of the folders of classes."""
    from tristream.dataset import manifest as manifests

    data = scan.root
    lists = {
        "--list": options.list_file,
        "--ucf101": options.ucf101,
        "--hmdb51": options.hmdb51,
    }
    given = [name for name, value in lists.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other; give one of them")
    if options.ucf101 is not None:
        return manifests.index_ucf101(data, expanded(options.ucf101), options.split)
    if options.hmdb51 is not None:
        return manifests.index_hmdb51(data, expanded(options.hmdb51), options.split)
    if options.list_file is not None:
        return manifests.index_csv(expanded(options.list_file), data)
    if (data / "videos.csv").exists():
        workspace.progress.note(f"reading the list {data / 'videos.csv'}")
        return manifests.index_csv(data / "videos.csv", data)
    return manifests.index_folder(data, scan=scan, notes=notes)


def folds_sentence(manifest: Manifest, test_fold: str | None) -> str:
    """Return a sentence about the column `fold`, "" without one."""
    folds = sorted(
        {row.fold for row in manifest.rows if row.fold}, key=lambda fold: (len(fold), fold)
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
