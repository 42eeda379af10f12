"""Optical flow of a video beside its frames, as a picture or a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tristream.errors import UsageError
from tristream.media.reasons import Rejected
from tristream.pretrained import places
from tristream.settings import load as load_settings
from tristream.videos import decode_pool, decoder
from tristream.workspace import Workspace

LARGEST_SIDE_PX = 320


@dataclass(frozen=True)
class FlowOptions:
    """Choices of a picture of flow.

    Attributes:
        estimator: name of a flow estimator; learned ones need weights.
        preset, config, assignments: settings of the sampler, as in `TrainOptions`.
        random_weights: seed of random in place of pretrained weights.
    """

    estimator: str = "dis_fast"
    preset: str = "light"
    config: Path | None = None
    assignments: Sequence[str] = ()
    random_weights: int | None = None


@dataclass(frozen=True, eq=False)
class ShownFlow:
    """Flow that was drawn.

    Attributes:
        path: of the picture or video.
        n_frames: of the video.
        estimator: identity of the estimator.
        chosen: frames that the sampler chooses.
        motion_px: mean length of the flow from each frame to the next.
    """

    path: Path
    n_frames: int
    estimator: str
    chosen: np.ndarray
    motion_px: np.ndarray


def show_flow(
    workspace: Workspace, video: Path, out: Path | None = None, options: FlowOptions | None = None
) -> ShownFlow:
    """Draw frames, colour flow and the motion curve, with the chosen frames marked.

    Args:
        workspace: limits and places of weights.
        video: file.
        out: NAME.mp4 (every frame) or NAME.png (the chosen ones); None: VIDEO-flow.png.
        options: estimator and sampler.

    Raises:
        UsageError: another suffix, an unknown setting.
        Rejected: a file that cannot be decoded, or has fewer than two frames.
    """
    from tristream.flow.sampling import motion_lengths, sample_indices, uniform_indices
    from tristream.streams.flow_estimators import Estimators
    from tristream.streams.video import fit, squash

    options = options or FlowOptions()
    out = out or video.with_name(f"{video.stem}-flow.png")
    if out.suffix not in (".mp4", ".png"):
        raise UsageError(
            f"--out {out} ends in '{out.suffix}'; it must be NAME.mp4 (every frame) or NAME.png"
        )
    sampler = load_settings(options.preset, options.config, options.assignments).sampler
    seed = options.random_weights
    seeds = {} if seed is None else {options.estimator: seed}
    where = places(workspace.weights_dir, workspace.cache_dir)
    estimate = Estimators(seeds, where=where).load(options.estimator)
    with decode_pool(workspace) as pool:
        decoded = decoder(pool, workspace.reading)(
            video,
            pictures=True,
            sound=False,
            max_side=LARGEST_SIDE_PX,
            stop_seconds=sampler.max_seconds,
        )
    frames = decoded.frames
    if frames is None or len(frames) < 2:
        n_frames = 0 if frames is None else len(frames)
        raise Rejected("too_short_for_flow", video, f"has {n_frames} frames; flow needs two")
    frames = squash(frames, *fit(frames.shape[1:3], LARGEST_SIDE_PX))
    flow = estimate(frames)
    motion = motion_lengths(flow, subtract_mean=sampler.mean_removed)
    if sampler.method == "adaptive":
        chosen = sample_indices(motion, n_samples=sampler.n_samples, n_segments=sampler.n_segments)
    else:
        chosen = uniform_indices(len(frames), sampler.n_samples)
    shown = ShownFlow(out, len(frames), estimate.identity, chosen, motion)
    _write(shown, frames, flow, decoded.start_seconds)
    return shown


def _write(
    shown: ShownFlow, frames: np.ndarray, flow: np.ndarray, start_seconds: np.ndarray
) -> None:
    import cv2

    from tristream.flow.sheet import contact_sheet, side_by_side
    from tristream.media.encode import write_video
    from tristream.store.atomic import write_bytes

    if shown.path.suffix == ".mp4":
        fps = 1 / max(1e-3, float(np.median(np.diff(start_seconds))))
        pairs = list(side_by_side(frames, flow, shown.motion_px, shown.chosen))
        write_video(shown.path, np.stack(pairs), fps=fps)
        return
    sheet = contact_sheet(frames, flow, shown.motion_px, shown.chosen, start_seconds)
    _, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    write_bytes(shown.path, png.tobytes())
