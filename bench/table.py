"""Result of a bench: one table, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tristream.errors import TristreamError


@dataclass(frozen=True)
class Table:
    """A measurement's result.

    Attributes:
        title: what was measured, on what.
        header: names of the columns; the first names the row.
        rows: text or numbers; a number is written with its own digits in JSON and with three on screen.
        notes: what must be known to read it: sizes, seeds, number of repetitions, random weights.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | int | None]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise TristreamError(
                    f"table '{self.title}': row '{row[0] if row else ''}' has {len(row)} cells, the header has "
                    f"{len(self.header)}"
                )

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[as_text(cell) for cell in row] for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON."""
        rows = [dict(zip(self.header, row, strict=True)) for row in self.rows]
        return {
            "title": self.title,
            "header": list(self.header),
            "rows": rows,
            "notes": list(self.notes),
        }


def as_text(cell: str | float | int | None) -> str:
    """Return a number with three significant digits: a shared machine does not reproduce the fourth."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 1000:
        return f"{cell:.0f}"
    return f"{cell:.3g}"
