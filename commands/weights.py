"""tristream weights: list, download or convert pretrained weights by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.commands import options, screen
from tristream.errors import MachineError
from tristream.pretrained import download_bar, places

app = typer.Typer(
    help="List, download or convert pretrained weights by name.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="As in `weights list`, or any name of timm or ptlflow."),
]
AcceptLicence = Annotated[
    bool,
    typer.Option("--accept-licence", help="Accept a licence for research only; remembered."),
]


@app.command("list")
@screen.command
def list_(
    weights_dir: options.WeightsDir = None,
    cache: options.CacheDir = options.CACHE,
    as_json: options.Json = False,
) -> int:
    """List the named weights, their licences and their state on this machine.

    Every CNN of timm and every flow network of ptlflow also has weights under its own name.
    """
    from tristream.store import weights
    from tristream.store.weights.catalogue import TABLE

    folders = places(weights_dir, cache)
    rows: list[dict[str, Any]] = []
    for name, weight in TABLE.items():
        state, path = weights.state(name, where=folders)
        rows.append({"name": name, "what": weight.what, "n_bytes": weight.n_bytes, "licence": weight.licence,
                      "research_only": weight.research_only, "state": state, "path": path})  # fmt: skip
    screen.table(
        "pretrained weights",
        ["name", "what", "MB", "licence", "here"],
        [
            [row["name"], row["what"], f"{row['n_bytes'] / 1e6:.1f}", row["licence"], row["state"]]
            for row in rows
        ],
        caption=f"searched: {folders.weights_dir or 'no --weights-dir'} and {folders.cache}",
    )
    screen.emit(
        {"weights_dir": folders.weights_dir, "cache": folders.cache, "weights": rows},
        as_json=as_json,
    )
    return screen.OK


@app.command()
@screen.command
def get(
    name: Name,
    weights_dir: options.WeightsDir = None,
    cache: options.CacheDir = options.CACHE,
    accept_licence: AcceptLicence = False,
    as_json: options.Json = False,
) -> int:
    """Get weights from --weights-dir, the cache or their canonical address; check and store them.

    They are stored as safetensors.
    """
    from tristream.store import weights

    try:
        with download_bar(name, screen.PROGRESS) as progress:
            path = weights.get(
                name,
                where=places(weights_dir, cache),
                accept_licence=accept_licence,
                say=screen.note,
                progress=progress,
            )
    except weights.Missing as error:
        if error.network:
            raise MachineError(str(error)) from error
        raise
    return _say(path, as_json)


@app.command()
@screen.command
def show(
    name: Name,
    weights_dir: options.WeightsDir = None,
    cache: options.CacheDir = options.CACHE,
    as_json: options.Json = False,
) -> int:
    """Show file, sha256, licence, address and state of one name. Nothing is downloaded."""
    from tristream.store import weights
    from tristream.store.weights.catalogue import describe

    folders, weight = places(weights_dir, cache), describe(name)
    state, path = weights.state(name, where=folders)
    facts: dict[str, Any] = {
        "name": weight.name,
        "what": weight.what,
        "file": weight.file,
        "sha256": weight.sha256 or "unknown: that of the first download is remembered",
        "licence": weight.licence + (" (needs --accept-licence)" if weight.research_only else ""),
        "address": weight.address or f"none: {weight.no_address}",
        "here": state,
        "path": path or "",
    }
    if path is not None and state == weights.READY:
        facts |= {
            f"stored {key}": value
            for key, value in weights.about(path).items()
            if key not in {*facts, "graph", "name"}
        }
    screen.table(
        f"weights {name}", ["fact", "value"], [[key, str(value)] for key, value in facts.items()]
    )
    screen.emit(facts, as_json=as_json)
    return screen.OK


@app.command()
@screen.command
def add(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="safetensors, .pth, .pt, .ckpt, .tflite or .npz.")
    ],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name of the weights.")],
    cache: options.CacheDir = options.CACHE,
    accept_licence: AcceptLicence = False,
    as_json: options.Json = False,
) -> int:
    """Convert a local file of weights. A process without rights reads it as plain tensors; nothing is run.

    Its sha256 must be the published one. If none is published, this file's is remembered and required
    from then on.
    """
    from tristream.store import weights

    path = weights.add(
        file, name, where=places(None, cache), accept_licence=accept_licence, say=screen.note
    )
    return _say(path, as_json)


def _say(path: Path, as_json: bool) -> int:
    from tristream.store import weights

    facts = {key: value for key, value in weights.about(path).items() if key != "graph"}
    screen.note(f"{path}: {facts.get('what', '')}, licence {facts.get('licence', 'unknown')}")
    screen.emit({"path": path, **facts}, as_json=as_json)
    return screen.OK
