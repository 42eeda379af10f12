"""tristream similar: the videos of a run that are most like one video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tristream.commands import options, screen, settings
from tristream.commands.workspace import Workspace, chosen_streams
from tristream.dataset.listing import video_id_of
from tristream.errors import UsageError


@screen.command
def run(
    video: Annotated[str, typer.Argument(help="A video_id of the run, or any video file.")],
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    n_videos: Annotated[int, typer.Option("-n", "--n", min=1, help="How many to list.")] = 10,
    stream_list: options.Streams = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Only videos of this split: train, val or test.")
    ] = None,
    flow_from: options.FlowFrom = None,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    follow_links: options.FollowLinks = False,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write the result to FILE.csv or FILE.json.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """List the videos of a run that are most like VIDEO, by all its streams or those of --streams.

    Alike is the cosine of standardised embeddings, over the streams that both videos have. A file that is not of the
    run is embedded first; the video itself is not listed.
    """
    from tristream.commands.decide import check_out, embed_new, write_out
    from tristream.commands.tables import read_tables, side_by_side, trained_spaces
    from tristream.fusion.concatenate import fuse_tables
    from tristream.fusion.nearest import cosines, most_alike
    from tristream.fusion.standardise import fit_standardiser

    check_out(out)
    limits = settings.limits(config, assignments or ())
    workspace = Workspace(run, cache, limits=limits, follow_links=follow_links)
    manifest = workspace.manifest(None)
    spaces = trained_spaces(workspace, chosen_streams(stream_list))
    names = list(spaces)
    tables = read_tables(workspace, spaces)
    ids = next(iter(tables.values())).video_id
    X, _, columns = fuse_tables(side_by_side(tables, ids, run))
    rows = {row.video_id: row for row in manifest.rows}
    own = _own_row(video, ids, manifest.root)
    if own is None:
        if not Path(video).exists():
            raise UsageError(
                f"{video} is no video_id of {run} and no file; video_ids stand in {run}/videos.csv"
            )
        new = embed_new(
            [Path(video)],
            workspace,
            spaces,
            names,
            device=device,
            workers=workers,
            flow_from=flow_from,
        )
        if not len(new.X):
            screen.emit(
                {"query": video, "rejected": new.results[0].rejected_reason}, as_json=as_json
            )
            return screen.SOME_REJECTED
        query = new.X
    else:
        query = X[[own]]
    standardiser = fit_standardiser(X, columns=columns)
    cosine = cosines(standardiser, query, X)[0]
    if own is not None:
        cosine[own] = np.nan
    if split is not None:
        _check_split(split, rows.values())
        cosine[[name not in rows or rows[name].split != split for name in ids]] = np.nan
    has = standardiser.masks(X) & standardiser.masks(query)[0]
    found = [
        {
            "video_id": ids[k],
            "cosine": round(float(cosine[k]), 6),
            "label": rows[ids[k]].label if ids[k] in rows else "",
            "split": rows[ids[k]].split if ids[k] in rows else "",
            "streams": [name for name, both in zip(names, has[k], strict=True) if both],
        }
        for k in most_alike(cosine, n_videos)
    ]
    if not as_json:
        for row in found:
            by = (
                ""
                if len(row["streams"]) == len(names)
                else f"  (by {', '.join(row['streams'])} only)"
            )
            label = f"  {row['label']}" if row["label"] else ""
            typer.echo(
                screen.printable(
                    f"{row['cosine']:.3f}  {row['video_id']}{label}  {row['split']}{by}".rstrip()
                )
            )
    if not found:
        screen.note(f"no video of {run} has a stream in common with {video}")
    write_out(out, found, lambda row: {**row, "streams": " ".join(row["streams"])})
    screen.emit({"query": video, "by": names, "similar": found}, as_json=as_json)
    return screen.OK


def _own_row(video: str, ids: list[str], root: Path) -> int | None:
    """The row of a video of the run, by its id or by its path; None where it is none."""
    place = {name: row for row, name in enumerate(ids)}
    if video in place:
        return place[video]
    return place.get(video_id_of(Path(video).absolute(), root))


def _check_split(split: str, rows: Any) -> None:
    known = sorted({row.split for row in rows})
    if split not in known:
        raise UsageError(
            f"--split {split}: no video of this run is in it; there are {', '.join(known)}"
        )
