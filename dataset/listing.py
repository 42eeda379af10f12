"""Videos with their labels, splits and groups, from a folder or a CSV file. No video is opened.

All mistakes of a list are found before any work starts, and reported together.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tristream.dataset.csv_records import CsvRecords
from tristream.dataset.folder_layout import FolderLayout, read_layout
from tristream.dataset.folders import FolderScan, counted, quoted, scan_folder
from tristream.dataset.spelling import NameForms, composed
from tristream.dataset.split_names import SPLITS, split_of
from tristream.errors import TristreamError
from tristream.media.reasons import printable

COLUMNS = ("path", "label", "split", "group", "anomaly", "fold")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SHOWN_PROBLEMS = 50
_SHOWN_FOLDERS = 10
_ANOMALY = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
_BROKEN_BYTE = re.compile("[\udc80-\udcff]")  # as Python has it in names


@dataclass(frozen=True, kw_only=True)
class ListedVideo:
    """One line of a list, or one file of a folder.

    Attributes:
        video_id: path relative to the data root.
        path: absolute.
        label: "" = none.
        split: one of `SPLITS`; "" = not given.
        group: the source; videos of one source share a split; "" = not given.
        anomaly: 1 abnormal, 0 normal, None = not given.
        fold: as in the list; "" = not given.
        where: its line or path, for messages.
    """

    video_id: str
    path: Path
    label: str = ""
    split: str = ""
    group: str = ""
    anomaly: int | None = None
    fold: str = ""
    where: str = ""


class ManifestError(TristreamError):
    """Mistakes in a list of videos.

    Attributes:
        problems: all of them in the order of lines, each with its line number and a stable code.
    """

    def __init__(self, source: Path | str, problems: list[str]) -> None:
        rest = len(problems) - _SHOWN_PROBLEMS
        more = [f"… and {rest} more"] if rest > 0 else []
        shown = [
            f"{printable(source)}: {len(problems)} problems",
            *problems[:_SHOWN_PROBLEMS],
            *more,
        ]
        super().__init__("\n  ".join(shown))
        self.problems = problems


def index_folder(
    root: Path, *, scan: FolderScan | None = None, notes: list[str] | None = None
) -> list[ListedVideo]:
    """List the videos below `root`, with labels and splits from folder names.

    `dataset.folder_layout` has the rules. A file in no class folder has no label. Hidden files and
    files without a media suffix are skipped. Links to folders are followed; permission to use their
    videos is checked when they are opened.

    Args:
        root: the data root.
        scan: of the same folder, if there is one already; it counts the skipped files.
        notes: gets a sentence for each doubt that stops nothing.

    Raises:
        ManifestError: no such folder, no video in it, names of splits that are ambiguous, or some
            videos lie in a class folder and others in none.
    """
    # not resolve(), which would follow links and change every video_id
    root = Path(os.path.abspath(root))  # noqa: PTH100
    if not root.is_dir():
        raise ManifestError(
            root, ["not_found: no such folder; give the folder that holds the class folders"]
        )
    scan = scan_folder(root) if scan is None else scan
    if not scan.files:
        account = scan.account()
        raise ManifestError(
            root,
            [
                "no_videos: no file below it has the suffix of a video or audio file"
                + (f" ({account})" if account else "")
            ],
        )
    folders = [path.relative_to(root).parts[:-1] for path in scan.files]
    try:
        layout = read_layout(set(folders))
    except ValueError as error:
        raise ManifestError(root, [str(error)]) from error
    rows = []
    for path, folder in zip(scan.files, folders):
        split, label = layout.place(folder)
        video_id = video_id_of(path, root)
        rows.append(
            ListedVideo(
                video_id=video_id,
                path=path,
                label=composed(label),
                split=split,
                where=printable(video_id),
            )
        )
    raise_if_any(root, check(rows))
    if notes is not None:
        notes += layout.notes
        notes += _merged_forms({layout.place(folder)[1] for folder in folders})
        notes += _same_stems(scan)
        notes += _barren_folders(scan, layout, labelled=any(row.label for row in rows))
    return rows


def _merged_forms(names: set[str]) -> list[str]:
    """Sentences about class folders that differ only in their Unicode form."""
    forms = Counter(composed(name) for name in names)
    return [
        f"the folders of class {name!r} are written in {n} Unicode forms; they are one class"
        for name, n in sorted(forms.items())
        if n > 1
    ]


def _same_stems(scan: FolderScan) -> list[str]:
    """A sentence about files that differ from another in the same folder only by the suffix."""
    first: dict[Path, Path] = {}
    twins = [path for path in scan.files if first.setdefault(path.with_suffix(""), path) != path]
    if not twins:
        return []
    names = [first[twins[0].with_suffix("")], twins[0]]
    shown = " and ".join(printable(video_id_of(path, scan.root)) for path in names)
    files = "1 file differs" if len(twins) == 1 else f"{len(twins)} files differ"
    return [
        f"{files} from another file only by the suffix (first: {shown}); if they hold one "
        "recording, keep one of them, or give a list with a column group"
    ]


def _barren_folders(scan: FolderScan, layout: FolderLayout, *, labelled: bool) -> list[str]:
    """Sentences about class and split folders without any media file."""
    if not labelled:
        return []
    folders = {parts: kinds for depth in range(1, layout.class_depth + 1)
               for parts, kinds in scan.barren(depth).items()
               if depth == 1 or parts[0] in layout.splits}  # fmt: skip
    texts = [
        f"folder {quoted(['/'.join(parts)])} holds no video or audio file"
        f" ({f'skipped {counted(kinds)}' if counted(kinds) else 'it is empty'})"
        for parts, kinds in sorted(folders.items())
    ]
    rest = len(texts) - _SHOWN_FOLDERS
    return [
        *texts[:_SHOWN_FOLDERS],
        *([f"{rest} more folders hold no video or audio file"] if rest > 0 else []),
    ]


def index_csv(path: Path, root: Path | None = None) -> list[ListedVideo]:
    """List the videos of a CSV file with a header.

    Columns: `path`, and any of `label`, `split`, `group`, `anomaly` and `fold`.
    Paths are found whatever their Unicode form; labels, groups and folds come out as NFC. Splits
    may be synonyms in any case (`Train`, `valid`). Anomaly is 0 or 1, as pandas writes it (1.0) and
    spreadsheets do (TRUE) too.

    Args:
        path: UTF-8 or UTF-16, in any dialect of `dataset.csv_records`; the paths in it are relative
            to its folder.
        root: the data root, inside which all of them must lie; by default the CSV's folder.

    Raises:
        ManifestError: with every mistake in it.
    """
    base = Path(os.path.abspath(path.parent))  # noqa: PTH100
    root = base if root is None else Path(os.path.abspath(root))  # noqa: PTH100
    try:
        records = CsvRecords(path.read_bytes())
        records.check_columns(COLUMNS, ["path"])
    except OSError as error:
        raise ManifestError(path, [f"line 1: not_readable: {error.strerror}"]) from error
    except ValueError as error:
        raise ManifestError(path, [f"line {records.header_line}: {error}"]) from error
    problems: dict[int, str] = {}
    rows: dict[int, ListedVideo] = {}
    forms = NameForms()
    for line, cells in records:
        try:
            rows[line] = _of_cells(cells, base, root, f"line {line}", forms)
        except ValueError as error:
            problems[line] = str(error)
            # the label still counts: a class is not lonely because one of its paths is wrong
            rows[line] = ListedVideo(
                video_id="", path=base, label=composed(cells.get("label", "")), split="unlabelled"
            )
    problems.update(records.problems)
    for where, text in check([row for row in rows.values() if row.video_id]).items():
        problems.setdefault(int(where.split()[1]), text)
    if problems:
        problems.update(
            {line: text for line, text in _lonely(rows).items() if line not in problems}
        )
        raise ManifestError(path, [f"line {line}: {problems[line]}" for line in sorted(problems)])
    if not rows:
        raise ManifestError(
            path, [f"line {records.header_line}: no_videos: there is no line after the header"]
        )
    return list(rows.values())


def _of_cells(
    cells: dict[str, str], base: Path, root: Path, where: str, forms: NameForms
) -> ListedVideo:
    path = local_path(cells["path"], base, root, forms)
    split, anomaly = cells.get("split", ""), cells.get("anomaly", "")
    if split and not split_of(split):
        raise TristreamError(
            f"unknown_split: {split!r}; must be one of {', '.join(SPLITS)}, or empty"
        )
    if anomaly and anomaly.casefold() not in _ANOMALY:
        raise TristreamError(
            f"unknown_anomaly: {anomaly!r}; must be 0 (normal), 1 (abnormal) or empty"
        )
    return ListedVideo(
        video_id=video_id_of(path, root),
        path=path,
        label=composed(cells.get("label", "")),
        split=split_of(split),
        group=composed(cells.get("group", "")),
        anomaly=_ANOMALY[anomaly.casefold()] if anomaly else None,
        # pandas writes whole numbers as 3.0 in a column with empty cells
        fold=re.sub(r"^(\d+)\.0$", r"\1", composed(cells.get("fold", ""))),
        where=where,
    )


def local_path(text: str, base: Path, root: Path, forms: NameForms | None = None) -> Path:
    """Return the absolute path that a list means; it exists and, by its name, lies in `root`.

    Args:
        text: as the list has it.
        base: folder that it is relative to.
        root: the data root.
        forms: finds names on disk in another Unicode form.

    Raises:
        TristreamError: empty_path, outside_root, not_a_local_path, not_found or not_a_file, with
            the path.
    """
    if not text:
        raise TristreamError("empty_path: the path is empty")
    shown = printable(text)
    path = Path(os.path.normpath(base / text.replace("\0", "\ufffd")))
    # paths outside and URLs are never looked at: a name may hold a colon only if that file exists
    inside = path.is_relative_to(root)
    if _SCHEME.match(text) and not (inside and os.path.lexists(path)):
        raise TristreamError(
            f"not_a_local_path: {shown}; only files on this machine, relative to the list's folder"
        )
    if inside and forms is not None:
        path = forms.find(path, root)
    if not inside:
        raise TristreamError(f"outside_root: {shown} lies outside {printable(root)}")
    if "\0" in text or not os.path.lexists(path):
        raise TristreamError(f"not_found: {shown}")
    if stat.S_ISDIR(path.lstat().st_mode):
        raise TristreamError(f"not_a_file: {shown} is a folder")
    return path


def video_id_of(path: Path, root: Path | None) -> str:
    """Return the path relative to the data root, with `/`; absolute if it lies outside it.

    The result is valid Unicode, as tables need: a byte that is no UTF-8 becomes U+FFFD and two hex
    digits.
    """
    return _BROKEN_BYTE.sub(
        lambda byte: f"\ufffd{ord(byte.group()) - 0xDC00:02x}", relative_path(path, root)
    )


def relative_path(path: Path, root: Path | None) -> str:
    """Return the same path byte for byte."""
    return (
        path.relative_to(root).as_posix()
        if root is not None and path.is_relative_to(root)
        else path.as_posix()
    )


def check(rows: Iterable[ListedVideo]) -> dict[str, str]:
    """Return mistakes that show only when lines are compared, by the `where` of a line."""
    rows = list(rows)
    problems: dict[str, str] = {}
    first: dict[str, ListedVideo] = {}
    for row in rows:
        known = first.setdefault(row.video_id, row)
        if known is not row:
            here, there = (row.label, row.split, row.group), (known.label, known.split, known.group)
            code = "repeats" if here == there else "contradicts"
            entry = "" if here == there else f" as {' '.join(filter(None, there)) or 'nothing'}"
            problems[row.where] = (
                f"{code} {known.where}: {printable(row.video_id)} is listed there already{entry}"
            )
    learned = [row for row in rows if row.split != "unlabelled"]
    if any(row.label for row in learned):
        for row in learned:
            if not row.label:
                problems.setdefault(
                    row.where,
                    "empty_label: give all videos a label, or none, or set split = unlabelled",
                )
    if any(row.split for row in learned):
        for row in learned:
            if not row.split:
                problems.setdefault(
                    row.where, "empty_split: give every video a split, or none at all"
                )
    homes: dict[str, ListedVideo] = {}
    for row in learned:
        home = homes.setdefault(row.group, row)
        if row.group and row.split and home.split != row.split:
            text = (
                f"group_in_two_splits: {row.group!r} is in {row.split} here and in {home.split} at "
                f"{home.where}"
            )
            problems.setdefault(row.where, text)
    return problems


def _lonely(rows: dict[int, ListedVideo]) -> dict[int, str]:
    """Lines of classes with one video, listed beside real mistakes; alone they stop nothing."""
    by_label = defaultdict(list)
    for line, row in rows.items():
        by_label[row.label].append(line)
    return {
        lines[0]: f"one_video: class {label!r} has no other (warning)"
        for label, lines in by_label.items()
        if label and len(lines) == 1
    }


def lonely_classes(rows: Iterable[ListedVideo]) -> list[str]:
    """Return warnings about classes with one video, which cannot be validated or tested."""
    counts = Counter(row.label for row in rows if row.label and row.split != "unlabelled")
    return [f"class {label!r} has one video" for label, n in sorted(counts.items()) if n == 1]


def raise_if_any(source: Path, problems: dict[str, str]) -> None:
    """Raise all of them together."""
    if problems:
        raise ManifestError(source, [f"{where}: {text}" for where, text in problems.items()])
