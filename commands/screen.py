"""What people see: progress, tables and notes on stderr; results on stdout; every failure one sentence and a code."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

P = ParamSpec("P")

OK, BUG, MISTAKE, SOME_REJECTED, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 4, 130
ENVIRONMENT_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.EMFILE}

people = Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else 120)


class Mistake(ValueError):
    """Something the user can put right; the message says what and how."""


def note(sentence: str) -> None:
    """One line for people; control characters of file names are made visible, not obeyed."""
    people.print(Text(printable(sentence)))


def warn(sentence: str) -> None:
    """One line for people, in yellow."""
    people.print(Text(printable(sentence), style="yellow"))


def printable(text: str) -> str:
    """The text with newlines, escapes and broken bytes spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def command(function: Callable[P, int | None]) -> Callable[P, None]:
    """A command whose errors become a sentence and an exit code; the number it returns is the code otherwise."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = function(*args, **kwargs) or OK
        except (ValueError, LookupError) as error:
            if not _ours(error):
                raise
            _fail(str(error), MISTAKE)
        except MemoryError:
            _fail("out of memory; lower --workers, or give the process more", ENVIRONMENT)
        except FileNotFoundError as error:
            _fail(f"{error.filename} does not exist", MISTAKE)
        except PermissionError as error:
            _fail(f"{error.filename}: {error.strerror}; give another --run or --cache, or the right to write", MISTAKE)
        except OSError as error:
            if error.errno == errno.EROFS:
                _fail(f"{error.filename}: {error.strerror}; give another --run or --cache", MISTAKE)
            if error.errno not in ENVIRONMENT_ERRNOS:
                raise
            _fail(f"{error.filename or 'writing'}: {error.strerror}; what was finished is kept", ENVIRONMENT)
        sys.stdout.flush()
        raise typer.Exit(code)

    return guarded


def _ours(error: Exception) -> bool:
    """Whether the error was raised on purpose by this project's code, not by an accident in a library."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    return traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(home) and ".venv" not in (
        traceback.tb_frame.f_code.co_filename
    )


def _fail(sentence: str, code: int) -> None:
    people.print(Text(printable(sentence), style="bold red"))
    raise typer.Exit(code)


@contextlib.contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar; the block gets a function (advance=1, note="") that moves it. Not a terminal: a line now and then."""
    if not people.is_terminal:
        yield _plain_progress(title, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=people) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda advance=1, note="": bar.update(task, advance=advance, note=note)


def _plain_progress(title: str, total: int | None) -> Callable[..., None]:
    import time

    state = {"done": 0, "said": time.monotonic(), "start": time.monotonic()}

    def move(advance: int = 1, note: str = "") -> None:
        state["done"] += advance
        now = time.monotonic()
        if state["done"] == total or now - state["said"] >= 5:
            state["said"] = now
            people.print(Text(f"{title}: {state['done']}/{total} after {now - state['start']:.0f} s {note}".rstrip()))

    return move


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> None:
    """A table for people; numbers to the right."""
    grid = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")
    for index, name in enumerate(header):
        grid.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    people.print(grid)


def emit(result: dict[str, Any], *, as_json: bool) -> None:
    """The result as one JSON object on stdout, where it is wanted."""
    if as_json:
        sys.stdout.write(json.dumps(result, ensure_ascii=True, allow_nan=False, default=str) + "\n")
