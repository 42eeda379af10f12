"""Hooks of the documentation site: no page loads anything from another server."""

from __future__ import annotations

from typing import Any

SHIM = "https://unpkg.com/iframe-worker/shim"
OWN = "assets/iframe-worker.js"


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Load the worker of the search from the site itself; pages lie beside `assets`."""
    return output.replace(SHIM, OWN)


def on_post_template(output: str, *, template_name: str, config: Any) -> str:
    """Do the same for the page of missing pages."""
    return output.replace(SHIM, OWN)
