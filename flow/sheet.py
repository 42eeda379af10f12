"""A video, its flow, its motion and the sampled frames side by side, for display only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from tristream.flow.draw import flow_to_color

CURVE_HEIGHT_PX = 96
_GAP_PX = 4
_PAPER, _INK, _CHOSEN, _NOW = (255, 255, 255), (60, 60, 60), (214, 69, 65), (38, 110, 190)
_MARGIN_PX = 6


def common_radius(flow: Float[np.ndarray, "steps 2 H W"]) -> float:
    """Return the displacement of full colour for a whole video, px: the 99th percentile, at least 1."""
    lengths = np.hypot(flow[:, 0, ::2, ::2], flow[:, 1, ::2, ::2])  # a quarter of them tell as much
    return max(1.0, float(np.quantile(lengths, 0.99)))


def motion_curve(
    motion: Float[np.ndarray, "steps"],
    chosen: Int[np.ndarray, "samples"],
    *,
    width: int,
    now: int | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw mean |flow| over the frames, a red tick for each sampled frame and a blue line at `now`."""
    import cv2

    picture = np.full((CURVE_HEIGHT_PX, width, 3), _PAPER, np.uint8)
    n_frames = len(motion) + 1
    bottom, top = CURVE_HEIGHT_PX - 14, 18
    largest = max(float(motion.max(initial=0)), 1e-9)

    def x_of(frame: float) -> int:
        return round(_MARGIN_PX + frame / max(1, n_frames - 1) * (width - 2 * _MARGIN_PX - 1))

    for frame in chosen.tolist():
        cv2.line(picture, (x_of(frame), bottom + 3), (x_of(frame), CURVE_HEIGHT_PX - 3), _CHOSEN, 1)
    points = np.array(
        [
            [x_of(t + 0.5), round(bottom - m / largest * (bottom - top))]
            for t, m in enumerate(motion)
        ]
    )
    cv2.polylines(picture, [points.reshape(-1, 1, 2).astype(np.int32)], False, _INK, 1, cv2.LINE_AA)
    cv2.line(picture, (_MARGIN_PX, bottom), (width - _MARGIN_PX - 1, bottom), (200, 200, 200), 1)
    label = f"mean |flow| up to {largest:.2f} px; {len(chosen)} of {n_frames} frames chosen"
    cv2.putText(
        picture, label, (_MARGIN_PX, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _INK, 1, cv2.LINE_AA
    )
    if now is not None:
        cv2.line(picture, (x_of(now), top), (x_of(now), CURVE_HEIGHT_PX - 3), _NOW, 1)
    return picture


def side_by_side(
    frames: UInt8[np.ndarray, "T H W 3"],
    flow: Float[np.ndarray, "steps 2 H W"],
    motion: Float[np.ndarray, "steps"],
    chosen: Int[np.ndarray, "samples"],
) -> Iterator[UInt8[np.ndarray, "H2 W2 3"]]:
    """Yield one image per step: the frame (framed in red if sampled), its flow, and the curve below; even sides."""
    radius, picked = common_radius(flow), set(chosen.tolist())
    for t, field in enumerate(flow):
        frame = _framed(frames[t]) if t in picked else frames[t]
        gap = np.full((len(frame), _GAP_PX, 3), _PAPER, np.uint8)
        upper = np.concatenate([frame, gap, flow_to_color(field, radius)], axis=1)
        curve = motion_curve(motion, chosen, width=upper.shape[1], now=t)
        page = np.concatenate([upper, curve])
        yield np.pad(page, ((0, len(page) % 2), (0, page.shape[1] % 2), (0, 0)), mode="edge")


def contact_sheet(
    frames: UInt8[np.ndarray, "T H W 3"],
    flow: Float[np.ndarray, "steps 2 H W"],
    motion: Float[np.ndarray, "steps"],
    chosen: Int[np.ndarray, "samples"],
    start_seconds: Sequence[float] | Float[np.ndarray, "T"],
    *,
    n_columns: int = 8,
    cell_width: int = 160,
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Return the sampled frames in order with their flow and time, below the motion curve."""
    import cv2

    radius = common_radius(flow)
    height, width = frames.shape[1:3]
    cell = (cell_width, max(1, round(cell_width * height / width)))
    columns: list[np.ndarray] = []
    for index in chosen.tolist():
        frame = cv2.resize(frames[index], cell, interpolation=cv2.INTER_AREA)
        colour = flow_to_color(flow[min(index, len(flow) - 1)], radius)
        colour = cv2.resize(colour, cell, interpolation=cv2.INTER_AREA)
        caption = np.full((14, cell_width, 3), _PAPER, np.uint8)
        text = f"{index}  {start_seconds[index]:.2f} s"
        cv2.putText(caption, text, (2, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _INK, 1, cv2.LINE_AA)
        pair = np.concatenate(
            [caption, frame, np.full((2, cell_width, 3), _PAPER, np.uint8), colour]
        )
        columns.append(np.pad(pair, ((0, _GAP_PX), (0, _GAP_PX), (0, 0)), constant_values=255))
    n_columns = min(n_columns, len(columns))
    columns += [np.full_like(columns[0], 255)] * (-len(columns) % n_columns)
    rows = [
        np.concatenate(columns[i : i + n_columns], axis=1)
        for i in range(0, len(columns), n_columns)
    ]
    return np.concatenate([motion_curve(motion, chosen, width=rows[0].shape[1]), *rows])


def _framed(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    framed = frame.copy()
    for border in (framed[:3], framed[-3:], framed[:, :3], framed[:, -3:]):
        border[:] = _CHOSEN
    return framed
