"""`videos.csv`: the table of videos as a file for spreadsheets, pandas and people."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from tristream.dataset.csv_records import CsvRecords
from tristream.dataset.listing import SPLITS, ManifestError, relative_path
from tristream.dataset.video_row import Manifest, VideoRow
from tristream.errors import TristreamError
from tristream.media.reasons import printable

_NAMES = tuple(field.name for field in dataclasses.fields(VideoRow))
_NUMBERS: dict[str, Callable[[str], object]] = {
    "anomaly": int,
    "n_frames": int,
    "fps": float,
    "duration_seconds": float,
    "height": int,
    "width": int,
    "has_audio": lambda text: {"true": True, "false": False}[text.casefold()],  # Excel: TRUE
}


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write `videos.csv` completely or not at all: UTF-8, one line per video whatever its name.

    In names, `\\xNN` stands for a byte that is not printable, not UTF-8, or would start a formula
    in a spreadsheet (`=`, `+`, `-`, `@` in front); `\\\\` for a backslash. The column `root` makes
    the file self-contained.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*_NAMES, "root"])
    root = "." if manifest.root == _absolute(path.parent) else str(manifest.root)
    for row in manifest.rows:
        cells = {name: getattr(row, name) for name in _NAMES}
        cells["path"] = relative_path(row.path, manifest.root)
        writer.writerow([*(cell_of(cells[name]) for name in _NAMES), cell_of(root)])
    _replace(path, table.getvalue().encode())


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as handle:
        temporary = Path(handle.name)
        try:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
            temporary.chmod(0o644)  # tempfile makes 0600; what is shared must be readable
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def read_manifest(path: Path, *, root: Path | None = None) -> Manifest:
    """Read a manifest that `write_manifest` wrote and a person or spreadsheet may have edited.

    Args:
        path: `videos.csv`, in any dialect of `dataset.csv_records`.
        root: the data root, if the videos have moved since.

    Raises:
        ManifestError: with every mistake in it.
        OSError: it cannot be read.
    """
    records = CsvRecords(path.read_bytes(), strip=False)
    missing = [
        name for name in ("video_id", "path", "label", "split") if name not in records.header
    ]
    if missing:
        raise ManifestError(
            path,
            [f"line 1: wrong_columns: no {missing[0]!r}; make this file with `tristream index`"],
        )
    home = None if root is None else _absolute(root)
    rows: dict[int, VideoRow] = {}
    problems: dict[int, str] = {}
    for line, cells in records:
        values = {name: text_of(cell) for name, cell in cells.items()}
        home = home or _absolute(path.parent / values.get("root", "."))
        try:
            rows[line] = _row(values, home)
        except ValueError as error:
            problems[line] = str(error)
    problems.update(records.problems)
    problems = _contradictions(rows) | problems
    if problems:
        raise ManifestError(path, [f"line {line}: {problems[line]}" for line in sorted(problems)])
    return Manifest(home or _absolute(path.parent), tuple(rows.values()))


def _row(cells: dict[str, str], root: Path) -> VideoRow:
    values: dict[str, object] = {
        name: cells.get(name, "") for name in _NAMES if name not in _NUMBERS
    }
    for name, number in _NUMBERS.items():
        text = cells.get(name, "")
        try:
            values[name] = number(text) if text else None
        except (ValueError, KeyError):
            raise TristreamError(f"wrong_value: {name} is {text!r}") from None
    if values["split"] not in SPLITS:
        raise TristreamError(
            f"unknown_split: {values['split']!r}; must be one of {', '.join(SPLITS)}"
        )
    if values["anomaly"] not in (0, 1, None):
        raise TristreamError(
            f"unknown_anomaly: {values['anomaly']!r}; must be 0 (normal), 1 (abnormal) or empty"
        )
    path = _absolute(root / cells["path"])
    if not path.is_relative_to(root) or path == root:
        raise TristreamError(
            f"outside_root: {printable(cells['path'])} is not inside {printable(root)}"
        )
    return VideoRow(**{**values, "path": path})  # type: ignore[arg-type]


def _contradictions(rows: dict[int, VideoRow]) -> dict[int, str]:
    """Mistakes that show only when lines are compared, by line."""
    problems: dict[int, str] = {}
    first: dict[str, int] = {}
    homes: dict[str, int] = {}
    labelled = any(row.label for row in rows.values() if row.split != "unlabelled")
    for line, row in rows.items():
        if first.setdefault(row.video_id, line) != line:
            problems[line] = (
                f"repeats line {first[row.video_id]}: {printable(row.video_id)} is listed there"
                " already"
            )
        if row.split == "unlabelled":
            continue
        if labelled and not row.label:
            problems[line] = (
                f"empty_label: {printable(row.video_id)}; give it one, or say split = unlabelled"
            )
        home = homes.setdefault(row.group, line)
        if rows[home].split != row.split:
            there = f"{rows[home].split} at line {home}"
            problems[line] = (
                f"group_in_two_splits: {printable(row.group)} is in {row.split} here and in {there}"
            )
    return problems


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow links, and change names)


def cell_of(value: object) -> str:
    """Return a value as `write_manifest` writes it: one line, printable, no formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    text = "".join(c if c.isprintable() and c != "\\" else _escaped(c) for c in value)
    return _escaped(text[0]) + text[1:] if text.startswith(("=", "+", "-", "@")) else text


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def text_of(cell: str) -> str:
    """Return the text that `cell_of` wrote."""
    raw = re.sub(
        rb"\\(\\|x[0-9a-f]{2})",
        lambda match: b"\\" if match[1] == b"\\" else bytes([int(match[1][1:], 16)]),
        cell.encode("utf-8", "surrogateescape"),
    )
    return raw.decode("utf-8", "surrogateescape")
