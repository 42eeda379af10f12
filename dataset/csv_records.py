"""Records of a CSV file in the dialects of spreadsheets, pandas and people."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Collection, Iterator, Sequence

from tristream.errors import TristreamError
from tristream.media.reasons import printable

_DELIMITERS = (",", ";", "\t", "|")


class CsvRecords:
    """Header and records of a table of videos.

    The delimiter (comma, semicolon, tab or |) is the one that separates a column `path` in the
    header. Column names are accepted in any case; a first line `sep=;` of Excel and UTF-16 (its
    "Unicode text") are understood.

    Args:
        data: the bytes of the file.
        strip: remove white space around cells.

    Attributes:
        header: column names in lower case, without the empty ones at the end.
        problems: by line number, for lines that are no record; complete once the records have been
            read.
    """

    def __init__(self, data: bytes, *, strip: bool = True) -> None:
        self._strip = strip
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        errors = "replace" if encoding == "utf-16" else "surrogateescape"
        text = data.decode(encoding, errors)
        first, _, rest = text.partition("\n")
        self._skipped = int(first.strip().casefold().startswith("sep="))
        text = rest if self._skipped else text
        delimiter, self.header = _header(text)
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        with contextlib.suppress(csv.Error):  # check_columns refuses the empty header
            next(self._reader, None)
        self.problems: dict[int, str] = {}

    @property
    def header_line(self) -> int:
        """Line number of the header, from 1."""
        return 1 + self._skipped

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield line number and cells by column; rows of empty cells are skipped."""
        while True:
            line = self._reader.line_num + 1 + self._skipped
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                self.problems[line] = f"not_csv: {error}"
                return
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                continue
            if any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
                self.problems[line] = "not_utf8: save the file as UTF-8"
            elif len(cells) < len(self.header) or any(
                cell.strip() for cell in cells[len(self.header) :]
            ):
                self.problems[line] = (
                    f"wrong_field_count: {len(cells)} fields; the header has {len(self.header)}"
                )
            else:
                values = [cell.strip() for cell in cells] if self._strip else cells
                yield line, dict(zip(self.header, values))

    def check_columns(self, known: Collection[str], needed: Sequence[str]) -> None:
        """Refuse a header that is not understood.

        Args:
            known: all columns that may be there; empty = any.
            needed: columns that must be there.

        Raises:
            TristreamError: wrong_columns, with the column.
        """
        header = self.header
        lacking = next((name for name in needed if name not in header), None)
        twice = next((name for name in header if header.count(name) > 1), None)
        unknown = sorted(set(header) - set(known)) if known else []
        if len(unknown) == len(set(header)) and lacking:
            shown = ",".join(header)
            fault = (
                f"needs one column {lacking!r}; the first line must name the columns, for example "
                f"path,label, and is '{printable(shown)}'"
            )
        elif "" in unknown:
            fault = (
                f"column {header.index('') + 1} has no name (the index of pandas? write the file "
                "with index=False)"
            )
        elif unknown:
            fault = f"unknown column '{printable(unknown[0])}'"
        elif lacking or twice:
            fault = f"needs one column {lacking or 'path'!r}, and no column twice"
        else:
            return
        raise TristreamError(f"wrong_columns: {fault}; columns are {', '.join(known or needed)}")


def _header(text: str) -> tuple[str, list[str]]:
    """Delimiter and column names, preferably with a column `path`, else with most columns."""
    headers = {}
    for delimiter in _DELIMITERS:
        try:
            cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:
            cells = []
        names = [name.strip().casefold() for name in cells]
        while names and not names[-1]:
            names.pop()
        headers[delimiter] = names
    best = max(_DELIMITERS, key=lambda d: ("path" in headers[d], len(headers[d])))
    return best, headers[best]
