"""tristream check: decode files and report their states; needs no run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.commands import options, screen


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
        typer.Option("--quick", help="Read headers and one frame only; later damage is missed."),
    ] = False,
    follow_links: options.FollowLinks = False,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    workers: options.Workers = options.WORKERS,
    as_json: options.Json = False,
) -> int:
    """Decode every file as embed would and report its state: ok, degraded or rejected, and why.

    Prints one line per file on stdout; nothing is written. Lists (.csv), archives and files of
    weights are checked as index, unpack and weights add would read them. Exit code 3 if a file is
    rejected, 4 if the decoder is too old for untrusted files.
    """
    from tristream.check import STATES, Check
    from tristream.dataset.folders import account_of

    limits = options.limits(config, assignments)
    workspace = options.workspace(
        options.RUN, limits=limits, follow_links=follow_links, workers=workers
    )
    check = Check(workspace, paths, data=data)
    entries: list[dict[str, Any]] = []
    for checked in check.run(quick=quick):
        entries.append(checked.to_json())
        if not as_json:
            typer.echo(_line(entries[-1]))
    counts = {state: sum(entry["state"] == state for entry in entries) for state in STATES}
    n_files = f"{len(entries)} file{'s' if len(entries) != 1 else ''}"
    states = ", ".join(f"{n} {state}" for state, n in counts.items())
    screen.note(f"{n_files}: {states}; decoded by FFmpeg {check.ffmpeg}")
    if account := account_of(check.skipped):
        screen.note(account)
    result = {
        **counts,
        "ffmpeg": check.ffmpeg,
        "limits": dataclasses.asdict(limits),
        "skipped": dict(check.skipped),
    }
    screen.emit({**result, "files": entries}, as_json=as_json)
    return screen.SOME_REJECTED if counts["rejected"] else screen.OK


def _line(entry: dict[str, Any]) -> str:
    """Return state, path and reasons of one file; of a rejected one also the sentence."""
    from tristream.media.reasons import printable

    why = " ".join(entry["reasons"])
    path = printable(entry["path"])
    if entry["state"] == "rejected":
        return f"{entry['state']:8s}  {path}  {why}: {entry['sentence'].removeprefix(path).strip()}"
    return f"{entry['state']:8s}  {path}" + (f"  {why}" if why else "")
