"""tristream show: state of a run, and the next command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tristream.commands import options, screen


@screen.command
def run(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="The run; the same as --run.")
    ] = None,
    run: options.Run = options.RUN,
    as_json: options.Json = False,
) -> int:
    """Show the state of a run: videos, streams, embeddings, decisions, and the next command.

    Nothing is computed and no network is loaded. Out of date are a stream that was trained on other
    videos or labels, embeddings of an earlier training, and decisions older than the embeddings.
    """
    from tristream.state import DONE, MISSING, STALE, state

    current = state(options.existing(folder or run))
    signs = {MISSING: "-", DONE: "x", STALE: "!"}
    if not as_json:
        for part in current.parts:
            screen.echo(f"[{signs[part.state]}] {part.name:22s} {part.words}")
        screen.echo(f"next: {current.next}")
    screen.emit(current.to_json(), as_json=as_json)
    return screen.OK
