"""tristream bench: how fast it is here, against the limits of this machine."""

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
    """File name → SVG of what a bench found."""
    from tristream.bench.plots import bars, curves

    if name == "end-to-end":
        shares = tables[-1]
        stages = shares["header"][2:]
        rows = {
            str(row["stream"]): [float(row[stage]) for stage in stages] for row in shares["rows"]
        }
        return {"stages": bars("Where a 7-second clip's time goes", stages, rows)}
    found = {}
    if name == "scale":
        for table, plot in zip(tables, ("videos", "length", "size"), strict=False):
            key = table["header"][0]
            x = [str(row[key]) for row in table["rows"]]
            for column, unit in (("extraction, s", "s"), ("peak memory, MB", "MB")):
                series = {column: [float(row[column]) for row in table["rows"]]}
                found[f"scale-{plot}-{unit.lower()}"] = curves(table["title"], key, x, series, unit)
    return found


def _measure(name: str, measured: Subject) -> list[Table]:
    tables: list[Table] = importlib.import_module(f"tristream.bench.{name.replace('-', '_')}").run(
        measured
    )
    return tables


def _in_a_process_of_its_own(name: str, measured: Subject) -> list[Table]:
    """The tables of one bench; what its networks took (up to 7 GB) is given back before the next one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measure, name, measured).result()


@screen.command
def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BENCH]...", help=f"Which: {', '.join(BENCHES)}; none named: all."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Folder of videos to measure on; default: clips that are rendered."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for BENCH.json and the plots.")] = Path(
        "runs/bench"
    ),
    n_videos: Annotated[int, typer.Option("--videos", min=1, help="How many videos at most.")] = 16,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Times each of a pair is timed.")
    ] = 3,
    seed: Annotated[
        int,
        typer.Option(
            "--random-weights", metavar="SEED", help="Weights of networks whose own are not there."
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
    """Measure speed and memory here: pairs in one run, ours against the engine alone.

    A busy machine is fair to both: ratios hold, seconds depend on what else the machine does. Networks
    whose weights are not there run with random ones: as fast, and said so in every table.
    """
    from tristream.bench.inputs import subject

    chosen = list(names or BENCHES)
    for name in chosen:
        if name not in BENCHES:
            raise UsageError(f"unknown bench '{name}'; available: {', '.join(BENCHES)}")
    found = {}
    with subject(data, repeats=repeats, seed=seed, weights_dir=weights_dir, n_videos=n_videos,
                 flow_pairs=flow_pairs) as measured:  # fmt: skip
        screen.note(f"measuring on {measured.described}")
        for name in chosen:
            tables = _in_a_process_of_its_own(name, measured)
            if not tables:
                screen.note(f"{name}: nothing that it measures is here")
            for table in tables:
                screen.table(
                    table.title, table.header, table.cells(), caption="; ".join(table.notes)
                )
            found[name] = [table.to_json() for table in tables]
            write_json(
                out / f"{name}.json", {"measured_on": measured.described, "tables": found[name]}
            )
            for plot, svg in plots_of(name, found[name]).items():
                write_bytes(out / f"{plot}.svg", svg.encode())
    targets = summary(found)
    if targets.rows:
        screen.table(
            targets.title, targets.header, targets.cells(), caption="; ".join(targets.notes)
        )
        write_json(out / "targets.json", targets.to_json())
    screen.note(f"wrote {out}")
    screen.emit({"measured_on": measured.described, "benches": found}, as_json=as_json)
    return screen.OK
