"""tristream check: which files can be used, and why the others cannot; needs no run."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tristream.commands import options, screen, settings
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.media.probe import Verdict
    from tristream.media.sandbox.pool import DecodePool

STATES = ("ok", "degraded", "rejected")


@screen.command
def run(
    paths: Annotated[
        list[Path], typer.Argument(help="Files, and folders that are searched for media files.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Folder the files must lie in. Default: a folder's own; else none."
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Read headers and one picture only; damage further on is not seen."
        ),
    ] = False,
    follow_links: options.FollowLinks = False,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    workers: options.Workers = options.WORKERS,
    as_json: options.Json = False,
) -> int:
    """Decode every file as embed would and say what state it ends in: ok, degraded or rejected, and why.

    One line for each file, on stdout. Nothing is written. Named lists (.csv), archives and files of weights are judged
    too, as index, unpack and weights add would take them. Exit code 3 where a file is rejected, 4 where the decoder is
    one that must not be given untrusted files.
    """
    from tristream.commands.workspace import decode_pool, say_links

    limits = settings.limits(config, assignments or ())
    todo = [
        (path, data.absolute() if data else root) for given in paths for path, root in _files(given)
    ]
    for root in dict.fromkeys(root for _, root in todo if root is not None):
        say_links(root, follow_links)
    entries: list[dict[str, Any]] = []
    with decode_pool(workers, limits) as pool:
        version = pool.check_decoder()
        with screen.progress("checking", len(todo)) as move:
            for entry in _judged(todo, pool, quick=quick, follow_links=follow_links):
                move()
                entries.append(entry)
                if not as_json:
                    typer.echo(_line(entry))
    counts = {state: sum(entry["state"] == state for entry in entries) for state in STATES}
    n = f"{len(entries)} file{'s' if len(entries) != 1 else ''}"
    screen.note(
        f"{n}: {', '.join(f'{n} {state}' for state, n in counts.items())}; decoded by FFmpeg {version}"
    )
    screen.emit(
        {**counts, "ffmpeg": version, "limits": dataclasses.asdict(limits), "files": entries},
        as_json=as_json,
    )
    return screen.SOME_REJECTED if counts["rejected"] else screen.OK


def _files(given: Path) -> list[tuple[Path, Path | None]]:
    """The files that an argument means, each with the folder it must lie in; a file that is named may lie anywhere.

    Raises:
        UsageError: a folder without media files.
    """
    from tristream.dataset.listing import SUFFIXES, media_files

    found = sorted(media_files(given), key=os.fsencode) if given.is_dir() else []
    if not given.is_dir() or (
        not found and given.suffix.lower() in SUFFIXES
    ):  # a folder in the place of a video
        return [(given, None)]
    if not found:
        raise UsageError(
            f"{given} holds no file with the suffix of a video or sound file; name files, or another"
        )
    return [(path, given.absolute()) for path in found]


def _judged(
    todo: Sequence[tuple[Path, Path | None]], pool: DecodePool, *, quick: bool, follow_links: bool
) -> Iterator[dict[str, Any]]:
    """What to say of each file, in their order."""
    from tristream.commands.companions import judge_companion
    from tristream.media.probe import judge, judge_header

    def work(item: tuple[Path, Path | None]) -> dict[str, Any]:
        path, root = item
        begun = time.monotonic()
        where: dict[str, Any] = {"root": root, "follow_links": follow_links}
        if (verdict := judge_companion(path, root)) is not None:
            pass
        elif quick:
            verdict = judge_header(
                path, probe=lambda *a, **o: pool.probe(*a, **o).result(), **where
            )
        else:
            verdict = judge(path, decode=lambda *a, **o: pool.submit(*a, **o).result(), **where)
        return _entry(path, verdict, time.monotonic() - begun)

    threads = ThreadPoolExecutor(pool.n_workers)
    try:
        yield from threads.map(work, todo)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _entry(path: Path, verdict: Verdict, wall_seconds: float) -> dict[str, Any]:
    facts = dataclasses.asdict(verdict)
    state, sentence = facts.pop("status"), facts.pop("message")
    return {
        "path": str(path), "state": state, "reasons": list(facts.pop("reasons")), "sentence": sentence, **facts,
        "wall_seconds": round(wall_seconds, 3),
    }  # fmt: skip


def _line(entry: dict[str, Any]) -> str:
    """State, path and reasons; after a rejection the sentence, which begins with the path."""
    from tristream.media.reasons import printable

    why = " ".join(entry["reasons"])
    path = printable(entry["path"])
    if entry["state"] == "rejected":
        return f"{entry['state']:8s}  {path}  {why}: {entry['sentence'].removeprefix(path).strip()}"
    return f"{entry['state']:8s}  {path}" + (f"  {why}" if why else "")
