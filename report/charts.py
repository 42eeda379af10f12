"""Contents of plots as plain values: `svg` and `scenes` draw them on the page, `figures` in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a plot.

    Attributes:
        stream: whose colour it has; "" is ink.
        dashed: for what is not the main thing.
        weights: how much each point stands for, 0 … 1; where given, points are drawn in that size, and no line.
    """

    name: str
    x: Float64[np.ndarray, " n"]
    y: Float64[np.ndarray, " n"]
    stream: str = ""
    dashed: bool = False
    weights: Float64[np.ndarray, " n"] | None = None


@dataclass(frozen=True, eq=False)
class Curves:
    """Lines over one axis.

    Attributes:
        name: of its file, without ending.
        y_range, x_range: None: what the lines need.
        mark: an x worth a vertical line, and what it is called.
        diagonal: a dashed line from corner to corner, where x = y.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    y_range: tuple[float, float] | None = None
    x_range: tuple[float, float] | None = None
    mark: tuple[float, str] | None = None
    diagonal: bool = False


@dataclass(frozen=True)
class Whisker:
    """A figure with its interval, and what it is held against.

    Attributes:
        streams: drawn as coloured dots before the label.
        best: a tick where the best possible is; None: none known.
    """

    label: str
    value: float
    low: float
    high: float
    streams: tuple[str, ...] = ()
    best: float | None = None


@dataclass(frozen=True)
class Whiskers:
    """Figures with intervals, one a row, on one axis; `zero`: a line at 0 divides good from bad."""

    name: str
    title: str
    x_label: str
    rows: Sequence[Whisker]
    x_range: tuple[float, float]
    zero: bool = False
    chance: float | None = None


@dataclass(frozen=True, eq=False)
class Confusion:
    """Videos of class i (row) that were named j (column)."""

    name: str
    title: str
    classes: Sequence[str]
    counts: Int[np.ndarray, "classes classes"]


@dataclass(frozen=True, eq=False)
class Map:
    """Points in a plane, coloured by label, shaped by split.

    Attributes:
        places: {view: (n, 2)}; the first view is the one that is printed.
        axes: {view: what its axes are}.
        rows: of the n videos in `Fused.rows`.
        abnormal: videos that are said to be so.
    """

    name: str
    title: str
    places: dict[str, Float64[np.ndarray, "n 2"]]
    axes: dict[str, str]
    rows: Int[np.ndarray, " n"]
    video_ids: Sequence[str]
    labels: Sequence[str]
    splits: Sequence[str]
    abnormal: Sequence[bool]
    n_left_out: int = 0


@dataclass(frozen=True)
class Event:
    """An abnormal stretch of a video; seconds on the video's clock. region: "" = the whole picture."""

    start_seconds: float
    stop_seconds: float
    peak_seconds: float
    peak_score: float
    shares: dict[str, float]
    nearest: tuple[str, ...] = ()
    region: str = ""


@dataclass(frozen=True, eq=False)
class Timeline:
    """Anomaly score of one video over its time, and each stream's share of it.

    Attributes:
        shares: {stream: (n,) in 0 … 1}.
        truth: labelled abnormal stretches, seconds; None: not labelled.
    """

    name: str
    video_id: str
    times: Float64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]
    threshold: float
    shares: dict[str, Float64[np.ndarray, " n"]]
    truth: Sequence[tuple[float, float]] | None
    events: Sequence[Event]
    path: str = ""

    @property
    def is_steep(self) -> bool:
        """True if the highest score is so far above the threshold that only a logarithmic axis shows both."""
        return bool(0 < 20 * self.threshold < self.scores.max())


@dataclass(frozen=True, eq=False)
class Looks:
    """Positions of the sampler's segments in one video.

    Attributes:
        motion: mean displacement between frames, px, at `times` (seconds); empty without pictures.
        starts: {stream: start of each of its segments, seconds}.
        spans: {stream: seconds one segment lasts}.
        absent: {stream: why it is masked}.
        frames: (seconds, JPEG as a data URI).
    """

    name: str
    video_id: str
    label: str
    stop_seconds: float
    times: Float64[np.ndarray, " n"]
    motion: Float64[np.ndarray, " n"]
    starts: dict[str, Float64[np.ndarray, " s"]]
    spans: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    frames: Sequence[tuple[float, str]] = ()


Chart = Curves | Whiskers | Confusion | Map | Timeline | Looks
