#!/usr/bin/env python3
"""`train-stream --deterministic` killed at random moments and started again: it must end in the same weights.

kill_training.py [--streams audio,spatial] [--kills 8] [--epochs 12]

For each stream: one undisturbed training, then one that is killed (SIGKILL) up to `--kills` times, somewhere between
the start of the process and the end of an undisturbed one, and started again each time with the same command. Pass: the
sha256 of the weights and the identity of the embedding space are equal, and no temporary file stays behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prepare import HOME, TRISTREAM, quick, render, tristream


def main() -> int:
    from tristream import streams

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", default=",".join(streams.names()))
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="tristream-training-") as name:
        folder = Path(name)
        videos = render(folder / "videos", 16, label="class")
        for run in ("undisturbed", "disturbed"):
            tristream("index", "--data", str(videos), "--run", str(folder / run))
        for stream in arguments.streams.split(","):
            wrong += not compared(stream, folder, arguments.kills, arguments.epochs)
    return int(bool(wrong))


def compared(stream: str, folder: Path, kills: int, epochs: int) -> bool:
    """Print a line; True if a disturbed training of one stream ends as an undisturbed one."""

    def command(run: str) -> list[str]:
        places = ["--run", str(folder / run), "--cache", str(folder / f"cache-{run}")]
        return [*TRISTREAM, "train-stream", stream, *places, *quick(stream, epochs)]

    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    begun = time.monotonic()
    done = subprocess.run(
        command("undisturbed"), capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    seconds, chosen = time.monotonic() - begun, random.Random(stream)
    phases = []
    for _ in range(kills):
        process = subprocess.Popen(command("disturbed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=environment)  # fmt: skip
        try:
            process.wait(chosen.uniform(0.2, 1.0) * seconds)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            phases.append(reached(folder / "disturbed" / "streams" / stream))
    done = subprocess.run(
        command("disturbed"), capture_output=True, text=True, env=environment, check=False
    )
    stored = [json.loads((folder / run / "streams" / stream / "config.json").read_text())
              for run in ("undisturbed", "disturbed")]  # fmt: skip
    same = all(stored[0][key] == stored[1][key] for key in ("model_sha256", "space_id"))
    left = [path.name for path in folder.rglob(".tmp-*")]
    passed = done.returncode == 0 and same and not left and len(phases) > 0
    print(
        f"{stream:9s} {'PASS' if passed else 'FAIL'}  kills={len(phases)} ({', '.join(phases)}) rc={done.returncode} "
        f"weights={'identical' if same else 'OTHERS'} left_behind={len(left)} seconds={seconds:.0f}",
        flush=True,
    )
    return passed


def reached(folder: Path) -> str:
    """Return the phase and epoch that a killed training had stored."""
    states = sorted(folder.glob("state-*.json"), key=lambda path: path.stat().st_mtime)
    if not states:
        return "trained" if (folder / "config.json").exists() else "reading"
    kind = states[-1].stem.removeprefix("state-").split("-", 1)[1]
    return f"{kind} {json.loads(states[-1].read_text())['progress']['epoch']}"


if __name__ == "__main__":
    sys.exit(main())
