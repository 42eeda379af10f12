#!/usr/bin/env python3
"""`embed` while one of its decode processes is killed every few seconds: nothing may be lost, and little time.

kill_workers.py [--videos 12] [--every 5] [--seconds 30] [--side 720]

Pass: no video is lost, embeddings are bit for bit those of an undisturbed run, and each kill costs less than twice the
time of one video.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prepare import HOME, TRISTREAM, render, train, tristream


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between kills")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each video")
    parser.add_argument(
        "--side", type=int, default=720, help="px; larger ones take longer to decode"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tristream-workers-") as name:
        folder = Path(name)
        print("rendering a video and training a small run ...", flush=True)
        run = train(folder)
        videos = variants(folder, arguments.videos, arguments.seconds, arguments.side)
        clean_seconds, clean, _ = embed(folder / "clean", run, videos, every=None)
        one = clean_seconds / arguments.videos
        print(
            f"undisturbed: {clean_seconds:.1f} s, {one:.2f} s for each of {arguments.videos} videos",
            flush=True,
        )
        seconds, found, n_kills = embed(folder / "disturbed", run, videos, every=arguments.every)
        lost = len(clean) - len(found)
        per_kill = (seconds - clean_seconds) / max(1, n_kills)
        same = found == clean
        passed = n_kills > 0 and lost == 0 and same and per_kill < 2 * one
        print(
            f"workers   {'PASS' if passed else 'FAIL'}  kills={n_kills} videos_lost={lost} "
            f"embeddings={'identical' if same else 'WRONG'} seconds={seconds:.1f} "
            f"seconds_lost_per_kill={per_kill:.2f} (one video {one:.2f})"
        )
    return int(not passed)


def variants(folder: Path, n: int, seconds: float, side: int) -> Path:
    """One video so many times, each with another name and other bytes: a box that players skip says its number."""
    [source] = render(folder / "source", 1, seconds=seconds, side=side).iterdir()
    videos = folder / "videos"
    videos.mkdir()
    for index in range(n):
        box = struct.pack(">I4sI", 12, b"free", index)
        (videos / f"{index:03d}.mp4").write_bytes(source.read_bytes() + box)
    return videos


def embed(
    work: Path, run: Path, videos: Path, *, every: float | None
) -> tuple[float, dict[str, bytes], int]:
    """Seconds that `embed` took, embeddings by video, and how many of its decode processes were killed."""
    from tristream.store import embeddings

    tristream("index", "--data", str(videos), "--run", str(work))
    (work / "streams").symlink_to(run / "streams")
    command = [
        *TRISTREAM,
        "embed",
        "--run",
        str(work),
        "--cache",
        str(work / "cache"),
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    begun = time.monotonic()
    with (work / "said.txt").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        n_kills = 0 if every is None else kill_children(process, every)
        process.wait()
    seconds = time.monotonic() - begun
    if process.returncode not in (0, 3):
        raise RuntimeError((work / "said.txt").read_text()[-2000:])
    tables = [embeddings.read(space) for space in sorted(work.glob("embeddings/*/*"))]
    rows = [dict(zip(table.video_id, table.embedding, strict=True)) for table in tables]
    return (
        seconds,
        {name: b"".join(row[name].tobytes() for row in rows) for name in rows[0]},
        n_kills,
    )


def kill_children(process: subprocess.Popen[bytes], every: float) -> int:
    """Kill one decode process of `process` after another; how many."""
    chosen, n_kills = random.Random(0), 0
    while process.poll() is None:
        time.sleep(every)
        if children := decode_processes(process.pid):
            os.kill(chosen.choice(children), signal.SIGKILL)
            n_kills += 1
    return n_kills


def decode_processes(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if (
                int(fields[1]) == parent
                and b"media.sandbox.worker" in (folder / "cmdline").read_bytes()
            ):
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main())
