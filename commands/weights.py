"""tristream weights: pretrained weights by name: which there are, where they lie, and how they come here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.commands import options, screen
from tristream.errors import MachineError
from tristream.pretrained import download_bar, places

app = typer.Typer(
    help="Pretrained weights by name: list what there is, get it, take in a file you have.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="As in `weights list`, or any name of timm or ptlflow."),
]
AcceptLicence = Annotated[
    bool,
    typer.Option("--accept-licence", help="Say yes to a licence for research only; remembered."),
]


@app.command("list")
@screen.command
def list_(
    weights_dir: options.WeightsDir = None,
    cache: options.CacheDir = options.CACHE,
    as_json: options.Json = False,
) -> int:
    """Show the named weights, their licences, and which of them are here.

    Beside these every CNN of timm and every flow network of ptlflow has weights under its own name.
    """
    from tristream.store import weights
    from tristream.store.weights.catalogue import TABLE

    where = places(weights_dir, cache)
    found: list[dict[str, Any]] = []
    for name, weight in TABLE.items():
        state, path = weights.state(name, where=where)
        found.append({"name": name, "what": weight.what, "n_bytes": weight.n_bytes, "licence": weight.licence,
                      "research_only": weight.research_only, "state": state, "path": path})  # fmt: skip
    screen.table(
        "pretrained weights",
        ["name", "what", "MB", "licence", "here"],
        [
            [row["name"], row["what"], f"{row['n_bytes'] / 1e6:.1f}", row["licence"], row["state"]]
            for row in found
        ],
        caption=f"looked in {where.weights_dir or 'no --weights-dir'} and {where.cache}",
    )
    screen.emit(
        {"weights_dir": where.weights_dir, "cache": where.cache, "weights": found}, as_json=as_json
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
    """Bring weights here: from --weights-dir, the cache, or their canonical address; checked, kept as safetensors."""
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
    """Show everything about one name: file, sha256, licence, address, and whether it is here. Nothing is downloaded."""
    from tristream.store import weights
    from tristream.store.weights.catalogue import describe

    where, weight = places(weights_dir, cache), describe(name)
    state, path = weights.state(name, where=where)
    facts: dict[str, Any] = {
        "name": weight.name,
        "what": weight.what,
        "file": weight.file,
        "sha256": weight.sha256 or "not known: that of the first download is remembered",
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
        f"weights {name}", ["what", "found"], [[key, str(value)] for key, value in facts.items()]
    )
    screen.emit(facts, as_json=as_json)
    return screen.OK


@app.command()
@screen.command
def add(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="safetensors, .pth, .pt, .ckpt, .tflite or .npz.")
    ],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Which weights they are.")],
    cache: options.CacheDir = options.CACHE,
    accept_licence: AcceptLicence = False,
    as_json: options.Json = False,
) -> int:
    """Take in a file of weights you have. It is read in a process without rights, as plain tensors; nothing is run.

    Its sha256 must be the published one. Where none is known, this file's is remembered and holds from then on.
    """
    from tristream.store import weights

    path = weights.add(
        file, name, where=places(None, cache), accept_licence=accept_licence, say=screen.note
    )
    return _say(path, as_json)


def _say(path: Path, as_json: bool) -> int:
    from tristream.store import weights

    about = {key: value for key, value in weights.about(path).items() if key != "graph"}
    screen.note(f"{path}: {about.get('what', '')}, licence {about.get('licence', 'not known')}")
    screen.emit({"path": path, **about}, as_json=as_json)
    return screen.OK
