"""Output of commands: notes, bars and tables on stderr, results on stdout and in files, exit codes."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from tristream import interrupts
from tristream.environment import discard_stdout
from tristream.errors import MachineError, TristreamError, UsageError
from tristream.files import readable, write_csv, write_json
from tristream.paths import expanded
from tristream.progress import Advance

P = ParamSpec("P")
T = TypeVar("T")
Row = Mapping[str, Any]

OK, BUG, INVALID, SOME_REJECTED, ENVIRONMENT = 0, 1, 2, 3, 4
ENVIRONMENT_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
}
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # in RuntimeErrors of torch
_NO_LIBRARY = re.compile(r"(lib[^\s/]+\.so[.\d]*): cannot open shared object file")
_OF_OPENCV = {"libxcb.so.1", "libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0"}
LESS_MEMORY = "lower --workers, or give the process more memory"

people = Console(
    stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else 120
)


class Screen:
    """Progress on stderr: bars on a terminal, else a line every few seconds."""

    def note(self, sentence: str) -> None:
        note(sentence)

    def warn(self, sentence: str) -> None:
        warn(sentence)

    @contextlib.contextmanager
    def bar(self, title: str, total: int | None) -> Iterator[Advance]:
        if not people.is_terminal:
            yield _lines(title, total)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bars(*columns, console=people) as bars:
            task = bars.add_task(title, total=total, note="")

            def move(advance: int = 1, note: str = "") -> None:
                interrupts.check()
                bars.update(task, advance=advance, note=note)

            yield move


def _lines(title: str, total: int | None) -> Advance:
    done, start = 0, time.monotonic()
    last = start

    def move(advance: int = 1, note: str = "") -> None:
        nonlocal done, last
        interrupts.check()
        done += advance
        now = time.monotonic()
        if done == total or now - last >= 5:
            last = now
            line = f"{title}: {done}/{total} after {now - start:.0f} s {note}".rstrip()
            people.print(Text(line))

    return move


PROGRESS = Screen()


def note(sentence: str) -> None:
    """Print one line; control characters of file names are made visible."""
    people.print(Text(printable(sentence)))


def warn(sentence: str) -> None:
    """Print one line in yellow."""
    people.print(Text(printable(sentence), style="yellow"))


def begin(work: str) -> None:
    """Print one line at once, before libraries are loaded."""
    note(f"{work}; loading libraries")


def echo(line: str) -> None:
    """Print one line of a result on stdout."""
    typer.echo(printable(line))


def printable(text: str) -> str:
    """Return the text with newlines, escapes and broken bytes spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def command(function: Callable[P, int | None]) -> Callable[P, None]:
    """Wrap a command: errors become a sentence and an exit code, else the returned number is it.

    `~` in paths of options and arguments is expanded.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            kwargs.update({name: _expanded(value) for name, value in kwargs.items()})
            code = _uninterrupted(function, *args, **kwargs) or OK
            sys.stdout.flush()
        except typer.Exit:  # is a RuntimeError
            raise
        except MachineError as error:
            _fail(str(error), ENVIRONMENT)
        except TristreamError as error:
            _fail(str(error), INVALID)
        except RuntimeError as error:
            if not any(words in str(error) for words in OUT_OF_MEMORY):
                raise
            _fail(f"out of memory ({str(error).splitlines()[0]}); {LESS_MEMORY}", ENVIRONMENT)
        except ImportError as error:
            if (sentence := missing_library(error)) is None:
                raise
            _fail(sentence, ENVIRONMENT)
        except MemoryError:
            _fail(f"out of memory; {LESS_MEMORY}", ENVIRONMENT)
        except BrokenPipeError:  # the reader of stdout has closed it, as `head` does
            discard_stdout()
            code = OK
        except FileNotFoundError as error:
            _fail(f"{error.filename} does not exist", INVALID)
        except PermissionError as error:
            _fail(
                f"{error.filename}: {error.strerror}; use another --run or --cache, or get the "
                "right to write",
                INVALID,
            )
        except OSError as error:
            if error.errno == errno.EROFS:
                _fail(f"{error.filename}: {error.strerror}; use another --run or --cache", INVALID)
            if error.errno not in ENVIRONMENT_ERRNOS:
                raise
            what = error.filename or "writing"
            _fail(f"{what}: {error.strerror}; finished work is kept", ENVIRONMENT)
        raise typer.Exit(code)

    return guarded


def _uninterrupted(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function; what fails after Ctrl-C, fails because of it."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        if interrupts.happened():
            raise KeyboardInterrupt from error
        raise


def _expanded(value: Any) -> Any:
    if isinstance(value, Path):
        return expanded(value)
    if isinstance(value, list):
        return [_expanded(each) for each in value]
    return value


def missing_library(error: ImportError) -> str | None:
    """Return the remedy if a system library of an installed package is missing, else None."""
    missing = _NO_LIBRARY.search(str(error))
    if missing is None:
        return None
    library = missing[1]
    if library in _OF_OPENCV:
        return (
            f"OpenCV cannot be loaded: this system lacks {library}, as many small containers do; "
            "apt-get install libxcb1 libgl1 libglib2.0-0, or use the OpenCV that needs none of "
            "them: pip uninstall -y opencv-python && pip install opencv-python-headless"
        )
    return f"this system lacks {library}, which an installed package needs ({error}); install it"


def _fail(sentence: str, code: int) -> None:
    for line in sentence.splitlines():
        people.print(Text(printable(line), style="bold red"))
    raise typer.Exit(code)


def table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = ""
) -> None:
    """Print a table on stderr, numbers right-aligned."""
    grid = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")
    for index, name in enumerate(header):
        grid.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    people.print(grid)


def emit(result: dict[str, Any], *, as_json: bool) -> None:
    """Print the result as one JSON object on stdout if `as_json`."""
    if as_json:
        sys.stdout.write(json.dumps(readable(result), ensure_ascii=True, allow_nan=False) + "\n")
        sys.stdout.flush()


def check_out(out: Path | None) -> None:
    """Raise UsageError for a file that is neither .csv nor .json, before any work."""
    if out is not None and out.suffix not in (".csv", ".json"):
        raise UsageError(f"--out {out} ends in '{out.suffix}'; it must end in .csv or .json")


def write_out(out: Path | None, rows: Sequence[Row], flat: Callable[[Row], dict[str, Any]]) -> None:
    """Write the rows as .csv (flattened) or .json; nothing for None."""
    if out is None:
        return
    if out.suffix == ".json":
        write_json(out, list(rows))
        return
    cells = [flat(row) for row in rows]
    header = list(dict.fromkeys(name for row in cells for name in row))
    write_csv(out, header, [[row.get(name, "") for name in header] for row in cells])


def event_words(event: Row) -> str:
    """Return the line of one event: times, peak, streams, region and similar normal videos."""
    shares = "  ".join(f"{name} {part:.0%}" for name, part in event["shares"].items())
    region = f"  at {event['region'].removeprefix('#xywh=')}" if event["region"] else ""
    near = f"  most similar: {', '.join(event['nearest'])}" if event["nearest"] else ""
    return (
        f"{event['start_seconds']:.2f}–{event['stop_seconds']:.2f} s  "
        f"peak {event['peak_score']:.3f} at {event['peak_seconds']:.2f} s  "
        f"by {'+'.join(event['streams'])}  [{shares}]{region}{near}"
    )


def flat_event(row: Row) -> dict[str, Any]:
    """Return one event as a row of a spreadsheet."""
    flat = {k: v for k, v in row.items() if k not in ("shares", "nearest", "streams")}
    flat |= {f"share_{name}": part for name, part in row.get("shares", {}).items()}
    streams, nearest = row.get("streams", ()), row.get("nearest", ())
    return {**flat, "streams": "+".join(streams), "nearest": " ".join(nearest)}


def flat_detection(row: Row) -> dict[str, Any]:
    """Return the detection of a whole video as a row of a spreadsheet."""
    lists = ("shares", "masked", "nearest")
    shares = {f"share_{name}": part for name, part in row["shares"].items()}
    rest = {name: value for name, value in row.items() if name not in lists}
    words = {name: " ".join(row[name]) for name in ("masked", "nearest")}
    return {**rest, **shares, **words}


def flat_prediction(row: Row) -> dict[str, Any]:
    """Return one prediction as a row of a spreadsheet."""
    cells = {
        "path": row["path"],
        "label": row["label"] or "",
        "not_sure": str(row["not_sure"]).lower(),
    }
    for place, entry in enumerate(row["top"], start=1):
        cells |= {f"{name}_{place}": value for name, value in entry.items()}
    if row.get("seen_in_training"):
        cells["seen_in_training"] = "true"
    return cells | {"streams": " ".join(row["streams"]), "masked": " ".join(row["masked"])}
