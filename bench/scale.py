"""Growth of time and memory with the number, length and size of videos; one process per case."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tristream.bench.inputs import CLIP_FRAMES, Subject, render_clips
from tristream.bench.table import Table
from tristream.bench.timing import Ran, run_child

N_SAMPLES = (
    24  # pictures and stacks of each video: the networks' share of memory does not depend on it
)
COUNTS = (1, 4, 16)
LENGTHS = (1, 4, 8)
SIZES = ((240, 320), (480, 640), (720, 1280))


def run(subject: Subject) -> list[Table]:
    """Seconds and peak memory, decode processes included, of all streams."""
    from tristream import streams

    names = list(streams.names())
    _extract(subject, subject.videos[:1], names, "warm")  # converts the networks
    by_count = [
        (n, *_figures(_extract(subject, subject.videos[:n], names, f"count-{n}")))
        for n in COUNTS
        if n <= len(subject.videos)
    ]
    by_length = []
    for factor in LENGTHS:
        paths = render_clips(subject.scratch / f"length-{factor}", 1, n_frames=factor * CLIP_FRAMES)
        by_length.append((factor, *_figures(_extract(subject, paths, names, f"length-{factor}"))))
    by_size = []
    for height, width in SIZES:
        paths = render_clips(subject.scratch / f"size-{width}", 1, size=(height, width))
        by_size.append(
            (f"{width}x{height}", *_figures(_extract(subject, paths, names, f"size-{width}")))
        )
    header = ["extraction, s", "process, s", "peak memory, MB"]
    note = (f"all streams, the paper's networks (random weights, seed {subject.seed}), {N_SAMPLES} segments a video; "
            "memory: proportional set size of the process and its decode processes, read every 50 ms")  # fmt: skip
    growth: list[tuple[str | float, ...]] = [
        (name, _ratio(rows, column))
        for name, rows, column in (
            ("memory, videos", by_count, 3), ("memory, length", by_length, 3), ("memory, size", by_size, 3),
            ("seconds, videos", by_count, 1), ("seconds, length", by_length, 1), ("seconds, size", by_size, 1),
        )
    ]  # fmt: skip
    return [
        Table("videos of 7 s", ["videos", *header], by_count, [note]),
        Table("length of one video, times 7 s", ["length", *header], by_length,
              [note, "only the first 36 s of a video are looked at: 5.1 times 7 s"]),
        Table("size of one video of 7 s", ["size", *header], by_size, [note]),
        Table("growth", ["what", "last / first"], growth, ["targets: memory, videos 1.1; memory, length 1.2"]),
    ]  # fmt: skip


def _ratio(rows: Sequence[Sequence[Any]], column: int) -> float:
    return float(rows[-1][column]) / float(rows[0][column])


def _extract(subject: Subject, videos: Sequence[Path], names: Sequence[str], case: str) -> Ran:
    cache = subject.scratch / f"cache-{case}"  # beside the clips of that case
    shared = subject.scratch / "compiled-networks"
    shared.mkdir(exist_ok=True)
    cache.mkdir()
    (cache / "compiled").symlink_to(shared)
    wanted = {"videos": [str(path) for path in videos], "cache": str(cache), "streams": list(names),
              "n_samples": N_SAMPLES, "seed": subject.seed}  # fmt: skip
    return run_child(["-m", "tristream.bench.extract_once", json.dumps(wanted)])


def _figures(ran: Ran) -> tuple[float, float, float]:
    figures = json.loads(ran.stdout.splitlines()[-1])
    return figures["extraction"], ran.seconds, ran.peak_bytes / 1e6
