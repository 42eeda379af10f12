"""Labels and splits from folder names: ROOT/CLASS/… or ROOT/SPLIT/CLASS/…, without a guess."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from tristream.dataset.folders import quoted
from tristream.dataset.spelling import composed
from tristream.dataset.split_names import mentions_split, resembles_split, split_of
from tristream.errors import TristreamError

_LIST = "give a list instead (tristream index --list; columns path,label,split)"

Folder = tuple[str, ...]  # parts relative to the data root


@dataclass(frozen=True)
class FolderLayout:
    """Meaning of the folders below a data root.

    Attributes:
        splits: split of each first-level folder; empty if the first level holds classes.
        notes: doubts that do not stop anything, for the user.
    """

    splits: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def class_depth(self) -> int:
        """Number of parts of a class folder."""
        return 2 if self.splits else 1

    def place(self, folder: Folder) -> tuple[str, str]:
        """Return split and label of the files in a folder, "" for none."""
        if not self.splits or not folder:
            return "", folder[0] if folder else ""
        split = self.splits[folder[0]]
        return split, folder[1] if len(folder) > 1 and split != "unlabelled" else ""


def read_layout(folders: Collection[Folder]) -> FolderLayout:
    """Decide if the first level of folders holds splits or classes.

    The first level holds splits if every folder is named for a different split (in any case, with
    the usual synonyms), one of them train. Otherwise it holds classes, unless the tree looks like
    splits after all: train and test beside other names, the same sub-folders below a folder named
    like a split and another one, or splits further down.

    Args:
        folders: parent folder of each media file; () for a file in the root itself.

    Raises:
        TristreamError: the names are ambiguous, with the folders that make them so.
    """
    below: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        if folder:
            below[folder[0]].update(folder[1:2])
    meanings = {top: split_of(top) for top in below}
    _refuse_deeper_splits(folders, below)
    if below and all(meanings.values()):
        return _splits(meanings, set().union(*below.values()))
    _refuse_unclear_splits(meanings, below)
    return FolderLayout({}, tuple(_notes(folders, below)))


def _splits(meanings: dict[str, str], classes: set[str]) -> FolderLayout:
    by_split = defaultdict(list)
    for top, split in meanings.items():
        by_split[split].append(top)
    for split, tops in by_split.items():
        if len(tops) > 1:
            raise TristreamError(
                f"unclear_folders: {quoted(tops)} all mean the split {split}; merge them, or "
                f"{_LIST}"
            )
    if "train" not in by_split:
        raise TristreamError(
            f"unclear_folders: every folder ({quoted(meanings)}) is named like a split, and none "
            f"is named train; add train/, or {_LIST} if they are classes"
        )
    renamed = [
        f"{quoted([top])} is {split}" for top, split in sorted(meanings.items()) if top != split
    ]
    notes = [f"splits by folder: {', '.join(renamed)}"] if renamed else []
    if len(classes) == 1:
        notes.append(
            f"{quoted(classes)} is the only folder below the splits, and so the only class"
        )
    return FolderLayout(meanings, tuple(notes))


def _refuse_unclear_splits(meanings: dict[str, str], below: dict[str, set[str]]) -> None:
    alike = {top for top in meanings if resembles_split(top)}
    others = {top for top, split in meanings.items() if not split}
    if alike and all(top in alike or mentions_split(top) for top in meanings):
        raise TristreamError(
            f"unclear_folders: every folder is named like a split or fold, but {quoted(others)} "
            f"cannot be read as train, val or test; rename it, or {_LIST}"
        )
    if len(alike) > 1 and "train" in meanings.values():
        raise TristreamError(
            f"unclear_folders: {quoted(alike)} are named like splits, {quoted(others - alike)} "
            f"beside them is not; move it out of the data folder, or {_LIST} if all are classes"
        )
    suspects = alike or {top for top in meanings if mentions_split(top)}
    if not alike and len(suspects) < len(meanings):
        return
    for top in sorted(suspects):
        names = {_plain(name) for other in below if other != top for name in (other, *below[other])}
        shared = {name for name in below[top] if _plain(name) in names}
        if shared:
            raise TristreamError(
                f"unclear_folders: {quoted([top])} is named like a split, and its sub-folders "
                f"{quoted(shared)} also exist beside it or below another folder, as classes of "
                f"several splits do; name every first-level folder train, val or test, or {_LIST}"
            )


def _refuse_deeper_splits(folders: Collection[Folder], below: dict[str, set[str]]) -> None:
    children: dict[Folder, set[str]] = defaultdict(set)
    for folder in folders:
        for depth in range(1, len(folder)):
            children[folder[:depth]].add(folder[depth])
    second = set().union(*below.values()) if below else set()
    everywhere = (
        bool(second) and all(map(resembles_split, second)) and "train" in map(split_of, second)
    )
    for parent, names in sorted(children.items()):
        meanings = {split_of(name) for name in names} - {""}
        if not all(map(resembles_split, names)):
            continue
        if ("train" in meanings and len(names) > 1) or (everywhere and len(parent) == 1):
            place = "/".join(parent)
            remedy = (
                f"give --data with the folder {quoted([place])} itself"
                if len(below) == 1
                else f"put the splits above the classes (train/CLASS/…), or {_LIST}"
            )
            raise TristreamError(
                f"unclear_folders: below {quoted([place])} lie folders named like splits "
                f"({quoted(names)}); {remedy}"
            )


def _notes(folders: Collection[Folder], below: dict[str, set[str]]) -> list[str]:
    sets = list(below.values())
    if len(sets) == 1 and len(sets[0]) > 1 and all(len(folder) > 1 for folder in folders):
        return [
            f"all videos lie below one folder, {quoted(below)}, which is the only class; if its "
            f"sub-folders ({quoted(sets[0])}) are the classes, give --data with that folder itself"
        ]
    if len(sets) > 1 and len(sets[0]) > 1 and all(names == sets[0] for names in sets):
        return [
            f"the classes are the first-level folders ({quoted(below)}); the sub-folders "
            f"{quoted(sets[0])}, which lie below each of them, are no labels"
        ]
    return []


def _plain(name: str) -> str:
    return composed(name).casefold()
