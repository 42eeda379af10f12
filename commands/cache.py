"""tristream cache: what the cache takes, and making it smaller."""

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
    help="Show what the cache takes, or make it smaller.",
    rich_markup_mode=None,
)
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BINARY = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@app.command()
@screen.command
def info(cache: options.CacheDir = options.CACHE, as_json: options.Json = False) -> int:
    """Show how many entries of each kind there are, what they take, and how long ago the oldest was used."""
    from tristream.store.cache import Cache

    use = Cache(_existing(cache)).info()
    now = time.time()
    rows = [
        [kind, str(found.n_entries), size_text(found.n_bytes), _age(found.oldest_use, now)]
        for kind, found in use.items()
    ]
    total = sum(found.n_bytes for found in use.values())
    rows.append(["all", str(sum(found.n_entries for found in use.values())), size_text(total), ""])
    screen.table(f"cache {cache}", ["kind", "entries", "size", "oldest use"], rows)
    kinds = {
        kind: {"n_entries": found.n_entries, "n_bytes": found.n_bytes}
        for kind, found in use.items()
    }
    screen.emit({"cache": str(cache), "n_bytes": total, "kinds": kinds}, as_json=as_json)
    return screen.OK


@app.command()
@screen.command
def prune(
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="What may stay: 10GB, 500MB, 2GiB, 0.")
    ],
    cache: options.CacheDir = options.CACHE,
    as_json: options.Json = False,
) -> int:
    """Remove what was used longest ago until the rest takes at most SIZE. Other commands may be running."""
    from tristream.store.cache import Cache

    n_bytes = bytes_of(max_size)
    store = Cache(_existing(cache))
    gone = store.prune(n_bytes)
    left = sum(found.n_bytes for found in store.info().values())
    screen.note(
        f"removed {gone.n_entries} entries, {size_text(gone.n_bytes)}; {size_text(left)} stay in {cache}"
    )
    screen.emit({"cache": str(cache), "removed_entries": gone.n_entries, "removed_bytes": gone.n_bytes,
                 "n_bytes": left}, as_json=as_json)  # fmt: skip
    return screen.OK


def bytes_of(text: str) -> int:
    """Bytes that "10GB" (powers of ten), "10GiB" (of two) or "10000" mean.

    Raises:
        UsageError: it means none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", text.upper())
    if found is None or (found[3] and not found[2]):
        raise UsageError(f"--max-size {text} is no size; it must be like 10GB, 500MB, 2GiB or 0")
    return int(float(found[1]) * (BINARY if found[3] else UNITS)[found[2]])


def size_text(n_bytes: int) -> str:
    """Bytes for people, in powers of ten."""
    for unit in ("T", "G", "M", "k"):
        if n_bytes >= UNITS[unit.upper()]:
            return f"{n_bytes / UNITS[unit.upper()]:.1f} {unit}B"
    return f"{n_bytes} B"


def _existing(cache: Path) -> Path:
    if not cache.is_dir():
        raise UsageError(
            f"--cache {cache} is not a folder; name the one that the other commands were given"
        )
    return cache


def _age(oldest_use: float | None, now: float) -> str:
    if oldest_use is None:
        return ""
    days = (now - oldest_use) / 86400
    return f"{days:.0f} days ago" if days >= 2 else f"{max(0.0, 24 * days):.1f} hours ago"
