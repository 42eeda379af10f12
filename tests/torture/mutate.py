#!/usr/bin/env python3
"""Seeded mutations of good files through `tristream check`: byte flips, cuts, splices, sizes of boxes.

mutate.py [--n 10000] [--seed 0] [--batch 200] [--workers 2] [--keep FOLDER]

`check` gets a folder of mutations at a time. It must end with 0 or 3 and no traceback, give each file exactly one
state, take no longer for one than its limits allow, and leave nothing behind. Exit code 1 where it does not; the files
of such a batch are kept in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from prepare import HOME, TRISTREAM

HERE = Path(__file__).parent
SOURCES = (
    "00_good.mp4",
    "24_audio_late.mkv",
    "15_no_index.avi",
    "35_pts_reset.ts",
    "27_audio_5_1_44k.mkv",
)
BOXES = rb"moov|trak|stbl|stsz|stco|stts|mdat|avcC"
LIMIT_SECONDS = (
    60.0  # for one of these files: 10 s, and 10 s more for each of the seconds of video they last
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    states: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    slowest, faults, begun = 0.0, [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tristream-mutations-") as name:
        folder = Path(name)
        kit = folder / "kit"
        subprocess.run(
            [sys.executable, HERE / "make_bad_videos.py", kit],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for first, batch in batches(
            kit, folder / "batch", arguments.n, arguments.seed, arguments.batch
        ):
            found, wrong = checked(batch, arguments.workers)
            states.update(entry["state"] for entry in found)
            reasons.update(reason for entry in found for reason in entry["reasons"])
            slowest = max([slowest, *(entry["wall_seconds"] for entry in found)])
            if wrong:
                faults.append(f"mutations from {first}: {'; '.join(wrong)}")
                print(faults[-1], flush=True)
                if arguments.keep:
                    shutil.copytree(batch, arguments.keep / str(first), dirs_exist_ok=True)
            shutil.rmtree(batch)
        strays = sorted(path.name for path in folder.iterdir() if path != kit)
    n = sum(states.values())
    print(
        f"{n} mutations, seed {arguments.seed}, {time.monotonic() - begun:.0f} s: {dict(sorted(states.items()))}"
    )
    print(f"reasons: {dict(reasons.most_common())}")
    print(
        f"slowest file {slowest:.2f} s; ended parents and other faults: {len(faults)}; stray files: {strays or 0}"
    )
    return int(bool(faults or strays or n != arguments.n))


def batches(kit: Path, folder: Path, n: int, seed: int, size: int) -> Iterator[tuple[int, Path]]:
    """Folders of mutations, one after the other under one name; the number of the first in each."""
    rng = np.random.default_rng(seed)
    sources = [(Path(name).suffix, (kit / name).read_bytes()) for name in SOURCES]
    for first in range(0, n, size):
        folder.mkdir()
        for i in range(first, min(first + size, n)):
            suffix, data = sources[i % len(sources)]
            # an empty one is no mutation of interest, and there is a case for it in the kit
            (folder / f"{i:05d}{suffix}").write_bytes(mutated(data, rng) or data)
        yield first, folder


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One of: bytes changed, cut short, a piece moved, the size of a box changed."""
    buffer = bytearray(data)
    at = int(rng.integers(len(buffer)))
    kind = rng.integers(4)
    if kind == 0:
        for place in rng.integers(0, len(buffer), rng.integers(1, 50)):
            buffer[place] = rng.integers(256)
    elif kind == 1:
        del buffer[at:]
    elif kind == 2:
        size = int(rng.integers(1, 4096))
        piece = bytes(buffer[at : at + size])
        place = int(rng.integers(len(buffer)))
        buffer[place : place + len(piece)] = piece
    else:
        boxes = [found.start() - 4 for found in re.finditer(BOXES, data)]
        place = boxes[int(rng.integers(len(boxes)))] if boxes else at
        buffer[place : place + 4] = rng.bytes(4)
    return bytes(buffer)


def checked(folder: Path, workers: int) -> tuple[list[dict], list[str]]:
    """Return the result of `check` for every file of a folder, and what is wrong with its form."""
    before = {path.name for path in folder.iterdir()}
    command = [*TRISTREAM, "check", "--json", "--workers", str(workers), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=3600,
                              check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return [], ["it did not end within an hour"]
    wrong = (
        [] if done.returncode in (0, 3) else [f"exit code {done.returncode}: {done.stderr[-500:]}"]
    )
    if "Traceback" in done.stderr:
        wrong.append(f"a traceback: {done.stderr[-500:]}")
    found = json.loads(done.stdout)["files"] if done.stdout else []
    if sorted(Path(entry["path"]).name for entry in found) != sorted(before):
        wrong.append(f"{len(found)} states for {len(before)} files")
    wrong += [f"{entry['path']} took {entry['wall_seconds']} s" for entry in found
              if entry["wall_seconds"] > LIMIT_SECONDS]  # fmt: skip
    wrong += [f"{entry['path']}: {entry['state']}" for entry in found if entry["state"] not in
              ("ok", "degraded", "rejected")]  # fmt: skip
    if after := {path.name for path in folder.iterdir()} - before:
        wrong.append(f"stray files: {sorted(after)}")
    return found, wrong


if __name__ == "__main__":
    sys.exit(main())
