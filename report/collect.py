"""The folder of a run → plain values for the page. What is missing is named, with the command that makes it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64

from tristream.dataset.manifest import read_manifest
from tristream.dataset.video_row import Manifest, VideoRow
from tristream.fusion.concatenate import fuse_tables
from tristream.fusion.intervals import Estimate
from tristream.store import embeddings

if TYPE_CHECKING:
    from tristream.store.embeddings import EmbeddingTable


@dataclass(frozen=True)
class Gap:
    """Something a full page would show and this run does not have.

    Attributes:
        section: id of the section of the page that misses it.
        words: what is missing, one sentence.
        command: what makes it; "" where no command does.
    """

    section: str
    words: str
    command: str = ""


@dataclass(frozen=True)
class Subset:
    """Accuracy of the classifier that sees some of the streams; shares in 0 … 1.

    Attributes:
        best_possible: ceiling or claim to hold it against; None where none is known.
    """

    streams: tuple[str, ...]
    test: Estimate
    train: float | None = None
    mean_class: float | None = None
    top5: Estimate | None = None
    best_possible: float | None = None


@dataclass(frozen=True)
class Gain:
    """Accuracy lost without one stream, as a share: above 0 the stream helps."""

    stream: str
    retrained: Estimate
    withheld: Estimate | None


@dataclass(frozen=True, eq=False)
class Fused:
    """Embeddings of all streams side by side, as `fuse_tables` gives them, and the rows of videos.csv they are of."""

    rows: list[VideoRow]
    X: Float64[np.ndarray, "n F"]
    masks: Bool[np.ndarray, "n streams"]
    columns: dict[str, slice]


@dataclass(frozen=True, eq=False)
class Run:
    """Contents of a run's folder.

    Attributes:
        folder: of the run.
        manifest: videos.csv; None where there is none.
        status: rows of status.csv, one per video.
        failures: rows of failures.csv, one per rejected video.
        lineage: lineage.json.
        configs: {stream: config.json of its checkpoint}.
        curves: {stream: {phase: metrics of its epochs, in order}}.
        origins: {stream: origin.json} of the streams that were taken from another run.
        decisions: fusion/report.json.
        timelines: fusion/timelines.json.
        fused: embeddings; None where there are none, or they do not fit videos.csv.
        gaps: what is missing.
    """

    folder: Path
    manifest: Manifest | None = None
    status: tuple[Mapping[str, str], ...] = ()
    failures: tuple[Mapping[str, str], ...] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    curves: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]] = field(default_factory=dict)
    origins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    decisions: Mapping[str, Any] = field(default_factory=dict)
    timelines: Mapping[str, Any] = field(default_factory=dict)
    fused: Fused | None = None
    gaps: tuple[Gap, ...] = ()

    @property
    def streams(self) -> list[str]:
        """All streams of the run, sorted."""
        names = {*self.configs, *self.curves, *self.decisions.get("streams", ())}
        return sorted(names | (set(self.fused.columns) if self.fused else set()))

    @property
    def rows(self) -> tuple[VideoRow, ...]:
        """Rows of videos.csv."""
        return self.manifest.rows if self.manifest else ()

    @property
    def classification(self) -> Mapping[str, Any]:
        """Part of fusion/report.json about actions; empty if missing."""
        return self.decisions.get("classification") or {}

    @property
    def detection(self) -> Mapping[str, Any]:
        """Part of fusion/report.json about anomalies; empty if missing."""
        return self.decisions.get("detection") or {}

    def subsets(self, best_possible: Mapping[str, float] | None = None) -> list[Subset]:
        """Return the accuracy of every set of streams in the order of `fuse`: single streams first, all last.

        Args:
            best_possible: {"audio+spatial": percent}, in any order of streams.
        """
        limits = {
            frozenset(name.split("+")): value / 100 for name, value in (best_possible or {}).items()
        }
        return [
            Subset(
                streams=tuple(name.split("+")),
                test=test,
                train=figures.get("train_top1"),
                mean_class=figures.get("mean_class"),
                top5=estimate(figures.get("test_top5")),
                best_possible=limits.get(frozenset(name.split("+"))),
            )
            for name, figures in (self.classification.get("subsets") or {}).items()
            if (test := estimate(figures.get("test_top1"))) is not None
        ]

    def gains(self) -> list[Gain]:
        """Accuracy that each stream adds."""
        return [
            Gain(name, retrained, estimate(figures.get("withheld")))
            for name, figures in (self.classification.get("gains") or {}).items()
            if (retrained := estimate(figures.get("retrained"))) is not None
        ]


def estimate(found: Mapping[str, Any] | None) -> Estimate | None:
    """Return an estimate from its stored form; null bounds (a single group) become NaN."""
    if not found or found.get("value") is None:
        return None
    value, low, high = (
        float("nan") if found.get(name) is None else float(found[name])
        for name in ("value", "low", "high")
    )
    return Estimate(value, low, high, int(found.get("n") or 0), int(found.get("n_groups") or 0))


def collect(folder: Path, *, data: Path | None = None) -> Run:
    """Read what is in a run's folder; nothing is computed, and no file is changed.

    Args:
        folder: of the run.
        data: where its videos are now; None: where videos.csv says.
    """
    gaps: list[Gap] = []
    here = f"--run {folder}"
    manifest = None
    if (folder / "videos.csv").exists():
        manifest = read_manifest(folder / "videos.csv", root=data)
    else:
        gaps.append(
            Gap("lineage", "There is no table of videos.", f"tristream index --data DIR {here}")
        )
    configs, curves, origins = _trained(folder, gaps)
    if not configs:
        words = "No stream is trained."
        gaps.append(Gap("training", words, f"tristream train-stream NAME {here}"))
    lineage = _json(folder / "lineage.json", gaps, "lineage")
    decisions = _json(folder / "fusion" / "report.json", gaps, "accuracy")
    timelines = _json(folder / "fusion" / "timelines.json", gaps, "anomalies")
    if not decisions:
        gaps.append(
            Gap("accuracy", "Nothing is decided yet from the embeddings.", f"tristream fuse {here}")
        )
    elif not decisions.get("classification"):
        words = (
            "There is no classifier: it needs two classes in train, and labelled videos in test."
        )
        gaps.append(Gap("accuracy", words))
    if decisions and not decisions.get("detection"):
        words = "There is no anomaly detector: it needs two normal training videos."
        gaps.append(Gap("anomalies", words, f"tristream fuse --normal LABEL,… {here}"))
    if not timelines:
        words = "Videos were not scored over time."
        gaps.append(Gap("timelines", words, f"tristream fuse --window 2 --hop 1 {here}"))
    spaces = decisions.get("spaces") or lineage.get("spaces") or {}
    return Run(
        folder=folder,
        manifest=manifest,
        status=_rows(folder / "status.csv"),
        failures=_rows(folder / "failures.csv"),
        lineage=lineage,
        configs=configs,
        curves=curves,
        origins=origins,
        decisions=decisions,
        timelines=timelines,
        fused=_fused(folder, spaces, manifest, gaps),
        gaps=tuple(gaps),
    )


def _trained(
    folder: Path, gaps: list[Gap]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Configurations, training curves and origins of the streams that have a folder."""
    configs, curves, origins = {}, {}, {}
    for place in sorted(path for path in (folder / "streams").glob("*") if path.is_dir()):
        if config := _json(place / "config.json", gaps, "lineage"):
            configs[place.name] = config
        if origin := _json(place / "origin.json", gaps, "lineage"):
            origins[place.name] = origin
        try:
            lines = (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            continue
        phases: dict[str, list[dict[str, float]]] = {}
        for line in lines:
            try:
                metrics = json.loads(line)
                phases.setdefault(str(metrics["phase"]).removeprefix(f"{place.name}-"), []).append(
                    metrics
                )
            except (ValueError, KeyError, TypeError):
                gaps.append(
                    Gap(
                        "training",
                        f"{place / 'metrics.jsonl'} has a line that is not an epoch; left out.",
                    )
                )
        curves[place.name] = phases
    return configs, curves, origins


def _json(path: Path, gaps: list[Gap], section: str) -> dict[str, Any]:
    """Return the object in a JSON file; empty if it is missing, with a gap if it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        gaps.append(Gap(section, f"{path} is not JSON ({error}); it is left out."))
        return {}
    if not isinstance(content, dict):
        gaps.append(Gap(section, f"{path} holds no JSON object; it is left out."))
        return {}
    return content


def _rows(path: Path) -> tuple[dict[str, str], ...]:
    try:
        with path.open(encoding="utf-8", errors="backslashreplace", newline="") as file:
            return tuple(
                {str(name): value or "" for name, value in row.items() if name is not None}
                for row in csv.DictReader(file)
            )
    except FileNotFoundError:
        return ()


def _fused(
    folder: Path, spaces: Mapping[str, str], manifest: Manifest | None, gaps: list[Gap]
) -> Fused | None:
    """Embeddings in the spaces the decisions were made in, of the videos that every stream's table has."""
    command = f"tristream embed --run {folder}"
    tables: dict[str, EmbeddingTable] = {}
    for name, space in sorted(spaces.items()):
        try:
            tables[name] = embeddings.read(folder / "embeddings" / name / space)
        except embeddings.EmbeddingsError as error:
            gaps.append(Gap("map", f"Embeddings of {name} cannot be read: {error}.", command))
    by_id = {row.video_id: row for row in manifest.rows} if manifest else {}
    common = (
        set(by_id).intersection(*(table.video_id for table in tables.values())) if tables else set()
    )
    if not common:
        gaps.append(Gap("map", "There are no embeddings of the run's videos.", command))
        return None
    order = [video for video in next(iter(tables.values())).video_id if video in common]
    for name, table in tables.items():
        place = {video: index for index, video in enumerate(table.video_id)}
        tables[name] = table.take([place[video] for video in order])
    X, masks, columns = fuse_tables(tables)
    return Fused([by_id[video] for video in order], X, masks, columns)
