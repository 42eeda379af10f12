"""tristream flow: draw optical flow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tristream.commands import options, screen

app = typer.Typer(help="Draw optical flow.", no_args_is_help=True, rich_markup_mode=None)


@app.command("show")
@screen.command
def show(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="NAME.mp4: every frame; NAME.png: the chosen ones. Default: VIDEO-flow.png.",
        ),
    ] = None,
    estimator: Annotated[
        str,
        typer.Option(
            "--estimator",
            help="dis_fast, farneback, flownet2, raft_small, …; the learned need weights.",
        ),
    ] = "dis_fast",
    preset: options.Preset = "light",
    config: options.ConfigFile = None,
    assignments: options.Set = None,
    weights_dir: options.WeightsDir = None,
    random_weights: options.RandomWeights = None,
    as_json: options.Json = False,
) -> int:
    """Write frames, colour flow and the motion curve side by side, with the chosen frames marked.

    Colour is direction (right red, down yellow, left blue, up violet), its strength the length. The
    frames are chosen by [sampler] (--set sampler.n_samples=16) from the motion of this flow.
    """
    from tristream.media.reasons import Rejected
    from tristream.settings import check
    from tristream.show_flow import FlowOptions, show_flow

    check(preset, config, assignments or ())
    workspace = options.workspace(options.RUN, weights_dir=weights_dir, workers=1)
    chosen = FlowOptions(estimator, preset, config, tuple(assignments or ()), random_weights)
    screen.begin(f"estimating the flow of {video}")
    try:
        shown = show_flow(workspace, video, out, chosen)
    except Rejected as rejected:
        screen.warn(f"{rejected} ({rejected.reason})")
        return screen.SOME_REJECTED
    screen.note(
        f"wrote {shown.path}: {shown.n_frames} frames, {len(shown.chosen)} chosen, "
        f"flow of {shown.estimator}"
    )
    screen.emit(
        {
            "out": str(shown.path),
            "n_frames": shown.n_frames,
            "estimator": shown.estimator,
            "chosen": shown.chosen.tolist(),
            "motion_px": [round(float(m), 4) for m in shown.motion_px],
        },
        as_json=as_json,
    )
    return screen.OK
