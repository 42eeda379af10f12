"""tristream bench: how fast it is here, against the limits of this machine."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from commands import options, screen
from commands.workspace import write_json

# Each is bench/<name>.py with run(subject) → list of tables.
BENCHES = ("networks", "decode", "end-to-end", "cache", "startup", "scale", "flow")


@screen.command
def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[BENCH]...", help=f"Which: {', '.join(BENCHES)}; none named: all.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of videos to measure on; default: clips that are rendered.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for BENCH.json and the plots.")] = Path("runs/bench"),
    n_videos: Annotated[int, typer.Option("--videos", min=1, help="How many videos at most.")] = 16,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Times each of a pair is timed.")] = 5,
    seed: Annotated[
        int, typer.Option("--random-weights", metavar="SEED", help="Weights of networks whose own are not there.")
    ] = 0,
    weights_dir: options.WeightsDir = None,
    flow_pairs: Annotated[
        Path | None,
        typer.Option("--flow-pairs", metavar="DIR", help="flow: files NAME-img0.png, NAME-img1.png, NAME-gt.flo."),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Measure speed and memory here: pairs in one run, ours against the engine alone.

    A busy machine is fair to both: ratios hold, seconds depend on what else the machine does. Networks
    whose weights are not there run with random ones: as fast, and said so in every table.
    """
    from bench.subject import subject

    chosen = list(names or BENCHES)
    for name in chosen:
        if name not in BENCHES:
            raise screen.Mistake(f"unknown bench '{name}'; available: {', '.join(BENCHES)}")
    found = {}
    with subject(data, repeats=repeats, seed=seed, weights_dir=weights_dir, n_videos=n_videos,
                 flow_pairs=flow_pairs) as measured:  # fmt: skip
        screen.note(f"measuring on {measured.described}")
        for name in chosen:
            tables = importlib.import_module(f"bench.{name.replace('-', '_')}").run(measured)
            for table in tables:
                screen.table(table.title, table.header, table.cells(), caption="; ".join(table.notes))
            found[name] = [table.to_json() for table in tables]
            write_json(out / f"{name}.json", {"measured_on": measured.described, "tables": found[name]})
    screen.note(f"wrote {out}")
    screen.emit({"measured_on": measured.described, "benches": found}, as_json=as_json)
    return screen.OK
