"""One event as an image: frames, score with threshold, mel spectrogram of its audio, and the shares of its causes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tristream.media.reasons import printable
from tristream.report.causes import cause

N_FRAMES = 6
WIDTH = 1080
CURVE_HEIGHT, BARS_HEIGHT, TEXT_HEIGHT, MEL_HEIGHT = 180, 34, 34, 120
LEFT, RIGHT = 60, WIDTH - 12  # columns of the time axis
MEL_SAMPLES, MEL_BANDS = 512, 64
INK, PAPER, GRID = (40, 40, 40), (255, 255, 255), (225, 225, 225)
RED, BLUE = (200, 55, 45), (45, 95, 160)
_XYWH = re.compile(r"#xywh=percent:([\d.]+),([\d.]+),([\d.]+),([\d.]+)")
COLOURS = (
    (45, 95, 160),
    (220, 140, 40),
    (70, 150, 90),
    (150, 80, 160),
    (120, 120, 120),
)  # one a stream, in order


@dataclass(frozen=True, eq=False)
class Origin:
    """Source of an event, and its audio where there is any.

    Attributes:
        source: file name or name of the camera; "" is not drawn.
        wall_clock: date and time of the peak as text; "" is not drawn.
        samples: mono audio around the event, amplitude in [-1, 1]; drawn as a mel spectrogram.
        sample_rate: Hz.
        start_seconds: time of the first sample, on the clock of the windows.
    """

    source: str = ""
    wall_clock: str = ""
    samples: np.ndarray | None = None
    sample_rate: int = 16000
    start_seconds: float = 0.0


def part_of(region: str) -> tuple[float, float, float, float] | None:
    """Left, top, width and height of a region `#xywh=percent:…`, as fractions; None for the whole frame."""
    match = _XYWH.fullmatch(region)
    if match is None:
        return None
    left, top, width, height = (float(part) / 100 for part in match.groups())
    return left, top, width, height


def event_strip(
    frames: np.ndarray,
    frame_seconds: np.ndarray,
    times: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    event: Mapping[str, Any],
    *,
    region: tuple[float, float, float, float] | None = None,
    origin: Origin | None = None,
) -> np.ndarray:
    """An RGB image of `WIDTH` px.

    Args:
        frames: (T, H, W, 3) uint8 around the event.
        frame_seconds: when each begins.
        times, scores: centres of the windows around the event, and their scores.
        threshold: an alarm starts at it.
        event: as `fusion.anomaly.window_scores.event_json` gives it.
        region: left, top, width and height in parts of the picture, to be framed; None for the whole.
        origin: source, time and audio of the event; None adds nothing to the image.
    """
    origin = origin or Origin()
    parts = [
        *_source(origin),
        _title(event),
        _pictures(frames, frame_seconds, event, region),
        *_mel(origin, times, event),
        _curve(times, scores, threshold, event),
        _bars(event["shares"]),
    ]
    return np.concatenate(parts)


def _source(origin: Origin) -> list[np.ndarray]:
    """Draw one line of text: file or camera and wall-clock time, if known."""
    words = "    ".join(part for part in (origin.source, origin.wall_clock) if part)
    if not words:
        return []
    drawable = printable(words).encode("ascii", "replace").decode()  # OpenCV's font has no more
    return [_write(_paper(TEXT_HEIGHT), drawable, (8, 23), INK, 0.6)]


def _mel(origin: Origin, times: np.ndarray, event: Mapping[str, Any]) -> list[np.ndarray]:
    """Mel spectrogram in dB over the time axis of the curve; empty where audio has no share."""
    samples = origin.samples
    if samples is None or len(samples) < MEL_SAMPLES or not event["shares"].get("audio"):
        return []
    import cv2
    import librosa

    energy = librosa.feature.melspectrogram(
        y=np.asarray(samples, dtype=np.float32), sr=origin.sample_rate, n_fft=MEL_SAMPLES,
        hop_length=MEL_SAMPLES // 4, n_mels=MEL_BANDS,
    )  # fmt: skip
    decibels = librosa.power_to_db(energy, ref=np.max, top_db=60.0)  # (M, T), -60 … 0
    grey = np.round(255 * (-decibels / 60.0)).astype(np.uint8)[::-1]  # loud is dark, low is below
    first, last = _span(times)
    left, right = (
        _column(origin.start_seconds, first, last),
        _column(origin.start_seconds + len(samples) / origin.sample_rate, first, last),
    )
    seconds = np.linspace(*_inverse(left, right, first, last), max(1, right - left))
    columns = (seconds - origin.start_seconds) * origin.sample_rate / (MEL_SAMPLES // 4)
    columns = np.clip(np.round(columns).astype(int), 0, grey.shape[1] - 1)
    paper = _paper(MEL_HEIGHT)
    height = MEL_HEIGHT - 12
    image = cv2.resize(grey[:, columns], (len(columns), height), interpolation=cv2.INTER_AREA)
    paper[6 : 6 + height, left : left + len(columns)] = image[:, :, None]
    return [_write(paper, "mel", (6, MEL_HEIGHT // 2), INK, 0.42)]


def _span(times: np.ndarray) -> tuple[float, float]:
    """First and last second of the time axis; one second where there is a single window."""
    first = float(times[0])
    return first, float(times[-1]) if len(times) > 1 else first + 1


def _column(seconds: float, first: float, last: float) -> int:
    """Column of a time, kept inside the axis."""
    return round(LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, (seconds - first) / (last - first))))


def _inverse(left: int, right: int, first: float, last: float) -> tuple[float, float]:
    """Times of two columns."""
    scale = (last - first) / (RIGHT - LEFT)
    return first + (left - LEFT) * scale, first + (right - LEFT) * scale


def _title(event: Mapping[str, Any]) -> np.ndarray:
    paper = _paper(TEXT_HEIGHT)
    causes = "  ".join(f"{cause(name)} {share:.0%}" for name, share in event["shares"].items())
    words = (
        f"{event['start_seconds']:.2f} - {event['stop_seconds']:.2f} s    peak {event['peak_score']:.2f} at "
        f"{event['peak_seconds']:.2f} s    {causes}"
    )
    return _write(paper, words, (8, 23), INK, 0.6)


def _pictures(
    frames: np.ndarray,
    seconds: np.ndarray,
    event: Mapping[str, Any],
    region: tuple[float, ...] | None,
) -> np.ndarray:
    """Frames spread over the event and a little before and after; those inside it have a red edge."""
    import cv2

    width = WIDTH // N_FRAMES
    if not len(frames):
        return _write(_paper(TEXT_HEIGHT), "no pictures", (8, 23), INK, 0.6)
    height = max(1, round(frames.shape[1] * width / frames.shape[2]))
    chosen = np.unique(np.linspace(0, len(frames) - 1, N_FRAMES).round().astype(int))
    row = _paper(height + 22)
    for place, index in enumerate(chosen):
        picture = cv2.resize(
            np.ascontiguousarray(frames[index]), (width - 4, height), interpolation=cv2.INTER_AREA
        )
        inside = event["start_seconds"] <= seconds[index] < event["stop_seconds"]
        if region is not None and inside:
            left, top, wide, high = region
            corner = (round(left * width), round(top * height))
            cv2.rectangle(
                picture,
                corner,
                (corner[0] + round(wide * width), corner[1] + round(high * height)),
                RED,
                2,
            )
        if inside:
            cv2.rectangle(picture, (0, 0), (width - 5, height - 1), RED, 2)
        x = place * width + 2
        row[:height, x : x + width - 4] = picture
        row = _write(
            row, f"{seconds[index]:.2f} s", (x + 4, height + 16), RED if inside else INK, 0.42
        )
    return row


def _curve(
    times: np.ndarray, scores: np.ndarray, threshold: float, event: Mapping[str, Any]
) -> np.ndarray:
    import cv2

    paper = _paper(CURVE_HEIGHT)
    left, right, top, bottom = LEFT, RIGHT, 12, CURVE_HEIGHT - 26
    first, last = _span(times)
    high = max(float(scores.max()), threshold) * 1.1 or 1.0

    def at(time: float, score: float) -> tuple[int, int]:
        return _column(time, first, last), round(
            bottom - (bottom - top) * min(1.0, max(0.0, score / high))
        )

    a, b = at(event["start_seconds"], 0)[0], at(event["stop_seconds"], 0)[0]
    paper[top:bottom, a : max(b, a + 2)] = (252, 226, 222)
    for part in (0.0, 0.5, 1.0):
        y = at(first, part * high)[1]
        cv2.line(paper, (left, y), (right, y), GRID, 1)
        paper = _write(paper, _short(part * high), (6, y + 4), INK, 0.4)
    y = at(first, threshold)[1]
    cv2.line(paper, (left, y), (right, y), RED, 1, cv2.LINE_AA)
    paper = _write(paper, "threshold", (right - 70, max(12, y - 4)), RED, 0.4)
    points = np.array(
        [at(t, s) for t, s in zip(times.tolist(), scores.tolist(), strict=True)], np.int32
    )
    cv2.polylines(paper, [points.reshape(-1, 1, 2)], False, BLUE, 2, cv2.LINE_AA)
    for time in np.linspace(first, last, 6):
        x = min(at(float(time), 0)[0] - 16, WIDTH - 52)
        paper = _write(paper, f"{time:.1f} s", (x, CURVE_HEIGHT - 8), INK, 0.4)
    return paper


def _bars(shares: Mapping[str, float]) -> np.ndarray:
    """The shares of the streams as one bar."""
    paper = _paper(BARS_HEIGHT)
    left, right = LEFT, RIGHT
    x = left
    for (name, share), colour in zip(shares.items(), _colours(len(shares)), strict=True):
        width = round((right - left) * share)
        paper[6:26, x : x + width] = colour
        words = f"{cause(name)} {share:.0%}"
        if width > 9 * len(words):
            paper = _write(paper, words, (x + 6, 21), PAPER, 0.45)
        x += width
    return _write(paper, "cause", (6, 21), INK, 0.42)


def _colours(n: int) -> Sequence[tuple[int, int, int]]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def _short(value: float) -> str:
    """Return three digits, without an exponent for ordinary numbers."""
    return f"{value:.0f}" if 100 <= value < 1e6 else f"{value:.3g}"


def _paper(height: int) -> np.ndarray:
    return np.full((height, WIDTH, 3), 255, np.uint8)


def _write(
    paper: np.ndarray, words: str, at: tuple[int, int], colour: tuple[int, int, int], size: float
) -> np.ndarray:
    import cv2

    cv2.putText(paper, words, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
    return paper
