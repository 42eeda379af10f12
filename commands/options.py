"""Options that mean the same in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tristream.media.machine import n_cores

Run = Annotated[
    Path,
    typer.Option("--run", help="Folder of this run: what it reads and writes.", show_default=True),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder the paths of videos are relative to.")
]
CacheDir = Annotated[
    Path,
    typer.Option(
        "--cache",
        envvar="TRISTREAM_CACHE",
        help="Folder for what need not be computed twice; shared between runs.",
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
    Path | None, typer.Option("--config", help="TOML file; of it the section [limits] counts here.")
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
    typer.Option("--streams", metavar="A,B", help="Streams to use; default: all there are."),
]
Seed = Annotated[int, typer.Option("--seed", help="Everything random follows from it.")]
Device = Annotated[
    str, typer.Option("--device", help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps.")
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        help="What runs the networks: auto (OpenVINO on a CPU that has it), torch, openvino.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", min=1, help="Videos decoded at the same time, each in a process of its own."
    ),
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(
        "--weights-dir",
        envvar="TRISTREAM_WEIGHTS",
        help="Folder with files of pretrained weights: looked into first.",
    ),
]
RandomWeights = Annotated[
    int | None,
    typer.Option(
        "--random-weights",
        metavar="SEED",
        help="Random numbers in place of pretrained weights: a rehearsal, whose figures mean nothing.",
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Only algorithms that give the same bits every time; slower on a GPU.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the result as one JSON object on stdout; the rest on stderr."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Do again what is already done.")]

RUN = Path("runs/default")
CACHE = Path("cache")
WORKERS = n_cores()
