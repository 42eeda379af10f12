#!/usr/bin/env python3
"""`make torture`: the 76 bad inputs of make_bad_videos.py through `tristream check`, held against expectations.json.

run_kit.py [--jobs N] [--json FILE] [--only TEXT]

Every input gets a process of its own, so that its memory is known; time is the file's, start of the process left out.
Afterwards the inputs that are no media go where they would do their harm: the list to `index`, pickles and lying
weights to `weights add` and in place of a checkpoint, archives to `unpack`. Exit code 1 where something is unexpected.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prepare import HOME, TRISTREAM

HERE = Path(__file__).parent
SSRF_PORT = 18099  # nothing may ever connect here
CANARY = Path(tempfile.gettempdir()) / "TORTURE_CANARY_PICKLE_EXECUTED"
COLUMNS = "{:34.34s} {:9s} {:26s} {:>6s} {:>7s} {:>6s}  {}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--only", default="", help="inputs whose names hold this text, and no harm")
    arguments = parser.parse_args()
    CANARY.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="tristream-torture-") as name:
        folder = Path(name)
        kit = folder / "kit"
        subprocess.run(
            [sys.executable, HERE / "make_bad_videos.py", kit],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        cases = json.loads((kit / "expectations.json").read_text())["cases"]
        cases = [case for case in cases if arguments.only in case["file"]]
        before = listing(folder)
        with socket.create_server(("127.0.0.1", SSRF_PORT)) as server:
            server.setblocking(False)
            print(COLUMNS.format("file", "state", "reason", "frames", "s", "MiB", ""))
            with ThreadPoolExecutor(arguments.jobs) as pool:
                rows = []
                for row in pool.map(lambda case: judged(case, kit, folder), cases):
                    rows.append(row)
                    print(line(row), flush=True)
            harm = {} if arguments.only else do_harm(kit, folder)
            called = connections(server)
        wrong = sum(bool(row["misses"]) for row in rows)
        harm["nothing called 127.0.0.1"] = called == 0
        harm["no pickle was run"] = not CANARY.exists()
        harm["no stray file"] = listing(folder) - before <= {"unpacked"}
        for what, well in harm.items():
            print(f"{'PASS' if well else 'FAIL'}  {what}")
        print(
            f"{len(rows) - wrong} of {len(rows)} as expected; {sum(harm.values())} of {len(harm)} harms prevented"
        )
        if arguments.json:
            arguments.json.write_text(json.dumps({"rows": rows, "harm": harm}, indent=1))
    return int(bool(wrong or not all(harm.values())))


def judged(case: dict, kit: Path, folder: Path) -> dict:
    """One input through `check`, and how what it says differs from what is expected."""
    errors = folder / f"errors-{abs(hash(case['file']))}"
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    command = [
        *TRISTREAM,
        "check",
        "--json",
        "--workers",
        "1",
        "--data",
        str(kit),
        str(kit / case["file"]),
    ]
    with errors.open("w+") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment
        )
        out = process.stdout.read()
        _, status, used = os.wait4(
            process.pid, 0
        )  # its memory, or that of the largest process it has waited for
        process.returncode = os.waitstatus_to_exitcode(status)
        file.seek(0)
        said = file.read()
    errors.unlink()
    row = {"file": case["file"], "exit": process.returncode, "mib": used.ru_maxrss / 1024}
    try:
        entry = json.loads(out)["files"][0]
    except (ValueError, KeyError, IndexError):
        nothing = {"state": "none", "reasons": [], "n_frames": 0, "seconds": 0.0}
        return {**row, **nothing, "misses": [f"said {said[-300:]!r}"]}
    row |= {"state": entry["state"], "reasons": entry["reasons"], "n_frames": entry["n_frames"]}
    row |= {"seconds": entry["wall_seconds"], "sentence": entry["sentence"]}
    return {**row, "misses": misses(row, case["expect"], said)}


def misses(row: dict, expect: dict, said: str) -> list[str]:
    """Differences of a state from the expected one.

    Where the kit says nothing of audio (`audio` null), most files have none, and `no_audio`, which is always reported,
    counts neither for nor against them; `silent_audio` likewise where the kit's audio is silent. Reasons beside the
    expected one count for a file that must be degraded.
    """
    ignored = {None: "no_audio", "silent": "silent_audio"}
    reasons = set(row["reasons"]) - {ignored.get(expect["audio"])}
    status = "reject" if row["state"] == "rejected" else "degraded" if reasons else "ok"
    found = []
    if status != expect["status"]:
        found.append(f"{status}, expected {expect['status']}")
    if expect["reason"] is not None and expect["reason"] not in reasons:
        found.append(f"no {expect['reason']}")
    if (
        status != "reject"
        and expect["frames"]
        and not expect["frames"][0] <= row["n_frames"] <= expect["frames"][1]
    ):
        found.append(f"expected frames {expect['frames']}")
    if row["seconds"] > expect["max_s"]:
        found.append(f"over {expect['max_s']} s")
    if row["mib"] > expect["max_rss_mb"]:
        found.append(f"over {expect['max_rss_mb']} MiB")
    if row["exit"] != (3 if status == "reject" else 0):
        found.append(f"exit code {row['exit']}")
    if status == "reject" and not (row["sentence"].isprintable() and row["sentence"]):
        found.append("its sentence is not safe to print")
    if "Traceback" in said:
        found.append("a traceback")
    return found


def line(row: dict) -> str:
    name = row["file"].encode("unicode_escape", "surrogateescape").decode("ascii", "replace")
    why = " ".join(row["reasons"])
    cells = (
        name,
        row["state"],
        why[:26],
        str(row["n_frames"]),
        f"{row['seconds']:.2f}",
        f"{row['mib']:.0f}",
    )
    return COLUMNS.format(*cells, "; ".join(row["misses"]) or "as expected")


def do_harm(kit: Path, folder: Path) -> dict[str, bool]:
    """The inputs that are no media, where they would do their harm; what → whether it was prevented."""
    run = folder / "harm-run"

    def refused(*arguments: object) -> bool:
        command = [*TRISTREAM, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(HOME)}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, cwd=folder
        )
        return done.returncode == 2 and "Traceback" not in done.stderr

    found = {"index refuses 70_labels_bad.csv": refused("index", "--data", kit, "--list", kit / "70_labels_bad.csv",
                                                        "--run", run)}  # fmt: skip
    found["and makes no run of it"] = not (run / "videos.csv").exists()
    weights = [*sorted(kit.glob("71_*")), kit / "72_lying.safetensors"]
    for file in weights:
        found[f"weights add refuses {file.name}"] = refused(
            "weights", "add", file, "--as", "resnet18", "--cache", run
        )
    videos = folder / "harm-videos"
    videos.mkdir()
    shutil.copy(kit / "00_good.mp4", videos)
    subprocess.run(
        [*TRISTREAM, "index", "--data", videos, "--run", run],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    stream = run / "streams" / "spatial"
    stream.mkdir(parents=True)
    for file in weights:
        shutil.copy(file, stream / "checkpoint.safetensors")
        # with the right sum: somebody who can write the one file can write the other
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        (stream / "config.json").write_text(json.dumps({"sha256": sha256}))
        found[f"embed refuses {file.name} as a checkpoint"] = refused(
            "embed", "--run", run, "--cache", folder / "c"
        )
    for file in ("73_traversal.tar", "74_bomb.zip"):
        found[f"unpack refuses {file}"] = refused("unpack", kit / file, folder / "unpacked")
    found["and writes nothing"] = not (folder / "unpacked").exists()
    shutil.rmtree(run)
    shutil.rmtree(videos)
    shutil.rmtree(folder / "c", ignore_errors=True)
    return found


def listing(folder: Path) -> set[str]:
    """Everything beside the kit, and beside the folder it is in, where `..` leads."""
    return {path.name for path in folder.iterdir()} | {
        path.name for path in folder.parent.glob("escape_*")
    }


def connections(server: socket.socket) -> int:
    try:
        server.accept()
    except BlockingIOError:
        return 0
    return 1


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
