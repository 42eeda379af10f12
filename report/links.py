"""Relative links from a report to the video files of its run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from tristream.report.collect import Run


def clip_links(run: Run, page: Path) -> dict[str, str]:
    """Return {video_id: link}, relative to the folder of `page`.

    Only files that exist inside the data root or the run's folder, links resolved, are linked.
    A link is percent-encoded and starts with "./" or "../", so that no file name is read as a scheme.
    """
    if run.manifest is None:
        return {}
    allowed = [run.manifest.root.resolve(), run.folder.resolve()]
    folder = page.resolve().parent
    links = {}
    for row in run.rows:
        file = row.path.resolve()
        if file.is_file() and any(file.is_relative_to(root) for root in allowed):
            relative = Path(os.path.relpath(file, folder)).as_posix()
            links[row.video_id] = ("" if relative.startswith("../") else "./") + quote(relative)
    return links


def cell_links(run: Run, links: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Return {(class, predicted class): link to the first such test video}."""
    cells: dict[tuple[str, str], str] = {}
    for video in run.classification.get("predictions") or ():
        link = links.get(str(video["video_id"]))
        if link:
            cells.setdefault((str(video.get("label")), str(video.get("predicted"))), link)
    return cells
