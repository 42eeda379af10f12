"""tristream flow: optical flow, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError

app = typer.Typer(help="Optical flow, to look at.", no_args_is_help=True, rich_markup_mode=None)
LARGEST_SIDE_PX = 320


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
    """Write frames, colour flow and the motion curve side by side, with the frames the sampler chooses marked.

    Colour is direction (right red, down yellow, left blue, up violet), its strength the length. The chosen frames
    are those of [sampler] (--set sampler.n_samples=16), by the motion of the flow that is shown.
    """
    from tristream.commands import settings
    from tristream.commands.pretrained import places
    from tristream.commands.workspace import decode_pool, decoder
    from tristream.flow.sampling import motion_lengths, sample_indices, uniform_indices
    from tristream.media.reasons import Rejected
    from tristream.streams.flow_estimators import Estimators
    from tristream.streams.video import fit, squash

    out = out or video.with_name(f"{video.stem}-flow.png")
    if out.suffix not in (".mp4", ".png"):
        raise UsageError(
            f"--out {out} ends in '{out.suffix}'; it must be NAME.mp4 (every frame) or NAME.png"
        )
    sampler = settings.load(preset, config, assignments or ()).sampler
    seeds = {} if random_weights is None else {estimator: random_weights}
    estimate = Estimators(seeds, where=places(weights_dir)).load(estimator)
    try:
        with decode_pool(1) as pool:
            decoded = decoder(pool, None)(
                video,
                pictures=True,
                sound=False,
                max_side=LARGEST_SIDE_PX,
                stop_seconds=sampler.max_seconds,
            )
    except Rejected as rejected:
        screen.warn(f"{video}: {rejected} ({rejected.reason})")
        return screen.SOME_REJECTED
    frames = decoded.frames
    if frames is None or len(frames) < 2:
        screen.warn(f"{video} has {0 if frames is None else len(frames)} frames; flow needs two")
        return screen.SOME_REJECTED
    frames = squash(frames, *fit(frames.shape[1:3], LARGEST_SIDE_PX))
    flow = estimate(frames)
    motion = motion_lengths(flow, subtract_mean=sampler.mean_removed)
    if sampler.method == "adaptive":
        chosen = sample_indices(motion, n_samples=sampler.n_samples, n_segments=sampler.n_segments)
    else:
        chosen = uniform_indices(len(frames), sampler.n_samples)
    _write(out, frames, flow, motion, chosen, decoded.start_seconds)
    screen.note(
        f"wrote {out}: {len(frames)} frames, {len(chosen)} chosen, flow of {estimate.identity}"
    )
    screen.emit(
        {"out": str(out), "n_frames": len(frames), "estimator": estimate.identity, "chosen": chosen.tolist(),
         "motion_px": [round(float(m), 4) for m in motion]},
        as_json=as_json,
    )  # fmt: skip
    return screen.OK


def _write(out: Path, frames: Any, flow: Any, motion: Any, chosen: Any, start_seconds: Any) -> None:
    import cv2
    import numpy as np

    from tristream.flow.sheet import contact_sheet, side_by_side
    from tristream.media.encode import write_video
    from tristream.store.atomic import write_bytes

    if out.suffix == ".mp4":
        fps = 1 / max(1e-3, float(np.median(np.diff(start_seconds))))
        write_video(out, np.stack(list(side_by_side(frames, flow, motion, chosen))), fps=fps)
        return
    sheet = contact_sheet(frames, flow, motion, chosen, start_seconds)
    _, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    write_bytes(out, png.tobytes())
