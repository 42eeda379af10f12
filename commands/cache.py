"""tristream cache: show the size of the cache, or reduce it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    help="Show the size of the cache, or reduce it.",
    rich_markup_mode=None,
)
UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BINARY = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@app.command()
@screen.command
def info(cache: options.CacheDir = options.CACHE, as_json: options.Json = False) -> int:
    """Show number, size and oldest use of the entries of each kind."""
    from tristream.store.cache import Cache

    use = Cache(_existing(cache)).info()
    now = time.time()
    rows = [
        [kind, str(entry.n_entries), size_text(entry.n_bytes), _age(entry.oldest_use, now)]
        for kind, entry in use.items()
    ]
    total = sum(entry.n_bytes for entry in use.values())
    rows.append(["all", str(sum(entry.n_entries for entry in use.values())), size_text(total), ""])
    screen.table(f"cache {cache}", ["kind", "entries", "size", "oldest use"], rows)
    kinds = {
        kind: {"n_entries": entry.n_entries, "n_bytes": entry.n_bytes}
        for kind, entry in use.items()
    }
    screen.emit({"cache": str(cache), "n_bytes": total, "kinds": kinds}, as_json=as_json)
    return screen.OK


@app.command()
@screen.command
def prune(
    max_size: Annotated[
        str,
        typer.Option(
            "--max-size", metavar="SIZE", help="Largest size that remains: 10GB, 500MB, 2GiB, or 0."
        ),
    ],
    cache: options.CacheDir = options.CACHE,
    as_json: options.Json = False,
) -> int:
    """Remove the least recently used entries until at most SIZE remains.

    Other commands may be running.
    """
    from tristream.store.cache import Cache

    n_bytes = bytes_of(max_size)
    store = Cache(_existing(cache))
    removed = store.prune(n_bytes)
    left = sum(entry.n_bytes for entry in store.info().values())
    screen.note(
        f"removed {removed.n_entries} entries, {size_text(removed.n_bytes)}; {size_text(left)} "
        f"remain in {cache}"
    )
    result = {
        "cache": str(cache),
        "removed_entries": removed.n_entries,
        "removed_bytes": removed.n_bytes,
        "n_bytes": left,
    }
    screen.emit(result, as_json=as_json)
    return screen.OK


def bytes_of(text: str) -> int:
    """Return the bytes of "10GB" (powers of ten), "10GiB" (of two) or "0".

    Raises:
        UsageError: not a size, or a number other than 0 without a unit.
    """
    size = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(I?)B?|(B))?\s*", text.upper())
    if size is None:
        raise UsageError(f"--max-size {text} is no size; it must be like 10GB, 500MB, 2GiB or 0")
    number, prefix, binary, is_bytes = float(size[1]), size[2], size[3], size[4]
    if prefix is None:
        if number and not is_bytes:
            raise UsageError(
                f"--max-size {text} has no unit; it must be like {text.strip()}GB or "
                f"{text.strip()}MB, or 0 to empty the cache"
            )
        return int(number)
    return int(number * (BINARY if binary else UNITS)[prefix])


def size_text(n_bytes: int) -> str:
    """Return a size in words, in powers of ten."""
    for unit in ("T", "G", "M", "k"):
        if n_bytes >= UNITS[unit.upper()]:
            return f"{n_bytes / UNITS[unit.upper()]:.1f} {unit}B"
    return f"{n_bytes} B"


def _existing(cache: Path) -> Path:
    if not cache.is_dir():
        raise UsageError(f"--cache {cache} is not a folder; name the cache of the other commands")
    return cache


def _age(oldest_use: float | None, now: float) -> str:
    if oldest_use is None:
        return ""
    days = (now - oldest_use) / 86400
    return f"{days:.0f} days ago" if days >= 2 else f"{max(0.0, 24 * days):.1f} hours ago"
