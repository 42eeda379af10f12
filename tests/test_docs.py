"""Every Python block of the documents runs, on a small trained run; what it prints is looked at, not compared."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tristream import streams

HOME = Path(__file__).parents[1]
needs_all = pytest.mark.skipif(
    "spatial" not in streams.names() or len(streams.names()) < 2, reason="needs two streams"
)


def blocks(page: str) -> list[tuple[str, str]]:
    """(heading, code) of every Python block of a page."""
    found, heading = [], ""
    for part in re.split(
        r"^(#+ [^\n]+|```python\n.*?^```)$", (HOME / "docs" / page).read_text(), flags=re.M | re.S
    ):
        if part.startswith("#"):
            heading = part.lstrip("# ")
        elif part.startswith("```python"):
            found.append((heading, part.removeprefix("```python\n").removesuffix("```")))
    return found


BLOCKS = blocks("embeddings.md")


@pytest.fixture(scope="module")
def exported(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the exports that the page starts from."""
    folder = Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("docs") / "work"))
    for arguments in (["--to", "parquet"], ["--to", "npz", "--standardise"]):
        tristream(folder, "export", *arguments)
    return folder


def tristream(folder: Path, *arguments: str) -> None:
    command = [sys.executable, str(HOME / "orchestrate.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run_block(code: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", code], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(HOME), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_has_an_example_for_each_of_the_libraries_it_promises() -> None:
    headings = [heading for heading, _ in BLOCKS]
    for library in ("pandas", "scikit-learn", "PyOD", "FAISS"):
        assert f"Ten lines of {library}" in headings
    for heading, code in BLOCKS:
        assert len([line for line in code.splitlines() if line.strip()]) <= 11, heading


@needs_all
@pytest.mark.slow
@pytest.mark.parametrize(("heading", "code"), BLOCKS, ids=[heading for heading, _ in BLOCKS])
def test_a_block_runs_and_prints_something(heading: str, code: str, exported: Path) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            if name.partition(".")[0] in ("pandas", "pyod", "faiss"):
                pytest.importorskip(name.partition(".")[0])
    if "faiss" in code:
        tristream(exported, "export", "--to", "faiss")
    assert run_block(code, exported).strip()


@needs_all
@pytest.mark.slow
def test_the_notebook_s_ten_lines_lead_from_files_to_x(
    two_classes: Path, quick, tmp_path: Path
) -> None:
    """With `tristream` as installed, but for the number of epochs."""
    [(_, code)] = blocks("notebook.md")
    shutil.copytree(two_classes, tmp_path / "my_videos")
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "tristream"
    shim.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"more = {quick('spatial')!r} if sys.argv[1] == 'train-stream' else []\n"
        f"os.execv(sys.executable, [sys.executable, {str(HOME / 'orchestrate.py')!r}, *sys.argv[1:], *more])\n"
    )
    shim.chmod(0o755)
    printed = run_block(code, tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert printed.splitlines()[-1].startswith("(20, 128) [")
    assert "'bounce'" in printed
