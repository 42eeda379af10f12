"""Conditions under which the files of a run are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tristream.media.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class Reading:
    """Conditions under which video files are read.

    Attributes:
        root: data root; a file inside it may not lead out of it through a link. None: no root.
        limits: resources that one file may use.
        follow_links: read files that links outside the data root lead to.
        flow_from: folder of precomputed optical flow, looked up by video_id. None: flow is
            estimated.
    """

    root: Path | None = None
    limits: Limits = DEFAULT_LIMITS
    follow_links: bool = False
    flow_from: Path | None = None

    def inside(self, path: Path) -> Path | None:
        """Return the root if `path` lies in it, else None."""
        return self.root if self.root is not None and path.is_relative_to(self.root) else None
