"""Fusion of a run's streams: linear SVM, anomaly detector, and the effect of each stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream.errors import UsageError
from tristream.files import write_json
from tristream.fit_classifier import classify
from tristream.fit_detector import check_kind, detect, normal_rows
from tristream.fit_windows import WindowOptions, detect_windows, read_labels
from tristream.fused import Fused, fused_embeddings, has_embeddings
from tristream.settings import load as load_settings
from tristream.windows import window_plan
from tristream.workspace import Workspace, check_names

if TYPE_CHECKING:
    from tristream.fusion.action.leaks import Leak


@dataclass(frozen=True)
class FuseOptions:
    """Choices of one fusion.

    Attributes:
        streams: trained streams to use; None: all.
        normal: labels that are normal for the anomaly detector; None: by the column anomaly, else
            all training videos.
        window_seconds: length of the windows that the detector scores; 0: whole videos.
        hop_seconds: from one window to the next; None: half a window.
        regions: rows and columns that each frame is cut into; None: whole frames.
        frame_labels: JSON {video_id: [[start, stop], …]} in seconds, to measure with.
        preset, config, assignments: settings, as in `TrainOptions`.
        seed: random seed.
        detector: also fit the anomaly detector.
    """

    streams: Sequence[str] | None = None
    normal: Sequence[str] | None = None
    window_seconds: float = 0.0
    hop_seconds: float | None = None
    regions: tuple[int, int] | None = None
    frame_labels: Path | None = None
    preset: str = "light"
    config: Path | None = None
    assignments: Sequence[str] = ()
    seed: int = 0
    detector: bool = True


def fuse(
    workspace: Workspace, options: FuseOptions | None = None, *, data: Path | None = None
) -> dict[str, Any]:
    """Fit the SVM and the anomaly detector, store them, and return the report.

    The SVM learns on train and is measured on test: every stream, every pair and all of them, with
    95 % intervals. The detector learns on normal training videos, or on their windows; its
    threshold comes from normal validation videos.

    Args:
        workspace: of the run.
        options: streams, normal labels, windows, settings.
        data: folder the paths of videos are relative to; None: the one that was indexed.

    Returns:
        Content of RUN/fusion/report.json: "streams", "spaces", "leaks", "classification" and
        "detection", the last two None where nothing could be fitted.

    Raises:
        UsageError: no videos, embeddings or label of that name; an unknown detector or setting.
    """
    options = options or FuseOptions()
    settings = load_settings(options.preset, options.config, options.assignments)
    reading = replace(workspace.reading, limits=settings.limits.to_limits())
    workspace = replace(workspace, reading=reading)
    workspace.check_writable(workspace.folder)
    plan = window_plan(options.window_seconds, options.hop_seconds, options.regions)
    streams = check_names(options.streams)
    rows = workspace.manifest(data).rows
    normal_rows(rows, options.normal, "train")  # an unknown label is refused before any work
    check_kind(settings)
    labels = read_labels(options.frame_labels, rows)
    report: dict[str, Any] = {}
    fused: Fused | None = None
    if plan.seconds and not has_embeddings(workspace):
        workspace.progress.note(
            "no classifier: the videos have no embeddings (tristream embed); windows are "
            "embedded here"
        )
    else:
        fused = fused_embeddings(workspace, rows, streams)
        report |= {
            "streams": list(fused.columns),
            "n_videos": len(fused.rows),
            "spaces": fused.spaces,
        }
        report["random_weights"] = workspace.random_weights(list(fused.columns))
        report["leaks"] = _leaks(workspace, fused, settings.fusion.min_cosine)
        report["classification"] = classify(workspace, fused, settings, options.seed)
    if not options.detector:
        report["detection"] = None
    elif plan.seconds:
        report["detection"] = detect_windows(
            workspace,
            rows,
            WindowOptions(plan, settings, streams, options.normal, labels, options.seed),
        )
    else:
        assert fused is not None
        report["detection"] = detect(workspace, fused, settings, options.normal, options.seed)
    write_json(workspace.fusion_dir / "report.json", report)
    return report


def _leaks(workspace: Workspace, fused: Fused, min_cosine: float) -> list[str]:
    """Warn of shared sources, near duplicates and telling presence; return the sentences."""
    from tristream.fusion.action.leaks import check_splits

    leaks: list[Leak] = check_splits(
        video_ids=list(fused.of("video_id")),
        splits=list(fused.of("split")),
        labels=list(fused.of("label")),
        groups=list(fused.of("group")),
        content_ids=list(fused.of("content_id")),
        embeddings=fused.X,
        columns=fused.columns,
        min_cosine=min_cosine,
    )
    for leak in leaks:
        workspace.progress.warn(leak.words)
    return [leak.words for leak in leaks]


def parse_regions(text: str | None) -> tuple[int, int] | None:
    """Return (rows, columns) of "ROWSxCOLUMNS".

    Raises:
        UsageError: another form.
    """
    if text is None:
        return None
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise UsageError(f"--regions {text} is not ROWSxCOLUMNS, e.g. 4x6")
    return int(rows), int(columns)
