"""Options with the same meaning in every command, and the workspace they describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.choices import check_backend, check_device, check_run
from tristream.commands.screen import PROGRESS
from tristream.errors import UsageError
from tristream.media.limits import DEFAULT_LIMITS, Limits
from tristream.media.machine import n_cores
from tristream.paths import CACHE, RUN
from tristream.workspace import Compute, Reading, Workspace

Run = Annotated[Path, typer.Option("--run", help="Folder of this run: what it reads and writes.")]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder the paths of videos are relative to.")
]
CacheDir = Annotated[
    Path,
    typer.Option(
        "--cache",
        envvar="TRISTREAM_CACHE",
        help="Folder for results that need not be computed twice; shared between runs.",
    ),
]
NoFlowCache = Annotated[
    bool,
    typer.Option(
        "--no-flow-cache",
        help="Keep no optical flow, the largest part of the cache: for small disks.",
    ),
]
Preset = Annotated[
    str, typer.Option("--preset", help="light (no download), standard, paper, workshop (demo).")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file; overrides the preset key by key.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, e.g. sampler.n_samples=60; overrides --config.",
    ),
]
LimitsFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file; only its section [limits] is used here."),
]
SetLimit = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="limits.KEY=VALUE",
        help="One limit per file, e.g. limits.max_bytes=8_000_000_000.",
    ),
]
FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow-links", help="Also read files that links outside of the data root lead to."
    ),
]
FlowFrom = Annotated[
    Path | None,
    typer.Option(
        "--flow-from",
        help="Folder of precomputed flow, looked up by video_id; instead of estimating it.",
    ),
]
Streams = Annotated[
    str | None,
    typer.Option("--streams", metavar="A,B", help="Streams to use; default: all that are trained."),
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed.")]
Device = Annotated[
    str, typer.Option("--device", help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps.")
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        help="Inference engine: auto (OpenVINO on a CPU that has it), torch, openvino.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", min=1, help="Videos decoded at the same time, each in its own process."
    ),
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(
        "--weights-dir",
        envvar="TRISTREAM_WEIGHTS",
        help="Folder with files of pretrained weights, searched first.",
    ),
]
RandomWeights = Annotated[
    int | None,
    typer.Option(
        "--random-weights",
        metavar="SEED",
        help="Random numbers in place of pretrained weights: a rehearsal with meaningless figures.",
    ),
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", min=1, help="Of every phase of every training.")
]
Fast = Annotated[bool, typer.Option("--fast", help="A first look: ten epochs, less accurate.")]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Only algorithms that return the same bits every time; slower on a GPU.",
    ),
]
Paths = Annotated[list[Path], typer.Argument(help="Video files, folders or patterns.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Also write the result to FILE.csv or FILE.json.")
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the result as one JSON object on stdout; the rest on stderr."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Do again what is already done.")]

WORKERS = n_cores()
__all__ = ["CACHE", "RUN", "WORKERS"]


def workspace(run: Path, cache: Path = CACHE, **parts: Any) -> Workspace:
    """Return the workspace that the options of a command describe.

    Args:
        run, cache: folders.
        parts: any of keeps_flow, weights_dir; limits, follow_links, flow_from; device, backend,
            workers, deterministic.

    Raises:
        UsageError: a device or backend that this machine does not have.
    """
    check_device(parts.get("device", "auto"))
    check_backend(parts.get("backend", "auto"))
    reading = {k: parts.pop(k) for k in ("limits", "follow_links", "flow_from") if k in parts}
    compute = {
        k: parts.pop(k) for k in ("device", "backend", "workers", "deterministic") if k in parts
    }
    return Workspace(
        run,
        cache,
        reading=Reading(**reading),
        compute=Compute(**compute),
        progress=PROGRESS,
        **parts,
    )


def existing(run: Path, cache: Path = CACHE, **parts: Any) -> Workspace:
    """Return the workspace of a run that exists; arguments as in `workspace`.

    Raises:
        UsageError: no such folder, or an option that cannot be used.
    """
    described = workspace(run, cache, **parts)
    check_run(described.folder)
    return described


def limits(config: Path | None, assignments: list[str] | None) -> Limits:
    """Return the limits per file of --config and --set; the default ones without either."""
    if config is None and not assignments:
        return DEFAULT_LIMITS
    from tristream.settings import limits as limits_of

    return limits_of(config, assignments or ())


def names(text: str | None) -> list[str] | None:
    """Return the stream names of --streams A,B.

    Raises:
        UsageError: an unknown stream.
    """
    from tristream.workspace import check_names

    if text is None:
        return None
    return check_names([name.strip() for name in text.split(",") if name.strip()])


def epochs(given: int | None, *, fast: bool) -> int | None:
    """Return the epochs of --epochs or --fast; None: as the settings have it.

    Raises:
        UsageError: both are given.
    """
    if not fast:
        return given
    if given is not None:
        raise UsageError("--fast and --epochs exclude each other")
    from tristream.train_all import FAST_EPOCHS

    return FAST_EPOCHS
