"""tristream check: decode files and report their states; needs no run."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
        list[Path], typer.Argument(help="Files, and folders to search for media files.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder that must contain the files. Default: the folder searched; else none.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Read headers and one frame only; later damage is not seen."),
    ] = False,
    follow_links: options.FollowLinks = False,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    workers: options.Workers = options.WORKERS,
    as_json: options.Json = False,
) -> int:
    """Decode every file as embed does and report its state: ok, degraded or rejected, with reasons.

    One line per file on stdout. Nothing is written. Lists (.csv), archives and weight files given
    by name are checked with the rules of index, unpack and weights add. Exit code 3 if a file is
    rejected, 4 if the decoder is too old for untrusted files.
    """
    from tristream.commands.workspace import decode_pool, say_links
    from tristream.dataset.folders import account_of

    limits = settings.limits(config, assignments or ())
    todo: list[tuple[Path, Path | None]] = []
    skipped: Counter[str] = Counter()
    for given in paths:
        files, kinds = _files(given)
        todo += [(path, data.absolute() if data else root) for path, root in files]
        skipped.update(kinds)
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
    if account := account_of(skipped):
        screen.note(account)
    result = {
        **counts,
        "ffmpeg": version,
        "limits": dataclasses.asdict(limits),
        "skipped": dict(skipped),
    }
    screen.emit({**result, "files": entries}, as_json=as_json)
    return screen.SOME_REJECTED if counts["rejected"] else screen.OK


def _files(given: Path) -> tuple[list[tuple[Path, Path | None]], Mapping[str, int]]:
    """Return the files that an argument means, and the number of skipped files by kind.

    Each file comes with the folder that must contain it; a file given by name may lie anywhere.

    Raises:
        UsageError: a folder without media files.
    """
    from tristream.dataset.folders import SUFFIXES, scan_folder

    if not given.is_dir():
        return [(given, None)], {}
    scan = scan_folder(given)
    if not scan.files and given.suffix.lower() in SUFFIXES:  # a folder in the place of a video
        return [(given, None)], {}
    if not scan.files:
        account = f" ({scan.account()})" if scan.skipped else ""
        raise UsageError(
            f"{given} holds no file with the suffix of a video or audio file{account}; name files, "
            "or another folder"
        )
    # paths are printed as they were given
    return [(given / path.relative_to(scan.root), scan.root) for path in scan.files], scan.skipped


def _judged(
    todo: Sequence[tuple[Path, Path | None]], pool: DecodePool, *, quick: bool, follow_links: bool
) -> Iterator[dict[str, Any]]:
    """Yield the JSON entry of each file, in order."""
    from tristream.commands.companions import judge_companion
    from tristream.media.probe import judge, judge_header

    def work(item: tuple[Path, Path | None]) -> dict[str, Any]:
        path, root = item
        begun = time.monotonic()
        access: dict[str, Any] = {"root": root, "follow_links": follow_links}
        if (verdict := judge_companion(path, root)) is not None:
            pass
        elif quick:
            verdict = judge_header(
                path, probe=lambda *a, **o: pool.probe(*a, **o).result(), **access
            )
        else:
            verdict = judge(path, decode=lambda *a, **o: pool.submit(*a, **o).result(), **access)
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
    """State, path and reasons of a file; for a rejected one also the sentence without the path."""
    from tristream.media.reasons import printable

    why = " ".join(entry["reasons"])
    path = printable(entry["path"])
    if entry["state"] == "rejected":
        return f"{entry['state']:8s}  {path}  {why}: {entry['sentence'].removeprefix(path).strip()}"
    return f"{entry['state']:8s}  {path}" + (f"  {why}" if why else "")
