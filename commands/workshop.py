"""tristream workshop: render the built-in data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError


@screen.command
def run(
    out: Annotated[Path, typer.Argument(help="Folder to render into.")] = Path("workshop-data"),
    size: Annotated[str, typer.Option("--size", help="tiny, small or full.")] = "small",
    variant: Annotated[
        str, typer.Option("--variant", help="classes, short_event, xor or anomalies.")
    ] = "classes",
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            metavar="ucf101",
            help="Instead, a few videos with names, encoding and lists as in UCF101.",
        ),
    ] = None,
    flow: Annotated[
        bool, typer.Option("--flow", help="Also write the exact optical flow, for --flow-from.")
    ] = False,
    silence: Annotated[
        str, typer.Option("--silence", help="none, random or class_dependent.")
    ] = "none",
    silent_fraction: Annotated[
        float,
        typer.Option(
            "--silent-fraction", min=0, max=1, help="With --silence random: share of silent videos."
        ),
    ] = 0.5,
    seed: options.Seed = 0,
    workers: options.Workers = options.WORKERS,
    as_json: options.Json = False,
) -> int:
    """Render the built-in data set: 2.4 s videos with audio and a known best accuracy for every stream.

    Of its 16 classes 4 differ by appearance alone, 4 by motion alone, 4 by audio alone, and 4 by the
    order of two motions. It is rendered from a seed as H.264 and AAC; nothing is downloaded. A second
    call is quick.
    """
    if layout is not None:
        return _like_ucf101(out, layout, seed=seed, workers=workers, as_json=as_json)
    from tristream.workshop import dataset

    known = size in dataset.SIZES and variant in dataset.VARIANTS  # else `render` refuses them
    n_clips = len(dataset.plan(size=size, seed=seed, variant=variant)) if known else None
    with screen.PROGRESS.bar(f"rendering {variant} ({size})", n_clips) as move:
        done = 0

        def show(n: int, total: int) -> None:
            nonlocal done
            move(n - done)
            done = n

        listing = dataset.render(
            out,
            size=size,
            seed=seed,
            variant=variant,
            exact_flow=flow,
            n_workers=workers,
            silence=silence,
            silent_fraction=silent_fraction if silence == "random" else 0.0,
            progress=show,
        )
    n_videos = listing.read_text(encoding="utf-8").count("\n") - 1
    screen.note(f"{n_videos} videos in {out}; next: tristream index --data {out}")
    screen.emit({"videos_csv": str(listing), "n_videos": n_videos}, as_json=as_json)
    return screen.OK


def _like_ucf101(out: Path, layout: str, *, seed: int, workers: int, as_json: bool) -> int:
    if layout != "ucf101":
        raise UsageError(f"--layout {layout} is unknown; available: ucf101")
    from tristream.workshop import ucf101

    with screen.PROGRESS.bar("rendering videos like UCF101's", None) as move:
        lists = ucf101.render(
            out, seed=seed, n_workers=workers, progress=lambda n_done, n_total: move(1)
        )
    n_videos = len(list(out.glob("*/*.avi")))
    screen.note(f"{n_videos} videos in {out}; next: tristream index --data {out} --ucf101 {lists}")
    screen.emit({"lists": str(lists), "n_videos": n_videos}, as_json=as_json)
    return screen.OK
