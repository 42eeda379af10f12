"""tristream report: what a run has found, as one HTML file that opens without a network."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tristream.commands import options, screen
from tristream.commands.workspace import Workspace, decode_pool
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.report.charts import Chart, Looks, Map, Timeline
    from tristream.report.collect import Gap, Run
    from tristream.report.page import Beside, Pictures
    from tristream.report.thumbnails import Moment

THUMBNAIL_PX = 72  # height on the map
PEAK_PX = 120


@screen.command
def run(
    data: options.Data = None,
    run: options.Run = options.RUN,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.html", help="Where to write it.  [default: RUN/report.html]"
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", metavar="DIR", help="Also write every plot as SVG and PDF, for papers."
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="Above it all; default: the name of the run.")
    ] = None,
    how: Annotated[
        str, typer.Option("--map", help="How embeddings are put on a plane: pca or umap.")
    ] = "pca",
    claims: Annotated[
        Path | None,
        typer.Option(
            "--claims",
            metavar="FILE.toml",
            help="Figures to hold the accuracy against: docs/report.md.",
        ),
    ] = None,
    thumbnails: Annotated[
        int,
        typer.Option(
            "--thumbnails", min=0, help="Videos shown as small pictures; 0: none are decoded."
        ),
    ] = 200,
    follow_links: options.FollowLinks = False,
    cache: options.CacheDir = options.CACHE,
    seed: options.Seed = 0,
    workers: options.Workers = options.WORKERS,
    as_json: options.Json = False,
) -> int:
    """Write what the run has found into one HTML file: verdict, accuracy, mistakes, map, anomalies, training, lineage.

    The file opens without a network, on a phone, in print, in light and dark. What the run does not have yet is named,
    with the command that makes it. Videos that have moved: --data. On the data of `tristream workshop` accuracies stand
    beside the best possible ones.
    """
    from tristream.report import collect, page, plots, projection
    from tristream.report import figures as papers
    from tristream.store.atomic import write_bytes

    if not run.is_dir():
        raise UsageError(
            f"{run} is no folder of a run; make one first: tristream index --run {run} --data DIR"
        )
    if how not in projection.PROJECTIONS:
        raise UsageError(
            f"--map {how} is not known; available: {', '.join(projection.PROJECTIONS)}"
        )
    _check_installed(how, figures)
    out = out or run / "report.html"
    workspace = Workspace(run, cache)
    workspace.check_writable(out.parent, *([figures] if figures else []))
    found = collect.collect(run, data=data)
    beside = _beside(found, claims)
    chart = projection.project(found.fused, how=how, seed=seed) if found.fused else None
    timelines = plots.timelines(found)
    pictures, gaps = _pictures(
        found, workspace, chart, timelines, thumbnails, workers, follow_links
    )
    found = dataclasses.replace(found, gaps=(*found.gaps, *gaps))
    text = page.render(
        found, title=title or run.resolve().name, made=datetime.datetime.now().strftime("%-d %B %Y, %H:%M"),
        version=importlib.metadata.version("tristream"), beside=beside, chart=chart, timelines=timelines,
        pictures=pictures,
    )  # fmt: skip
    write_bytes(out, text.encode())
    written: list[Path] = []
    if figures is not None:
        charts = _charts(found, beside, chart, timelines, pictures.looks)
        written = papers.write(charts, figures, streams=found.streams)
        screen.note(f"wrote {len(written)} files into {figures}")
    for gap in found.gaps:
        screen.note(
            f"not in the report: {gap.words}" + (f" Make it: {gap.command}" if gap.command else "")
        )
    screen.note(f"wrote {out} ({len(text) / 1e6:.1f} MB); open it in a browser")
    screen.emit(
        {"report": str(out), "bytes": len(text.encode()), "figures": [str(path) for path in written],
         "missing": [gap.words for gap in found.gaps]},
        as_json=as_json,
    )  # fmt: skip
    return screen.OK


def _check_installed(how: str, figures: Path | None) -> None:
    """An optional library that is asked for and absent is said before any work."""
    import importlib.util

    for wanted, module, extra in (
        (how == "umap", "umap", "umap"),
        (figures is not None, "matplotlib", "figures"),
    ):
        if wanted and importlib.util.find_spec(module) is None:
            option = "--map umap" if extra == "umap" else "--figures"
            raise UsageError(
                f"{option} needs {module}, which is not installed: pip install 'tristream[{extra}]'"
            )


def _beside(found: Run, claims: Path | None) -> Beside:
    """What accuracy is held against: a file of claims, else the ceilings of the workshop where it is the data.

    Raises:
        UsageError: the file is not what it must be.
    """
    from tristream.report.page import Beside

    kinds: dict[str, Any] = {}
    if (path := found.folder / "fusion" / "kinds.json").exists():
        kinds = json.loads(path.read_text(encoding="utf-8"))
    if claims is not None:
        return Beside(*_read_claims(claims), kinds)
    facts = found.manifest.root / "workshop.json" if found.manifest else Path("workshop.json")
    if found.manifest and facts.is_file():
        from tristream.workshop.classes import CEILINGS

        about = json.loads(facts.read_text(encoding="utf-8"))
        if about.get("variant") == "classes" and about.get("silence") == "none":
            return Beside("the best possible on these rendered videos", CEILINGS, kinds)
    return Beside(kinds=kinds)


def _read_claims(path: Path) -> tuple[str, dict[str, float]]:
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML ({error})") from error
    words, accuracy = told.get("words"), told.get("accuracy")
    if not isinstance(words, str) or not isinstance(accuracy, Mapping) or len(told) != 2:
        raise UsageError(
            f'{path} has {", ".join(sorted(told)) or "nothing"}; it must have words = "whose figures" and a table '
            '[accuracy] of percentages, as "spatial+temporal" = 88.0'
        )
    for name, value in accuracy.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise UsageError(
                f"{path}: accuracy of '{name}' is {value!r}; it must be a percentage, 0 to 100"
            )
    return words, {str(name): float(value) for name, value in accuracy.items()}


def _charts(
    found: Run,
    beside: Beside,
    chart: Map | None,
    timelines: Sequence[Timeline],
    looks: Sequence[Looks],
) -> list[Chart]:
    """Every plot of the page that there is something to draw for."""
    from tristream.report import plots, verdict

    n_classes = verdict.n_training_classes(found)
    accuracy = plots.accuracy(
        found.subsets(beside.accuracy), 100 / n_classes if n_classes else None
    )
    whiskers = [accuracy, plots.gains(found.gains()), plots.per_class(found)]
    charts: list[Chart | None] = [
        plots.confusion(found),
        plots.reliability(found),
        chart,
        *timelines,
        *looks,
    ]
    curves = [
        curve for phases in plots.training(found).values() for pair in phases for curve in pair
    ]
    return [*(w for w in whiskers if w.rows), *(c for c in charts if c is not None), *curves]


def _pictures(
    found: Run, workspace: Workspace, chart: Map | None, timelines: Sequence[Timeline], n_most: int, workers: int,
    follow_links: bool,
) -> tuple[Pictures, list[Gap]]:  # fmt: skip
    """Thumbnails of videos and of the peaks of events, and where the sampler looked; none where n_most is 0."""
    from tristream.commands.looks import where_streams_look
    from tristream.report import thumbnails
    from tristream.report.collect import Gap
    from tristream.report.page import Pictures

    if not n_most or found.manifest is None:
        return Pictures(), []
    root = found.manifest.root
    if not root.is_dir():
        words = f"There are no pictures: {root} is not there. Where the videos are now says --data."
        return Pictures(), [
            Gap("looks", words, f"tristream report --run {found.folder} --data DIR")
        ]
    wanted, peaks = _moments(found, chart, n_most), _peaks(found, timelines)
    about: dict[str, Any] = {"root": root, "follow_links": follow_links}
    with (
        decode_pool(workers) as pool,
        screen.progress("pictures", len(wanted) + len(peaks)) as move,
    ):
        videos, lost = thumbnails.pictures(wanted, pool, height_px=THUMBNAIL_PX, move=move, **about)
        moments = {key: moment for key, (_, moment) in peaks.items()}
        at_peaks, missing = thumbnails.pictures(
            moments, pool, height_px=PEAK_PX, move=move, **about
        )
    gaps = []
    lost = {
        name: why for name, why in lost.items() if why != "no_video"
    }  # sound alone: nothing to show
    if lost:
        reasons = ", ".join(sorted(set(lost.values())))
        gaps.append(Gap("map", f"{len(lost)} of {len(wanted)} videos gave no picture ({reasons})."))
    try:
        looks = where_streams_look(found, workspace, workers=workers, follow_links=follow_links)
    except (
        ValueError
    ) as error:  # a checkpoint of another version, streams that read videos in two ways
        looks = []
        gaps.append(Gap("looks", f"Where the streams look cannot be shown: {error}."))
    return Pictures(
        videos=videos,
        peaks={peaks[key][0]: uri for key, uri in at_peaks.items()},
        missing={peaks[key][0]: why for key, why in missing.items()},
        looks=looks,
    ), gaps


def _moments(found: Run, chart: Map | None, n_most: int) -> dict[str, Moment]:
    """The middles of the hardest videos and of videos of every class, test before the rest."""
    from tristream.report import thumbnails
    from tristream.report.page import MOST_HARD

    by_id = {row.video_id: row for row in found.rows}
    hardest = [
        video["video_id"] for video in (found.classification.get("hardest") or ())[:MOST_HARD]
    ]
    on_map = [by_id[name] for name in chart.video_ids] if chart else []
    order = sorted(on_map, key=lambda row: row.split != "test")
    spread = [
        order[i].video_id
        for i in thumbnails.spread([f"{r.split} {r.label}" for r in order], n_most)
    ]
    chosen = list(dict.fromkeys([*(name for name in hardest if name in by_id), *spread]))[:n_most]
    return {
        name: thumbnails.Moment(by_id[name].path, thumbnails.middle(by_id[name].duration_seconds))
        for name in chosen
    }


def _peaks(found: Run, timelines: Sequence[Timeline]) -> dict[str, tuple[tuple[str, int], Moment]]:
    """{key: ((video_id, number of the event), moment)}."""
    from tristream.report.thumbnails import Moment

    by_id = {row.video_id: row.path for row in found.rows}
    return {
        f"{line.video_id} {number}": (
            (line.video_id, number),
            Moment(by_id.get(line.video_id, Path(line.path or line.video_id)), event.peak_seconds),
        )
        for line in timelines
        for number, event in enumerate(line.events)
    }
