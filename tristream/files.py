"""CSV and JSON that people and programs read."""

from __future__ import annotations

import csv
import io
import json
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
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([cell if _is_number(cell) else cell_of(cell) for cell in map(str, row)])
    write_bytes(path, buffer.getvalue().encode())


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
