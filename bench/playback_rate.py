"""A self-supervised task for a camera whose normal videos have one class: how fast is this region played?

Clips of regions of the normal training videos, at one, two and three times their pace, as a folder that `tristream
index` reads: python -m tristream.bench.playback_rate --data ucsd_ped2 --out DIR.
Also DIR/frame_labels.json for `fuse --frame-labels`.
The task is that of Benaim et al. (CVPR 2020, arXiv:2004.06130) and Wang et al. (ECCV 2020, arXiv:2008.05861).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tristream.media.encode import write_video
from tristream.media.sandbox.pool import DecodePool
from tristream.streams.windows import Region, WindowPlan

FPS = 10
PACES = (1, 2, 3)
N_FRAMES = 16  # of a clip, at any pace
REGIONS = (4, 6)
N_PLACES = 24  # of each video
N_VAL = 3  # videos, the last ones
MOVES = 4.0  # grey levels between two frames: below, nothing moves in the region and its pace cannot be told


def places(
    frames: np.ndarray, cells: Sequence[Region], generator: np.random.Generator
) -> Iterator[tuple[Region, int, np.ndarray]]:
    """(region, first frame, its pictures for the longest pace) where something moves, most of all places in a video."""
    needed = max(PACES) * (N_FRAMES - 1) + 1
    grey = frames.mean(axis=-1)
    candidates = []
    for cell in cells:
        rows, columns = cell.of(frames.shape[1:3])
        change = np.abs(np.diff(grey[:, rows, columns], axis=0))
        strongest = np.quantile(
            change.reshape(len(change), -1), 0.9, axis=1
        )  # a small walker moves few pixels
        candidates += [(cell, first) for first in range(0, len(frames) - needed + 1, 4)
                       if np.median(strongest[first : first + needed - 1]) >= MOVES]  # fmt: skip
    for index in generator.permutation(len(candidates))[:N_PLACES]:
        cell, first = candidates[index]
        rows, columns = cell.of(frames.shape[1:3])
        yield cell, first, frames[first : first + needed, rows, columns]


def render(data: Path, out: Path) -> dict[str, int]:
    """Write the clips and their table; returns how many clips there are of each split."""
    cells = WindowPlan(1.0, 1.0, REGIONS).cells()
    paths = sorted((data / "train").glob("*.mp4"))
    rows: list[dict[str, str]] = []
    with DecodePool(1) as pool:
        for n, path in enumerate(paths):
            frames = pool.submit(path, sound=False, max_side=360).result().frames
            assert frames is not None, "a video of Ped2 has pictures"
            split = "val" if n >= len(paths) - N_VAL else "train"
            for place, (_, _, part) in enumerate(places(frames, cells, np.random.default_rng(n))):
                for pace in PACES:
                    clip = Path("clips") / f"{pace}x" / f"{path.stem}-{place:02d}.mp4"
                    (out / clip).parent.mkdir(parents=True, exist_ok=True)
                    even = part[: pace * N_FRAMES : pace][
                        :N_FRAMES, : part.shape[1] // 2 * 2, : part.shape[2] // 2 * 2
                    ]
                    write_video(out / clip, np.ascontiguousarray(even), fps=FPS)
                    rows.append(
                        {"path": str(clip), "label": f"{pace}x", "split": split, "group": path.stem}
                    )
    with (out / "videos.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ["path", "label", "split", "group"])
        writer.writeheader()
        writer.writerows(rows)
    return {split: sum(row["split"] == split for row in rows) for split in ("train", "val")}


def intervals(data: Path) -> dict[str, list[list[float]]]:
    """{test video: [[start, stop], …] in seconds} of the official frame labels."""
    intervals = {}
    for name, labels in json.loads((data / "frame_labels.json").read_text()).items():
        edges = np.flatnonzero(np.diff([0, *labels, 0])).reshape(-1, 2) / FPS
        intervals[f"test/{int(name.removeprefix('Test')):02d}.mp4"] = edges.tolist()
    return intervals


def main() -> None:
    """Write the folder and says what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with train/, test/ and frame_labels.json"
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    counts = render(arguments.data, arguments.out)
    (arguments.out / "frame_labels.json").write_text(json.dumps(intervals(arguments.data)))
    print(
        f"wrote {arguments.out}: {counts['train']} clips to train on, {counts['val']} for validation"
    )


if __name__ == "__main__":
    main()
