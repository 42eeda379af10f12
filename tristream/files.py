"""CSV and JSON that people and programs read."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tristream.dataset.videos_csv import cell_of
from tristream.store.atomic import write_bytes

_BROKEN_BYTE = re.compile("[\udc80-\udcff]")  # surrogate escapes of the file system's encoding


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV whose cells no spreadsheet runs as a formula; names as in videos.csv."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(header)
    write_bytes(path, (buffer.getvalue() + _lines(rows)).encode())


def append_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Append rows to a file of `write_csv`; after a kill its last line may be incomplete.

    Args:
        path: of the file, which exists.
        header: that it has; not written again.
        rows: one per line.
    """
    with path.open("ab") as file:
        file.write(_lines(rows).encode())
        file.flush()
        os.fsync(file.fileno())


def complete_lines(path: Path) -> str:
    """Return the text of a CSV without a last line that a kill cut off."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return text[: text.rfind("\n") + 1]


def _lines(rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in rows:
        writer.writerow([cell if _is_number(cell) else cell_of(cell) for cell in map(str, row)])
    return buffer.getvalue()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON."""
    write_bytes(path, (json.dumps(readable(value), indent=1, ensure_ascii=False) + "\n").encode())


def readable(value: Any) -> Any:
    """Return the value as JSON that any program reads; bytes that are not UTF-8 become `\\xNN`."""
    if isinstance(value, Mapping):
        return {
            readable(key) if isinstance(key, str) else key: readable(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [readable(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _BROKEN_BYTE.sub(lambda byte: f"\\x{ord(byte.group()) - 0xDC00:02x}", str(value))
