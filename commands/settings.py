"""tristream settings: print every setting with its default and meaning."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError


@screen.command
def run(
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Print the values of this preset in place of the defaults."),
    ] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/settings.md: the defaults as tables.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Print every setting, its value, its permitted values and its meaning; one line per setting.

    Set one with --set KEY=VALUE, several with --config FILE.toml.
    """
    from tristream.keys import value_text
    from tristream.settings_table import all_settings, markdown

    if as_markdown:
        if preset is not None or as_json:
            raise UsageError("--markdown prints the defaults alone; leave out --preset and --json")
        sys.stdout.write(markdown())
        return screen.OK
    keys = all_settings(preset)
    width = max(len(f"{key.path} = {value_text(key.value)}") for key in keys)
    for key in keys if not as_json else ():
        line = f"{key.path} = {value_text(key.value)}"
        screen.echo(f"{line:{width}s}  {key.values}  {key.meaning}".rstrip())
    screen.emit({"preset": preset, "settings": [key.to_json() for key in keys]}, as_json=as_json)
    return screen.OK
