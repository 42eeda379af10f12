"""tristream bench: measure speed and memory against the limits of this machine."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tristream.bench.targets import summary
from tristream.commands import options, screen
from tristream.errors import UsageError
from tristream.files import write_json
from tristream.store.atomic import write_bytes

if TYPE_CHECKING:
    from tristream.bench.inputs import Subject
    from tristream.bench.table import Table

# Each is bench/<name>.py with run(subject) → list of tables.
BENCHES = ("networks", "decode", "end-to-end", "cache", "startup", "scale", "flow", "gpu")


def plots_of(name: str, tables: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return {file name: SVG} of the tables of a bench."""
    from tristream.bench.plots import bars, curves

    if name == "end-to-end":
        shares = tables[-1]
        stages = shares["header"][2:]
        rows = {
            str(row["stream"]): [float(row[stage]) for stage in stages] for row in shares["rows"]
        }
        return {"stages": bars("Where a 7-second clip's time goes", stages, rows)}
    plots = {}
    if name == "scale":
        for table, plot in zip(tables, ("videos", "length", "size"), strict=False):
            key = table["header"][0]
            x = [str(row[key]) for row in table["rows"]]
            for column, unit in (("extraction, s", "s"), ("peak memory, MB", "MB")):
                series = {column: [float(row[column]) for row in table["rows"]]}
                plots[f"scale-{plot}-{unit.lower()}"] = curves(table["title"], key, x, series, unit)
    return plots


def _measure(name: str, measured: Subject) -> list[Table]:
    tables: list[Table] = importlib.import_module(f"tristream.bench.{name.replace('-', '_')}").run(
        measured
    )
    return tables


def _in_a_process_of_its_own(name: str, measured: Subject) -> list[Table]:
    """Return the tables of one bench; its memory (up to 7 GB) is free before the next one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measure, name, measured).result()


@screen.command
def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BENCH]...", help=f"Any of {', '.join(BENCHES)}; default: all."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of videos to measure on; default: rendered clips."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for BENCH.json and the plots.")] = Path(
        "runs/bench"
    ),
    n_videos: Annotated[
        int, typer.Option("--videos", min=1, help="Largest number of videos.")
    ] = 16,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Number of timings of each of a pair.")
    ] = 3,
    seed: Annotated[
        int,
        typer.Option(
            "--random-weights",
            metavar="SEED",
            help="Random weights of networks whose weights are missing.",
        ),
    ] = 0,
    weights_dir: options.WeightsDir = None,
    flow_pairs: Annotated[
        Path | None,
        typer.Option(
            "--flow-pairs",
            metavar="DIR",
            help="flow: files NAME-img0.png, NAME-img1.png, NAME-gt.flo.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Measure speed and memory: pairs in one run, tristream against the engine alone.

    On a busy machine ratios hold, but seconds do not. Networks run with random weights if their own
    are missing: as fast, and noted in every table.
    """
    chosen = list(names or BENCHES)
    for name in chosen:
        if name not in BENCHES:
            raise UsageError(f"unknown bench '{name}'; available: {', '.join(BENCHES)}")
    screen.begin("measuring")
    from tristream.bench.inputs import subject

    results = {}
    with subject(data, repeats=repeats, seed=seed, weights_dir=weights_dir, n_videos=n_videos,
                 flow_pairs=flow_pairs) as measured:  # fmt: skip
        screen.note(f"measuring on {measured.described}")
        for name in chosen:
            tables = _in_a_process_of_its_own(name, measured)
            if not tables:
                screen.note(f"{name}: nothing to measure here")
            for table in tables:
                screen.table(
                    table.title, table.header, table.cells(), caption="; ".join(table.notes)
                )
            results[name] = [table.to_json() for table in tables]
            write_json(
                out / f"{name}.json", {"measured_on": measured.described, "tables": results[name]}
            )
            for plot, svg in plots_of(name, results[name]).items():
                write_bytes(out / f"{plot}.svg", svg.encode())
    targets = summary(results)
    if targets.rows:
        screen.table(
            targets.title, targets.header, targets.cells(), caption="; ".join(targets.notes)
        )
        write_json(out / "targets.json", targets.to_json())
    screen.note(f"wrote {out}")
    screen.emit({"measured_on": measured.described, "benches": results}, as_json=as_json)
    return screen.OK
