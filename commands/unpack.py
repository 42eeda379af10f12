"""tristream unpack: extract an untrusted archive of videos into a new folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError


@screen.command
def run(
    archive: Annotated[
        Path, typer.Argument(help="A zip or tar archive (.zip, .tar, .tar.gz, .tar.bz2, .tar.xz).")
    ],
    folder: Annotated[Path, typer.Argument(help="Target folder; it must be new or empty.")],
    as_json: options.Json = False,
) -> int:
    """Unpack an archive of videos into a new folder, completely or not at all.

    An archive is refused if it holds a path outside the folder, a link, a device, a name twice, or
    more than 100 times its own size.
    """
    from tristream.dataset import archive as archives

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder; name a new one")
    n_files = archives.unpack(archive, folder)
    screen.note(f"unpacked {n_files} files into {folder}; next: tristream check {folder}")
    screen.emit(
        {"archive": str(archive), "folder": str(folder), "n_files": n_files}, as_json=as_json
    )
    return screen.OK
