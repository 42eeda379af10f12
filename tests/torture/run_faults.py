#!/usr/bin/env python3
"""`make faults`: fault_harness.py against `embed`, on a run and videos that are made here.

run_faults.py [--only kill9,bitflip,…] [--videos N]

The harness is not changed: this writes what it needs (a small trained run, a folder of videos, the kit's pixel bomb),
calls it with embed_adapter.py, and passes its table and its exit code on.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from prepare import render, train

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="names of experiments, with commas")
    parser.add_argument("--videos", type=int, default=8)
    arguments = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell starts what it puts aside with SIGINT ignored
    with tempfile.TemporaryDirectory(prefix="tristream-faults-") as name:
        folder = Path(name)
        print("rendering videos and training a small run ...", flush=True)
        run, videos = train(folder), render(folder / "videos", arguments.videos)
        kit = folder / "kit"
        subprocess.run(
            [sys.executable, HERE / "make_bad_videos.py", kit],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        command = f"{sys.executable} {HERE / 'embed_adapter.py'} {run} {{in}} {{cache}} {{out}}"
        harness = [sys.executable, HERE / "fault_harness.py", "--cmd", command, "--in", videos]
        only = ["--only", arguments.only] if arguments.only else []
        bomb = {"BOMB": str(kit / "44_pixel_bomb_16000.mov"), "TMPDIR": name}
        return subprocess.run([*harness, *only], env={**os.environ, **bomb}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
