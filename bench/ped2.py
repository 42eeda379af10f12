"""UCSD Ped2: where is something abnormal, by regions of the picture. python -m tristream.bench.ped2 --data DIR

No label of the test videos is used but for the figures. The size of a region is the median size of what moves in the
normal training videos, and every statistic is theirs. What was looked at on the way stands in docs/results.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tristream.bench.table import Table
from tristream.flow import estimators, precomputed
from tristream.fusion.anomaly.autoencoder import AutoencoderDetector
from tristream.fusion.anomaly.baselines import PlainDetector
from tristream.fusion.anomaly.region_scale import fit_row_scale, row_extremes
from tristream.fusion.evaluate import auroc, equal_error_rate, frame_auroc
from tristream.media.sandbox.pool import DecodePool

FPS = 10
HALF = (180, 120)  # width and height of the maps: half of the pictures
MOVES_PX = 0.5  # a pixel with a longer displacement belongs to something that moves
NAMES = ("speed", "|x|", "|y|", "speed squared", "change", "moving part", "edges |x|", "edges |y|")
BLOCKS = {"motion": slice(0, 4), "appearance": slice(4, 8)}
N_STRONGEST = 12  # regions of a frame, by speed in their row, that the learned detectors look at
SPREAD = 2  # rows above and below that lend a row their regions: 12 px
EMBEDDINGS = {
    "motion": [0, 1, 2, 3],
    "appearance": [4, 5, 6, 7],
    "speed, change, edges": [0, 4, 6, 7],
    "all eight": list(range(8)),
}
SMOOTH_FRAMES = 5.0  # sigma of the smoothed figures


def region_maps(frames: np.ndarray, flow: np.ndarray, side: int) -> np.ndarray:
    """Embeddings of overlapping regions, (T − 1, rows, columns, 8): means over `side` px of the half-size maps."""
    found = []
    for t, (u, v) in enumerate(flow):
        speed = np.hypot(u, v)
        now, before = (frame.astype(np.float32) for frame in (frames[t + 1], frames[t]))
        moving = (speed > MOVES_PX).astype(np.float32)
        edges = [np.abs(cv2.Sobel(now, cv2.CV_32F, *order)) * moving for order in ((1, 0), (0, 1))]
        maps = [speed, np.abs(u), np.abs(v), speed * speed, np.abs(now - before), moving, *edges]
        small = [cv2.resize(one, HALF, interpolation=cv2.INTER_AREA) for one in maps]
        edge = side // 2
        means = [cv2.blur(one, (side, side))[edge:-edge:3, edge:-edge:4] for one in small]
        found.append(np.stack(means, axis=-1))
    return np.stack(found)


def size_of_what_moves(flows: list[np.ndarray]) -> float:
    """Median side (px of the picture) of connected moving pixels in normal videos; specks below 50 px left out."""
    sides = []
    for flow in flows:
        for u, v in flow[::10]:
            moving = (np.hypot(u, v) > MOVES_PX).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(moving)
            for area in stats[1:, cv2.CC_STAT_AREA]:
                if area >= 50:
                    sides.append(float(np.sqrt(area)))
    return float(np.median(sides))


def smoothed(scores: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(scores, SMOOTH_FRAMES)


def figures(
    name: str, scores: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> list[str | float]:
    """A row of the table: micro, smoothed, macro, equal error rate; the first frame has the second's score."""
    full = {video: np.concatenate([values[:1], values]) for video, values in scores.items()}
    truth, order = [labels[video] for video in full], list(full)
    flat = np.concatenate(truth)
    soft = [smoothed(full[video]) for video in order]
    plain = [full[video] for video in order]
    return [
        name,
        round(auroc(flat, np.concatenate(plain)), 4),
        round(auroc(flat, np.concatenate(soft)), 4),
        round(frame_auroc(truth, soft).macro, 4),
        round(equal_error_rate(flat, np.concatenate(soft)), 4),
    ]


def measure(data: Path, workers: int, flow_from: Path | None = None) -> Table:
    """All detectors on all test frames; `flow_from`: DIS flow computed before, as `--flow-from` takes it."""
    labels = {
        f"{name[-2:]}": np.array(y)
        for name, y in json.loads((data / "frame_labels.json").read_text()).items()
    }
    labels = {name: y for name, y in labels.items() if (data / "test" / f"{name}.mp4").exists()}
    estimate = estimators.load("dis_medium")
    cv2.setNumThreads(1)
    paths = {split: sorted((data / split).glob("*.mp4")) for split in ("train", "test")}
    with DecodePool(workers) as pool, ThreadPoolExecutor(workers) as threads:

        def look(path: Path) -> tuple[np.ndarray, np.ndarray]:
            frames = pool.submit(path, sound=False, stop_seconds=None).result().frames
            assert frames is not None
            if flow_from is None:
                return frames[..., 0], estimate(frames).astype(np.float16)
            known = precomputed.read(
                flow_from, f"{path.parent.name}/{path.name}", n_steps=len(frames) - 1
            )
            return frames[..., 0], known.astype(np.float16)

        videos = {
            split: dict(zip([path.stem for path in part], threads.map(look, part), strict=True))
            for split, part in paths.items()
        }
        size = size_of_what_moves([flow.astype(np.float32) for _, flow in videos["train"].values()])
        side = max(3, round(size / 2) | 1)  # odd, on maps of half the size

        def cut(video: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
            return region_maps(video[0], video[1].astype(np.float32), side)

        maps = {
            split: dict(zip(part, threads.map(cut, part.values()), strict=True))
            for split, part in videos.items()
        }
    rows = [figures("largest |flow| in the frame", {n: np.hypot(f[:, 0], f[:, 1]).max(axis=(1, 2)).astype(float)
                                                    for n, (_, f) in videos["test"].items()}, labels)]  # fmt: skip
    n_rows = next(iter(maps["train"].values())).shape[1]
    speed = {
        split: {n: m[..., 0].astype(np.float64) for n, m in v.items()} for split, v in maps.items()
    }
    rows.append(
        figures(
            "largest speed of a region",
            {n: s.max(axis=(1, 2)) for n, s in speed["test"].items()},
            labels,
        )
    )
    of_row = {
        n: np.broadcast_to(np.arange(n_rows)[:, None], s.shape[1:])
        for n, s in speed["train"].items()
    }
    flat_row = np.concatenate(
        [np.broadcast_to(of_row[n], s.shape).ravel() for n, s in speed["train"].items()]
    )
    extremes = row_extremes(
        np.concatenate([s.ravel() for s in speed["train"].values()]), flat_row, n_rows
    )
    by_row = {n: (s / extremes[:, None]).max(axis=(1, 2)) for n, s in speed["test"].items()}
    rows.append(figures("… by row of the picture", by_row, labels))
    learned = _learned(maps, speed, extremes, n_rows)
    for name, scores in learned.items():
        rows.append(figures(f"{name} of region embeddings, by row", scores, labels))
    for name, scores in learned.items():
        both = {n: by_row[n] + scores[n] for n in by_row}
        rows.append(figures(f"speed by row + {name}", both, labels))
    for name, columns in EMBEDDINGS.items():
        rows.append(figures(f"Gaussian by row: {name}", _gaussians(maps, columns), labels))
    n_frames = sum(len(y) for y in labels.values())
    return Table(
        f"UCSD Ped2, frame AUROC: {len(labels)} test videos, {n_frames} frames, "
        f"{sum(int(y.sum()) for y in labels.values())} abnormal",
        ["score of a frame", "micro", "micro, smoothed", "macro, smoothed", "EER, smoothed"],
        rows,
        [
            f"regions of {2 * side} px: what moves in normal training videos has a median side of {size:.1f} px",
            "a frame counts by its strongest region; no per-video rescaling; smoothed: Gaussian, sigma 5 frames",
            "by row: divided by the .9995 quantile of normal training regions within 2 rows (12 px)",
        ],
    )


def _learned(
    maps: Mapping[str, Mapping[str, np.ndarray]],
    speed: Mapping[str, Mapping[str, np.ndarray]],
    extremes: np.ndarray,
    n_rows: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Detectors of region embeddings, standardised by row, on the strongest regions of each frame."""

    def strongest(split: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        scores = {}
        for name, values in maps[split].items():
            ratio = (speed[split][name] / extremes[:, None]).reshape(len(values), -1)
            index = np.argsort(-ratio, axis=1)[:, :N_STRONGEST]
            flat = np.sqrt(values.reshape(len(values), -1, values.shape[-1]).astype(np.float64))
            scores[name] = (
                np.take_along_axis(flat, index[..., None], axis=1),
                index // values.shape[2],
            )
        return scores

    chosen = {split: strongest(split) for split in maps}
    X = np.concatenate([x.reshape(-1, len(NAMES)) for x, _ in chosen["train"].values()])
    row = np.concatenate([r.ravel() for _, r in chosen["train"].values()])
    scale = fit_row_scale(X, row, n_rows, spread=4)
    Z = scale.transform(X, row)
    held = np.concatenate([np.full(r.size, n >= "13") for n, (_, r) in chosen["train"].items()])
    few = np.random.default_rng(0).permutation(np.flatnonzero(~held))[:4000]
    few_held = np.random.default_rng(1).permutation(np.flatnonzero(held))[:2000]
    detectors: dict[str, Any] = {
        "autoencoder": AutoencoderDetector(columns=BLOCKS, bottleneck=2, random_state=0),
        "PCA residual": PlainDetector("pca", columns=BLOCKS),
        "k-NN distance": PlainDetector("knn", columns=BLOCKS),
    }
    scores = {}
    for name, detector in detectors.items():
        detector.fit(Z[few], X_val=Z[few_held])
        unit = float(np.quantile(detector.anomaly_score(Z[few_held]), 0.9995))
        scores[name] = {
            n: detector.anomaly_score(scale.transform(x.reshape(-1, len(NAMES)), r.ravel()))
            .reshape(r.shape)
            .max(axis=1)
            / unit
            for n, (x, r) in chosen["test"].items()
        }
    return scores


def _gaussians(
    maps: Mapping[str, Mapping[str, np.ndarray]], columns: list[int]
) -> dict[str, np.ndarray]:
    """Mahalanobis distance of region embeddings to a Gaussian of the moving regions in the same rows.

    Only what is faster than usual there counts; in units of the .9995 quantile of normal training regions. The
    embedding is the square root of each mean: a mean of |flow| over a region grows with how much of it is covered.
    """
    n_rows = next(iter(maps["train"].values())).shape[1]
    of_row = []
    for r in range(n_rows):
        low, high = max(0, r - SPREAD), r + SPREAD + 1
        band = np.concatenate(
            [m[:, low:high].reshape(-1, len(NAMES)) for m in maps["train"].values()]
        )[:, columns]
        band = np.sqrt(band[band[:, 0] > np.median(band[:, 0])].astype(np.float64))
        of_row.append(
            (band.mean(axis=0), np.linalg.inv(np.cov(band.T) + 1e-6 * np.eye(len(columns))))
        )

    def distances(m: np.ndarray) -> np.ndarray:
        distances = np.empty(m.shape[:3])
        for r, (mean, precision) in enumerate(of_row):
            away = (
                np.sqrt(m[:, r][..., columns].astype(np.float64)) - mean
            )  # (T, columns of regions, F)
            distances[:, r] = np.where(
                away[..., 0] > 0, np.einsum("tnf,fg,tng->tn", away, precision, away), 0.0
            )
        return distances

    normal = [distances(m) for m in maps["train"].values()]
    row = np.concatenate(
        [np.broadcast_to(np.arange(n_rows)[:, None], d.shape).ravel() for d in normal]
    )
    extremes = row_extremes(np.concatenate([d.ravel() for d in normal]), row, n_rows)
    return {n: (distances(m) / extremes[:, None]).max(axis=(1, 2)) for n, m in maps["test"].items()}


def main() -> None:
    """Print the table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with train/, test/ and frame_labels.json"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--flow-from", type=Path, help="folder of flow computed before, instead of estimating it"
    )
    parser.add_argument("--out", type=Path, help="FILE.json")
    arguments = parser.parse_args()
    table = measure(arguments.data, arguments.workers, arguments.flow_from)
    widths = [
        max(len(line[i]) for line in [list(table.header), *table.cells()])
        for i in range(len(table.header))
    ]
    for line in [list(table.header), *[[str(cell) for cell in row] for row in table.rows]]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    print(table.title, *table.notes, sep="\n")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(table.to_json(), indent=1))


if __name__ == "__main__":
    main()
