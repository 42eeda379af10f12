"""Moments of a video that each trained stream reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tristream.extract import extract_rows
from tristream.results import Results
from tristream.videos import expand_paths, given_rows
from tristream.workspace import Workspace, check_names


@dataclass(frozen=True)
class SamplingPlan:
    """Segments of one video.

    Attributes:
        path: absolute path of the file.
        segments: {stream: [[start, stop], …] in seconds}; empty where the stream is missing.
        absent: {stream: reason code} of the missing streams.
    """

    path: Path
    segments: dict[str, list[list[float]]]
    absent: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        streams = {
            name: {"absent": self.absent.get(name, ""), "segments": times}
            for name, times in self.segments.items()
        }
        return {"path": str(self.path), "streams": streams}


def sampling_plans(
    workspace: Workspace, paths: Sequence[str | Path], *, streams: Sequence[str] | None = None
) -> Results[SamplingPlan]:
    """Return the seconds that each segment of each trained stream covers.

    Args:
        workspace: of the run.
        paths: files, folders or patterns.
        streams: trained streams; None: all.
    """
    workspace = replace(workspace, compute=replace(workspace.compute, device="cpu"))
    trained = workspace.load_streams(check_names(streams))
    root = workspace.data_root()
    rows = given_rows(expand_paths(paths), root)
    plans: list[SamplingPlan] = []
    failures = {}
    for result in extract_rows(workspace.reading_from(root), rows, trained):
        if result.rejected:
            failures[str(result.video.path)] = result.rejected_reason
            continue
        segments = {
            name: [
                [round(float(start), 4), round(float(stop), 4)]
                for start, stop in zip(part.start_seconds, part.stop_seconds, strict=True)
            ]
            for name, part in result.segments.items()
        }
        absent = {name: part.absent for name, part in result.segments.items() if part.absent}
        plans.append(SamplingPlan(result.video.path, segments, absent))
    return Results(plans, failures)
