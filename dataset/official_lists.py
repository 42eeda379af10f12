"""Official split lists of UCF101 and HMDB51, with their traps."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tristream.dataset.listing import ListedVideo, ManifestError, check, raise_if_any, video_id_of
from tristream.dataset.spelling import composed
from tristream.errors import TristreamError
from tristream.media.reasons import printable

_UCF_GROUP = re.compile(r"_(g\d+)_c\d+\.\w+$")
_HMDB_SPLITS = {"1": "train", "2": "test", "0": ""}  # 0: not used in this split


def index_ucf101(root: Path, lists: Path, split: int = 1) -> list[ListedVideo]:
    """List the videos of UCF101's official split: no val, groups `class/gNN`.

    Traps are: lines that end with CR LF, classes counted from 1, a test list with or without a
    class column, and classes named by their folders (`HandstandPushups`), with another spelling in
    the names of files (`v_HandStandPushups_…`).

    Args:
        root: the folder of the class folders.
        lists: the folder of `classInd.txt`, `trainlist0K.txt` and `testlist0K.txt`.
        split: K, 1 to 3.

    Raises:
        ManifestError: with every mistake in the lists, and every missing video.
    """
    root = Path(os.path.abspath(root))  # noqa: PTH100
    _check_split(split)
    numbers, problems = _class_numbers(lists / "classInd.txt")
    classes = {_key(name): name for name in numbers}
    disk = _Files(root)
    rows = []
    for part in ("train", "test"):
        source = lists / f"{part}list{split:02d}.txt"
        for line, text in _lines(source):
            where = f"{source.name} line {line}"
            try:
                rows.append(_ucf_row(text, part, where, root, disk, numbers, classes))
            except ValueError as error:
                problems[where] = str(error)
    raise_if_any(lists, {**problems, **check(rows)})
    return rows


def _ucf_row(
    text: str,
    part: str,
    where: str,
    root: Path,
    disk: _Files,
    numbers: dict[str, int],
    classes: dict[str, str],
) -> ListedVideo:
    name, _, number = text.partition(" ")
    folder, _, file = name.partition("/")
    label = classes.get(_key(folder))
    if label is None:
        raise TristreamError(f"unknown_class: {printable(folder)} is not in classInd.txt")
    if number.strip() and number.strip() != str(numbers[label]):
        raise TristreamError(
            f"wrong_class_number: {number.strip()} for {label}, which is {numbers[label]} in classInd.txt"
        )
    path = disk.find(folder, file)
    group = _UCF_GROUP.search(file)
    if group is None:
        raise TristreamError(f"no_group: {printable(file)}; names of UCF101 end in _gNN_cNN.avi")
    return ListedVideo(
        video_id=video_id_of(path, root),
        path=path,
        label=label,
        split=part,
        group=f"{label}/{group[1]}",
        where=where,
    )


def index_hmdb51(root: Path, lists: Path, split: int = 1) -> list[ListedVideo]:
    """List the videos of HMDB51's official split: no val, no groups, no unused videos.

    Args:
        root: the folder of the class folders.
        lists: the folder of `<class>_test_splitK.txt`: lines `name 0|1|2`, 1 = train, 2 = test, 0 =
            not used.
        split: K, 1 to 3.

    Raises:
        ManifestError: with every mistake in the lists, and every missing video.
    """
    root = Path(os.path.abspath(root))  # noqa: PTH100
    _check_split(split)
    ending = f"_test_split{split}.txt"
    sources = sorted(source for source in lists.glob(f"*{ending}") if source.is_file())
    if not sources:
        raise ManifestError(lists, [f"not_found: no file <class>{ending} in this folder"])
    disk = _Files(root)
    problems: dict[str, str] = {}
    rows = []
    for source in sources:
        label = composed(source.name.removesuffix(ending))
        for line, text in _lines(source):
            where = f"{source.name} line {line}"
            name, _, use = text.rpartition(" ")
            if use not in _HMDB_SPLITS or not name:
                problems[where] = (
                    f"unknown_use: {printable(text)!r}; must be a file name, then 0, 1 or 2"
                )
            elif part := _HMDB_SPLITS[use]:
                try:
                    path = disk.find(label, name.strip())
                except ValueError as error:
                    problems[where] = str(error)
                    continue
                rows.append(
                    ListedVideo(
                        video_id=video_id_of(path, root),
                        path=path,
                        label=label,
                        split=part,
                        where=where,
                    )
                )
    raise_if_any(lists, {**problems, **check(rows)})
    return rows


class _Files:
    """The files of the class folders, found in any capitals and Unicode form."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ManifestError(
                root, ["not_found: no such folder; give the folder of the class folders"]
            )
        self._root = root
        self._folders = _by_name(folder for folder in root.iterdir() if folder.is_dir())
        self._names: dict[Path, dict[str, list[Path]]] = {}

    def find(self, folder: str, name: str) -> Path:
        """Return the path of a listed file by its bare name; no list reaches outside the folders.

        Raises:
            TristreamError: it is missing, or several files have its name up to capitals.
        """
        place = _match(self._folders, folder)
        if place is not None and place not in self._names:
            self._names[place] = _by_name(place.iterdir())
        path = _match(self._names[place], name) if place is not None else None
        if path is None:
            raise TristreamError(
                f"not_found: {printable(f'{folder}/{name}')} is not below {printable(self._root)}"
            )
        return path


def _by_name(paths: Iterable[Path]) -> dict[str, list[Path]]:
    names = defaultdict(list)
    for path in paths:
        names[_key(path.name)].append(path)
    return names


def _match(names: dict[str, list[Path]], name: str) -> Path | None:
    paths = names.get(_key(name), [])
    exact = [path for path in paths if path.name == name]
    if not exact and len(paths) > 1:
        shown = ", ".join(sorted(printable(path.name) for path in paths))
        raise TristreamError(
            f"ambiguous_name: {printable(name)} may be any of {shown}, which differ only in "
            "capitals or Unicode form"
        )
    return exact[0] if exact else paths[0] if paths else None


def _key(name: str) -> str:
    return composed(name).lower()


def _check_split(split: int) -> None:
    if split not in (1, 2, 3):
        raise TristreamError(f"there is no official split {split}; there are 1, 2 and 3")


def _class_numbers(path: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Number of each class, counted from 1, and the mistakes by line."""
    numbers, problems = {}, {}
    for line, text in _lines(path):
        number, _, name = text.partition(" ")
        if number.isdecimal() and name:
            numbers[composed(name.strip())] = int(number)
        else:
            problems[f"{path.name} line {line}"] = (
                f"no_class: {printable(text)!r}; must be a number, then a name"
            )
    return numbers, problems


def _lines(path: Path) -> list[tuple[int, str]]:
    """Line numbers and stripped text of the lines that are not empty; line ends of any kind."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ManifestError(path, [f"not_found: cannot be read: {error.strerror}"]) from error
    return [(i + 1, line.strip()) for i, line in enumerate(text.splitlines()) if line.strip()]
