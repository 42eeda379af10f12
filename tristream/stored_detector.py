"""Fitted anomaly detector as stored in RUN/fusion, with its validation scores and normal neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.decision_files import load_decision
from tristream.errors import UsageError
from tristream.fusion.anomaly.pattern_units import on_one_scale
from tristream.fusion.patterns import pattern_of
from tristream.settings import DetectorConfig
from tristream.windows import stored_plan
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.fusion.anomaly.baselines import PlainDetector
    from tristream.fusion.anomaly.detectors import Detector
    from tristream.fusion.anomaly.normal_scores import EventRule, NormalScores
    from tristream.fusion.anomaly.region_scale import RowScale
    from tristream.fusion.anomaly.thresholds import Threshold
    from tristream.streams.windows import WindowPlan

MAX_NEIGHBOURS = 2000  # normal rows that are kept for "most like"; more are thinned evenly
VIDEO_QUANTILE = 0.95  # of the highest windows of normal videos, where the rule is an hourly budget
ALL = "*"  # videos as they are, whatever their streams
_PREFIX, _ROWS, _VAL = "neighbours.", "rows.", "val_scores"


@dataclass
class StoredDetector:
    """A detector and everything that is needed to use it on new videos.

    Attributes:
        kind: a name of `fusion.anomaly.detectors`.
        detector: fitted.
        neighbours: normal training rows, to find the most similar.
        neighbour_ids: video of each of them.
        val_scores: of normal validation videos or windows, as they are.
        pattern_scores: {pattern of present streams: of those masked to it}; thresholds come from them.
        video_thresholds: {pattern: threshold of the highest window of a video}; none for whole videos.
        plan: what it was fitted on, and what it scores: windows, or whole videos.
        spaces: {stream: space_id} of that.
        hysteresis, min_seconds: of events; hysteresis is part of the threshold.
        scale: of regions by their row in the frame; None for whole frames.
        extremes: extreme score of each row of regions; scores are divided by it.
    """

    kind: str
    detector: Detector
    neighbours: PlainDetector
    neighbour_ids: list[str]
    val_scores: NormalScores
    plan: WindowPlan
    spaces: dict[str, str]
    hysteresis: float
    min_seconds: float
    scale: RowScale | None = None
    extremes: np.ndarray | None = None
    pattern_scores: dict[str, NormalScores] = field(default_factory=dict)
    video_thresholds: dict[str, Threshold] = field(default_factory=dict)

    def scores(self, X: np.ndarray, region: np.ndarray) -> np.ndarray:
        """Return the anomaly scores of rows, on the scale of rows with all streams.

        Rows that lack streams are compared with the threshold of their pattern by being scaled to
        the one of all streams.
        """
        scaled = self._scaled(X, region)
        limits = self.detector.limits(scaled)
        return on_one_scale(self.own_scores(X, region), limits, self.detector.threshold_.value)

    def own_scores(self, X: np.ndarray, region: np.ndarray) -> np.ndarray:
        """Return the anomaly scores of rows, each in the units of its own pattern of streams."""
        scores = self.detector.anomaly_score(self._scaled(X, region))
        return scores if self.extremes is None else scores / self.extremes[self._rows(region)]

    def errors(self, X: np.ndarray, region: np.ndarray) -> np.ndarray:
        """Return the error of each stream, in the units of the row's pattern of streams."""
        errors = self.detector.stream_errors(self._scaled(X, region))
        return (
            errors if self.extremes is None else errors / self.extremes[self._rows(region)][:, None]
        )

    def _scaled(self, X: np.ndarray, region: np.ndarray) -> np.ndarray:
        return X if self.scale is None else self.scale.transform(X, self._rows(region))

    def _rows(self, region: np.ndarray) -> np.ndarray:
        return region_rows(self.plan, region)

    def nearest(self, X: np.ndarray, region: np.ndarray, *, n_videos: int = 3) -> list[list[str]]:
        """Return for each row the normal training videos with the most similar rows, nearest first."""
        videos = []
        for row in self._scaled(X, region):
            index, _ = self.neighbours.nearest_normal(row[None], n_videos=10 * n_videos)
            videos.append(
                list(dict.fromkeys(self.neighbour_ids[i] for i in index[0].tolist()))[:n_videos]
            )
        return videos

    def threshold(self, *, rule: str, level: float) -> Threshold:
        """Return the threshold of another rule, from the stored validation scores.

        Raises:
            UsageError: a budget of false alarms for a detector of whole videos, or one that the scores cannot support.
        """
        from tristream.fusion.anomaly.thresholds import choose_thresholds

        self._check_rule(rule)
        threshold, _ = choose_thresholds(
            self.val_scores, self.pattern_scores, rule=rule, level=level, events=self._event_rule()
        )
        return threshold

    def set_rule(self, rule: str, level: float) -> None:
        """Put the thresholds of a rule in force; raises as `threshold`."""
        self._check_rule(rule)
        threshold = self.detector.set_threshold(
            self.val_scores, rule=rule, level=level, by_pattern=self.pattern_scores, events=self._event_rule(),
        )  # fmt: skip
        if threshold.remark and threshold.remark not in self.detector.remarks_:
            self.detector.remarks_.append(threshold.remark)
        self._set_video_thresholds(rule, level)

    def _set_video_thresholds(self, rule: str, level: float) -> None:
        """Set them from the highest window of each validation video; an hourly budget uses the usual quantile."""
        from tristream.fusion.anomaly.normal_scores import NormalScores
        from tristream.fusion.anomaly.thresholds import choose_threshold

        self.video_thresholds = {}
        if not self.plan.seconds:
            return
        rule, level = ("quantile", VIDEO_QUANTILE) if rule == "per_hour" else (rule, level)
        for pattern, scores in {ALL: self.val_scores, **self.pattern_scores}.items():
            maxima = NormalScores.of_videos(scores.maxima())
            self.video_thresholds[pattern] = choose_threshold(maxima, rule=rule, level=level)

    @property
    def video_threshold(self) -> Threshold | None:
        """Threshold of the highest window of a video with all streams; None for whole videos."""
        complete = next(iter(self.pattern_scores), ALL)
        return self.video_thresholds.get(complete)

    def video_limit(self, X: np.ndarray) -> float:
        """Return the score at which a video of windows is abnormal, on the scale of `scores`.

        It is never below the threshold of a window. A detector of an earlier version has only that.

        Args:
            X: rows of the video.
        """
        standardiser = self.neighbours.standardiser_
        mask = np.asarray(standardiser.masks(X).any(axis=0))
        pattern = pattern_of(mask, list(standardiser.columns))
        threshold = self.detector.threshold_.value
        own = self.video_thresholds.get(pattern, self.video_thresholds.get(ALL))
        if own is None:
            return threshold
        window = self.detector.thresholds_.get(pattern, self.detector.threshold_).value
        limit = on_one_scale(np.array([own.value]), np.array([window]), threshold)
        return max(threshold, float(limit[0]))

    def _check_rule(self, rule: str) -> None:
        if rule == "per_hour" and not self.plan.seconds:
            raise UsageError(
                "a budget of false alarms per hour needs windows (tristream fuse --window 2 --hop 1); this detector "
                "scores whole videos, where --quantile sets the share that may alarm"
            )

    def _event_rule(self) -> EventRule | None:
        from tristream.fusion.anomaly.normal_scores import EventRule

        if not self.plan.seconds:
            return None
        return EventRule(
            self.plan.hop_seconds, self.plan.seconds, self.hysteresis, self.min_seconds
        )

    def save(self, workspace: Workspace) -> None:
        """Write RUN/fusion/detector.safetensors and .json."""
        from tristream.store.checkpoint import save_artifact

        arrays, config = self.detector.to_arrays()
        near, near_config = self.neighbours.to_arrays()
        arrays |= {_PREFIX + name: array for name, array in near.items()}
        arrays |= self.val_scores.to_arrays(_VAL)
        for pattern, scores in self.pattern_scores.items():
            arrays |= scores.to_arrays(f"{_VAL}:{pattern}")
        if self.scale is not None and self.extremes is not None:
            arrays |= {_ROWS + name: array for name, array in self.scale.to_arrays().items()}
            arrays |= {_ROWS + "extremes": self.extremes}
        config |= {
            "kind": self.kind,
            "spaces": self.spaces,
            "windows": self.plan.identity() if self.plan.seconds else None,
            "hysteresis": self.hysteresis,
            "min_seconds": self.min_seconds,
            "video_thresholds": {name: vars(one) for name, one in self.video_thresholds.items()},
            "pattern_scores": list(self.pattern_scores),
            "neighbours": {**near_config, "video_id": self.neighbour_ids},
        }
        save_artifact(workspace.fusion_dir / "detector", arrays, config)

    @classmethod
    def load(cls, workspace: Workspace) -> StoredDetector:
        """Load what `save` wrote.

        Raises:
            UsageError: there is none, or it is of another version.
        """
        from tristream.fusion.anomaly import detectors
        from tristream.fusion.anomaly.baselines import PlainDetector
        from tristream.fusion.anomaly.normal_scores import NormalScores
        from tristream.fusion.anomaly.region_scale import RowScale
        from tristream.fusion.anomaly.thresholds import Threshold

        path = workspace.fusion_dir / "detector"
        arrays, config = load_decision(path, workspace.folder)
        if "neighbours" not in config:
            raise UsageError(
                f"{path}.json is of an earlier version; run tristream fuse --run {workspace.folder} again"
            )
        near = {
            name.removeprefix(_PREFIX): array
            for name, array in arrays.items()
            if name.startswith(_PREFIX)
        }
        by_row = {
            name.removeprefix(_ROWS): array
            for name, array in arrays.items()
            if name.startswith(_ROWS)
        }
        others = (_PREFIX, _ROWS, _VAL)
        own = {name: array for name, array in arrays.items() if not name.startswith(others)}
        plan = stored_plan(config["windows"])
        if f"{_VAL}.video" in arrays:
            val_scores = NormalScores.from_arrays(arrays, _VAL)
        elif plan.seconds:  # of an earlier version, which did not store the videos
            val_scores = NormalScores.of_one_source(arrays[_VAL], plan.hop_seconds)
        else:
            val_scores = NormalScores.of_videos(arrays[_VAL])
        return cls(
            kind=config["kind"],
            detector=detectors.load(config["kind"], own, config),
            neighbours=PlainDetector.from_arrays(near, config["neighbours"]),
            neighbour_ids=list(config["neighbours"]["video_id"]),
            val_scores=val_scores,
            plan=plan,
            spaces=dict(config["spaces"]),
            hysteresis=config["hysteresis"],
            min_seconds=config["min_seconds"],
            scale=RowScale.from_arrays(by_row) if by_row else None,
            extremes=by_row.get("extremes"),
            pattern_scores={
                pattern: NormalScores.from_arrays(arrays, f"{_VAL}:{pattern}")
                for pattern in config.get("pattern_scores", ())
            },
            video_thresholds={
                name: Threshold(**one) for name, one in config.get("video_thresholds", {}).items()
            },
        )


def region_rows(plan: WindowPlan, region: np.ndarray) -> np.ndarray:
    """Return the row of the frame that each region lies in."""
    return np.asarray(region, np.int64) // (2 * plan.regions[1] - 1)


@dataclass(frozen=True, eq=False)
class NormalRows:
    """Normal videos or windows.

    Attributes:
        X: (n, F) fused embeddings.
        ids: video of each row.
        region: part of the frame of each row; None: whole frames.
    """

    X: np.ndarray
    ids: Sequence[str]
    region: np.ndarray | None = None


def fit_stored(
    train: NormalRows,
    val: NormalRows,
    columns: dict[str, slice],
    chosen: DetectorConfig,
    *,
    plan: WindowPlan,
    spaces: dict[str, str],
    seed: int,
) -> StoredDetector:
    """Fit the detector and store normal neighbours; the caller sets its threshold.

    Args:
        train: rows to learn from.
        val: other rows, for early stop; without any, some of `train` are held out.
        columns: {stream: slice}.
        chosen: section [detector].
        plan: of the windows that the rows are.
        spaces: {stream: space_id} of the rows.
        seed: random seed.
    """
    from tristream.fusion.anomaly import detectors
    from tristream.fusion.anomaly.baselines import PlainDetector
    from tristream.fusion.anomaly.normal_scores import NormalScores
    from tristream.fusion.anomaly.region_scale import fit_row_scale, row_extremes
    from tristream.fusion.standardise import LEAST_SHARE

    scale, n_rows = None, 2 * plan.regions[0] - 1
    X, X_val = train.X, val.X
    rows, rows_val = (
        None if part.region is None else region_rows(plan, part.region) for part in (train, val)
    )
    if plan.regions != (1, 1) and rows is not None:
        scale = fit_row_scale(X, rows, n_rows, spread=1, columns=columns, least_share=LEAST_SHARE)
        X = scale.transform(X, rows)
        X_val = scale.transform(X_val, rows_val) if len(X_val) and rows_val is not None else X_val
    detector = detectors.build(
        chosen.kind, columns=columns, seed=seed, combine=chosen.combine, **chosen.autoencoder()
    )
    detector.fit(X, X_val=X_val if len(X_val) else None)
    index = thinned(len(X), MAX_NEIGHBOURS)
    neighbours = PlainDetector("knn", columns=columns).fit(X[index], X_val=X[index[:50]])
    extremes = None
    if scale is not None and rows is not None:
        scored, places = (X_val, rows_val) if len(X_val) and rows_val is not None else (X, rows)
        extremes = row_extremes(
            detector.anomaly_score(scored), places, n_rows, quantile=0.99, spread=1
        )
    return StoredDetector(
        kind=chosen.kind,
        detector=detector,
        neighbours=neighbours,
        neighbour_ids=[str(train.ids[i]) for i in index],
        val_scores=NormalScores.of_videos([]),
        plan=plan,
        spaces=spaces,
        hysteresis=chosen.hysteresis,
        min_seconds=chosen.min_seconds,
        scale=scale,
        extremes=extremes,
    )


def thinned(n: int, most: int) -> np.ndarray:
    """Return at most so many of n rows, evenly spread."""
    return np.unique(np.linspace(0, max(0, n - 1), min(n, most)).astype(int))


def threshold_words(threshold: Threshold, *, what: str) -> str:
    """Return a clause with a threshold and its origin."""
    how = {
        "quantile": f"quantile {threshold.level:g}",
        "mean_sd": f"mean + {threshold.level:g} standard deviations",
        "per_hour": f"at most {threshold.level:g} events an hour",
    }[threshold.rule]
    of = f"{threshold.n} normal validation {what}"
    if threshold.n_events:
        of += (
            f" of {threshold.n_videos} videos: {threshold.n_alarms} alarm, which makes "
            f"{threshold.n_events} events"
        )
    return f"threshold {threshold.value:.3f} ({how} of {of})"


def as_float(value: Any) -> float | None:
    """Return a number for JSON; None for NaN."""
    return None if value is None or not np.isfinite(value) else float(value)
