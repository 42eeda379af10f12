"""tristream models: table of encoders, aggregators, flow estimators and detectors."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError


@screen.command
def run(
    measure: Annotated[
        bool, typer.Option("--measure", help="Time one input of each network on this machine.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/models.md, without timings.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """List every model by name: input, width, parameters, GFLOP per segment, source and licence of weights.

    Encoders are those of the presets; any other network of timm works too, by its name.
    """
    if as_markdown and (measure or as_json):
        raise UsageError("--markdown prints docs/models.md alone; leave out --measure and --json")
    from tristream import models

    screen.begin("listing the models")
    if as_markdown:
        sys.stdout.write(models.markdown())
        return screen.OK
    rows = models.rows(measure=measure)
    if not as_json:
        header = [
            "kind",
            "name",
            "stream",
            "input",
            "width",
            "parameters",
            "GFLOP",
            "ms",
            "weights",
        ]
        cells = [
            [
                row.kind,
                row.name,
                row.stream,
                "x".join(map(str, row.input)),
                "" if row.width is None else str(row.width),
                "" if row.parameters is None else f"{row.parameters:,}",
                "" if row.gflop is None else f"{row.gflop:.3g}",
                "" if row.milliseconds is None else f"{row.milliseconds:.1f}",
                f"{row.weights} ({row.licence or 'licence: tristream weights list'})"
                if row.weights
                else "",
            ]
            for row in rows
        ]
        screen.table("Models", header, cells)
    screen.emit({"models": [row.to_json() for row in rows]}, as_json=as_json)
    return screen.OK
