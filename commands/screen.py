"""What people see: progress, tables and notes on stderr; results on stdout; every failure one sentence and a code."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from tristream.errors import MachineError, TristreamError

P = ParamSpec("P")

OK, BUG, MISTAKE, SOME_REJECTED, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 4, 130
ENVIRONMENT_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
}
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # torch says so in a RuntimeError
_BROKEN_BYTE = re.compile("[\udc80-\udcff]")  # as the file system's encoding has it
_NO_LIBRARY = re.compile(r"(lib[^\s/]+\.so[.\d]*): cannot open shared object file")
_OF_OPENCV = {"libxcb.so.1", "libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0"}
LESS_MEMORY = "lower --workers, or give the process more"

people = Console(
    stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else 120
)


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
        except typer.Exit:  # a RuntimeError, but an answer
            raise
        except MachineError as error:
            _fail(str(error), ENVIRONMENT)
        except TristreamError as error:
            _fail(str(error), MISTAKE)
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
        except KeyboardInterrupt:
            warn("interrupted; what was finished is kept, the same command goes on from there")
            raise
        except FileNotFoundError as error:
            _fail(f"{error.filename} does not exist", MISTAKE)
        except PermissionError as error:
            _fail(
                f"{error.filename}: {error.strerror}; give another --run or --cache, or the right to write",
                MISTAKE,
            )
        except OSError as error:
            if error.errno == errno.EROFS:
                _fail(f"{error.filename}: {error.strerror}; give another --run or --cache", MISTAKE)
            if error.errno not in ENVIRONMENT_ERRNOS:
                raise
            _fail(
                f"{error.filename or 'writing'}: {error.strerror}; what was finished is kept",
                ENVIRONMENT,
            )
        sys.stdout.flush()
        raise typer.Exit(code)

    return guarded


def missing_library(error: ImportError) -> str | None:
    """What to do where a Python package was installed and a library of the system that it needs was not."""
    found = _NO_LIBRARY.search(str(error))
    if found is None:
        return None
    if found[1] in _OF_OPENCV:
        return (
            f"OpenCV cannot be loaded: this system lacks {found[1]}, as many small containers do; apt-get install "
            "libxcb1 libgl1 libglib2.0-0, or take the OpenCV that needs none of them: pip uninstall -y opencv-python "
            "&& pip install opencv-python-headless"
        )
    return f"this system lacks {found[1]}, which an installed package needs ({error}); install it"


def _fail(sentence: str, code: int) -> None:
    for line in sentence.splitlines():
        people.print(Text(printable(line), style="bold red"))
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
            people.print(
                Text(
                    f"{title}: {state['done']}/{total} after {now - state['start']:.0f} s {note}".rstrip()
                )
            )

    return move


def table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = ""
) -> None:
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
        sys.stdout.write(json.dumps(readable(result), ensure_ascii=True, allow_nan=False) + "\n")


def readable(value: Any) -> Any:
    """The value as JSON can hold it and any program reads it: bytes that are no UTF-8 stand in names as `\\xNN`."""
    if isinstance(value, Mapping):
        return {
            readable(key) if isinstance(key, str) else key: readable(below)
            for key, below in value.items()
        }
    if isinstance(value, list | tuple):
        return [readable(below) for below in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _BROKEN_BYTE.sub(lambda byte: f"\\x{ord(byte.group()) - 0xDC00:02x}", str(value))
