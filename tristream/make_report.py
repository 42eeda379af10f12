"""Report of a run as one HTML file that opens without a network."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream.errors import TristreamError, UsageError
from tristream.looks import sampled_segments
from tristream.videos import decode_pool
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.report.charts import Chart, Looks, Map, Timeline
    from tristream.report.collect import Gap, Run
    from tristream.report.page import Beside, Pictures
    from tristream.report.thumbnails import Moment

THUMBNAIL_PX = 72  # height on the map
PEAK_PX = 120


@dataclass(frozen=True)
class ReportOptions:
    """Choices of a report.

    Attributes:
        out: HTML file; None: RUN/report.html.
        figures: folder for every plot as SVG and PDF.
        title: None: the name of the run.
        projection: of the map: "pca" or "umap".
        claims: TOML file of figures to compare the accuracy with.
        thumbnails: videos shown as small pictures; 0: no video is decoded.
        seed: of the projection.
    """

    out: Path | None = None
    figures: Path | None = None
    title: str | None = None
    projection: str = "pca"
    claims: Path | None = None
    thumbnails: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Written:
    """Files of a report, and what it lacks.

    Attributes:
        path: HTML file.
        n_bytes: of the file.
        figures: plots that were written.
        gaps: missing parts, each with the command that makes it.
    """

    path: Path
    n_bytes: int
    figures: tuple[Path, ...]
    gaps: tuple[Gap, ...]


def report(
    workspace: Workspace,
    options: ReportOptions | None = None,
    *,
    data: Path | None = None,
    ceilings: Mapping[str, float] | None = None,
) -> Written:
    """Write one offline HTML file about a run.

    Args:
        workspace: of the run.
        options: file, figures, map, thumbnails.
        data: folder the paths of videos are relative to; None: the one that was indexed.
        ceilings: best possible accuracy in percent by set of streams, for rendered data sets.

    Raises:
        UsageError: no such run, an unknown map, a library that is not installed, wrong claims.
    """
    from tristream.report import collect, links, page, plots, projection
    from tristream.report import figures as papers
    from tristream.store.atomic import write_bytes

    options, run = options or ReportOptions(), workspace.folder
    if not run.is_dir():
        raise UsageError(
            f"{run} is no folder of a run; make one first: tristream index --run {run} --data DIR"
        )
    if not (run / "videos.csv").exists() and not any(run.glob("fusion/*.json")):
        raise UsageError(f"{run} holds no run: it has no videos.csv; check --run")
    how = options.projection
    if how not in projection.PROJECTIONS:
        known = ", ".join(projection.PROJECTIONS)
        raise UsageError(f"--map {how} is not known; available: {known}")
    _check_installed(how, options.figures)
    out = options.out or run / "report.html"
    workspace.check_writable(out.parent, *([options.figures] if options.figures else []))
    content = collect.collect(run, data=data)
    beside = _beside(content, options.claims, ceilings)
    chart = projection.project(content.fused, how=how, seed=options.seed) if content.fused else None
    timelines = plots.timelines(content)
    pictures, gaps = _pictures(content, workspace, chart, timelines, options.thumbnails)
    pictures = dataclasses.replace(pictures, clips=links.clip_links(content, out))
    content = dataclasses.replace(content, gaps=(*content.gaps, *gaps))
    text = page.render(
        content,
        title=options.title or run.resolve().name,
        made=datetime.datetime.now().strftime("%-d %B %Y, %H:%M"),
        version=importlib.metadata.version("tristream"),
        beside=beside,
        chart=chart,
        timelines=timelines,
        pictures=pictures,
    )
    write_bytes(out, text.encode())
    written: list[Path] = []
    if options.figures is not None:
        charts = _charts(content, beside, chart, timelines, pictures.looks)
        written = papers.write(charts, options.figures, streams=content.streams)
    return Written(out, len(text.encode()), tuple(written), content.gaps)


def _check_installed(how: str, figures: Path | None) -> None:
    """Raise UsageError for an optional library that is wanted and not installed."""
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


def _beside(found: Run, claims: Path | None, ceilings: Mapping[str, float] | None) -> Beside:
    """Return the figures to compare accuracy with: a file of claims, else the ceilings.

    Raises:
        UsageError: a file of another form.
    """
    from tristream.report.page import Beside

    kinds: dict[str, Any] = {}
    if (path := found.folder / "fusion" / "kinds.json").exists():
        kinds = json.loads(path.read_text(encoding="utf-8"))
    if claims is not None:
        return Beside(*_read_claims(claims), kinds)
    if ceilings is not None:
        return Beside("the best possible on these rendered videos", ceilings, kinds)
    return Beside(kinds=kinds)


def _read_claims(path: Path) -> tuple[str, dict[str, float]]:
    try:
        claims = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML ({error})") from error
    words, accuracy = claims.get("words"), claims.get("accuracy")
    if not isinstance(words, str) or not isinstance(accuracy, Mapping) or len(claims) != 2:
        raise UsageError(
            f'{path} has {", ".join(sorted(claims)) or "nothing"}; it must have words = "whose figures" and a table '
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
    """Return every plot of the page that has data."""
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
    found: Run,
    workspace: Workspace,
    chart: Map | None,
    timelines: Sequence[Timeline],
    n_most: int,
) -> tuple[Pictures, list[Gap]]:
    """Return thumbnails of videos and of peaks of events, and sampled segments; none for n_most 0."""
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
    access: dict[str, Any] = {"root": root, "follow_links": workspace.reading.follow_links}
    with (
        decode_pool(workspace) as pool,
        workspace.progress.bar("pictures", len(wanted) + len(peaks)) as move,
    ):
        videos, lost = thumbnails.pictures(
            wanted, pool, height_px=THUMBNAIL_PX, move=move, **access
        )
        moments = {key: moment for key, (_, moment) in peaks.items()}
        at_peaks, missing = thumbnails.pictures(
            moments, pool, height_px=PEAK_PX, move=move, **access
        )
    gaps = []
    lost = {
        name: why for name, why in lost.items() if why != "no_video"
    }  # sound alone: nothing to show
    if lost:
        reasons = ", ".join(sorted(set(lost.values())))
        gaps.append(Gap("map", f"{len(lost)} of {len(wanted)} videos gave no picture ({reasons})."))
    try:
        looks = sampled_segments(workspace, found)
    except TristreamError as error:  # a checkpoint of another version, for example
        looks = []
        gaps.append(Gap("looks", f"Where the streams look cannot be shown: {error}."))
    return Pictures(
        videos=videos,
        peaks={peaks[key][0]: uri for key, uri in at_peaks.items()},
        missing={peaks[key][0]: why for key, why in missing.items()},
        looks=looks,
    ), gaps


def _moments(found: Run, chart: Map | None, n_most: int) -> dict[str, Moment]:
    """Return the middles of the hardest videos and of videos of every class, test first."""
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
