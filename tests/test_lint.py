from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed: uv pip install -e '.[dev]'")
    command = [sys.executable, "-m", tool, *arguments]
    return subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=600)


def test_ruff_finds_nothing():
    done = run("ruff", "check", "--no-cache", "--output-format", "concise", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def link_rooms() -> None:
    """build/typing/tristream as installed: mypy does not follow a `__path__` that is extended."""
    folder = HOME / "build" / "typing" / "tristream"
    folder.mkdir(parents=True, exist_ok=True)
    for link in folder.iterdir():
        link.unlink()
    rooms = [path.parent for path in HOME.glob("*/__init__.py") if path.parent.name != "tristream"]
    for target in (*rooms, *(HOME / "tristream").glob("*.py"), HOME / "tristream" / "presets"):
        if target.exists():
            (folder / target.name).symlink_to(os.path.relpath(target, folder))


@pytest.mark.slow
def test_mypy_finds_nothing():
    link_rooms()
    done = run("mypy", "--no-error-summary")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_line_of_a_document_or_a_preset_ends_in_spaces():
    patterns = ("*.md", "docs/*.md", "*.toml", "tristream/presets/*.toml")
    pages = [page for pattern in patterns for page in HOME.glob(pattern)]
    wrong = [
        f"{page.relative_to(HOME)}:{number}"
        for page in pages
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if line != line.rstrip()
    ]
    assert wrong == []
