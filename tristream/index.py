"""Videos of a data set: a labelled folder, a list or official lists, written as RUN/videos.csv."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tristream.errors import UsageError
from tristream.paths import expanded
from tristream.videos import decode_pool, note_links
from tristream.workspace import Workspace

if TYPE_CHECKING:
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


def index(workspace: Workspace, data: str | Path, options: IndexOptions | None = None) -> Manifest:
    """Read which videos there are, probe them and write RUN/videos.csv.

    Args:
        workspace: of the run.
        data: folder that holds the videos.
        options: lists, folds, seed.

    Returns:
        The videos with label, split, group and what their headers hold, and warnings.

    Raises:
        UsageError: no such folder, no videos, two lists.
        ManifestError: a list with problems.
    """
    from tristream.dataset import manifest as manifests

    options, data = options or IndexOptions(), expanded(data)
    if not data.is_dir():
        raise UsageError(f"--data {data} is not a folder")
    workspace.check_writable(workspace.folder)
    note_links(workspace, data)
    rows = listed(data, options)
    if not rows:
        raise UsageError(
            f"{data} holds no videos in folders of classes, and no videos.csv; "
            "see tristream index --help"
        )
    previous = None
    if workspace.manifest_path.exists() and not options.force:
        previous = manifests.read_manifest(workspace.manifest_path, root=data)
    root, reading = data.absolute(), workspace.reading
    with decode_pool(workspace) as pool:
        workspace.progress.note(f"reading the headers of {len(rows)} files ...")
        probe = functools.partial(pool.probe, root=root, follow_links=reading.follow_links)
        manifest = manifests.complete(
            rows,
            seed=options.seed,
            root=root,
            previous=previous,
            test_fold=options.test_fold,
            probe=probe,
            follow_links=reading.follow_links,
        )
    if not any(row.label for row in manifest.rows):
        workspace.progress.warn(
            f"no folder of a class was found in {data}: these videos have no label and can only "
            "be embedded, or searched for anomalies. Did you mean the folder above it?"
        )
    for warning in manifest.warnings:
        workspace.progress.warn(warning)
    manifests.write_manifest(manifest, workspace.manifest_path)
    return manifest


def listed(data: Path, options: IndexOptions) -> list[ListedVideo]:
    """Return the videos of the list that is given or found, or of the folders of classes.

    Raises:
        UsageError: two lists.
        ManifestError: a list with problems.
    """
    from tristream.dataset import manifest as manifests

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
        return manifests.index_csv(data / "videos.csv", data)
    return manifests.index_folder(data)
