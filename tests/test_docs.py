"""Every Python block of the documents runs, on a small trained run; what it prints is looked at, not compared."""

from __future__ import annotations

import ast
import itertools
import json
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
    for library in ("pandas", "scikit-learn", "PyOD", "FAISS", "ONNX Runtime"):
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
            if name.partition(".")[0] in ("pandas", "pyod", "faiss", "onnxruntime"):
                pytest.importorskip(name.partition(".")[0])
    for form in ("faiss", "onnx"):
        if form in code:
            tristream(exported, "export", "--to", form)
    assert run_block(code, exported).strip()


QUICKLY = """
import os, tristream.run
_train = tristream.run.Run.train_stream
def _quickly(run, name, **options):
    quick = {{"preset": "workshop", "assignments": {assignments!r}[name]}}
    return _train(run, name, **({{**quick, **options}} if set(options) <= {{"data"}} else options))
tristream.run.Run.train_stream = _quickly
"""  # as installed, but for the number of epochs


@pytest.fixture(scope="module")
def quickly(quick) -> str:
    """Code that makes every training of a block one of few epochs."""
    words = {name: quick(name) for name in streams.names()}
    sets = {
        name: [value for flag, value in itertools.pairwise(line) if flag == "--set"]
        for name, line in words.items()
    }
    return QUICKLY.format(assignments=sets)


def add_videos(two_classes: Path, folder: Path) -> None:
    """The files that the pages name: a folder of classes, a new, a silent and a broken video."""
    shutil.copytree(two_classes, folder / "my_videos")
    for name, source in {
        "new.mp4": "spin/3.mp4",
        "silent.mp4": "bounce/0.mp4",
        "broken.mp4": "spin/broken.mp4",
        "camera.mp4": "bounce/4.mp4",
    }.items():
        shutil.copy(two_classes / source, folder / name)


@pytest.fixture(scope="module")
def library_page(
    trained_run: Path, two_classes: Path, quickly: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Output of each block of the page, by number; they run in one process, as in a notebook."""
    folder = Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("library") / "work"))
    add_videos(two_classes, folder)
    cells = [
        f"print({MARK!r}, flush=True)\nexec(compile({code!r}, {heading!r}, 'exec'), globals())"
        for heading, code in LIBRARY
    ]
    printed = run_block("\n".join([quickly, *cells]), folder).split(f"{MARK}\n")[1:]
    return dict(enumerate(printed))


MARK = "--- the next block"
LIBRARY = blocks("library.md")


@needs_all
@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(LIBRARY)), ids=[heading for heading, _ in LIBRARY])
def test_a_block_of_the_library_page_runs_and_prints_something(
    number: int, library_page: dict[str, str]
) -> None:
    assert library_page[number].strip()


@needs_all
@pytest.mark.slow
def test_what_the_library_page_promises_in_its_comments_is_printed(
    library_page: dict[str, str],
) -> None:
    text = "".join(library_page.values())
    for promise in (
        "unknown option 'epochs'; available: preset, config",
        "{'audio': 'no_audio'}",
        "{'broken.mp4': 'not_a_video'}",
        "'kind': 'no_frames'",
        "UsageError",
    ):
        assert promise in text, promise


def test_the_library_page_names_everything_that_is_public_and_every_option() -> None:
    import dataclasses
    import importlib

    import tristream

    text = (HOME / "docs" / "library.md").read_text(encoding="utf-8")
    for name in set(tristream.__all__) - {"__version__"}:
        assert f"`{name}`" in text, name
    rows = re.findall(r"^\| `[^|]+ \| ([^|]+) \| `tristream\.(\w+)\.(\w+)` \|$", text, re.M)
    assert len(rows) >= 8
    for options, module, name in rows:
        kind = getattr(importlib.import_module(f"tristream.{module}"), name)
        fields = {field.name for field in dataclasses.fields(kind)}
        assert set(re.findall(r"`(\w+)`", options)) - {"save"} == fields - {"save"}, name


HELP = """
import contextlib, io, json, sys
import orchestrate
pages = {}
for name in orchestrate.COMMANDS:
    sys.argv, text = ["tristream", name, "--help"], io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        orchestrate.main()
    pages[name] = text.getvalue()
json.dump(pages, sys.stdout)
"""


def test_every_command_and_option_that_a_page_names_is_one_of_the_command_line() -> None:
    pages = json.loads(run_block(HELP, HOME))
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in [*HOME.glob("docs/*.md"), HOME / "README.md", HOME / "CONTRIBUTING.md"]
    }
    checked, wrong = 0, []
    for page, text in texts.items():
        for call in re.findall(r"(?:`|^|&& |\| )tristream ([a-z][^`\n|;&#]*)", text, re.M):
            name = call.split()[0]
            help_page = pages.get(name)
            if help_page is None:
                wrong.append(f"{page}: tristream {call}")
                continue
            if "COMMAND" in help_page.splitlines()[0]:  # it has commands of its own
                continue
            for option in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", call):
                checked += 1
                if not re.search(rf"{option}\b(?!-)", help_page):
                    wrong.append(f"{page}: tristream {name} {option}")
    assert wrong == []
    assert checked > 50


@needs_all
@pytest.mark.slow
def test_ten_lines_of_the_notebook_page_lead_from_files_to_decisions_and_x(
    two_classes: Path, quickly: str, tmp_path: Path
) -> None:
    [(_, code)] = blocks("notebook.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 11
    add_videos(two_classes, tmp_path)
    decisions, shape = run_block(quickly + code, tmp_path).splitlines()[-2:]
    label, score = decisions.split()
    assert label in ("bounce", "spin")
    assert float(score) > 0
    assert shape == "(20, 384) {'spin/broken.mp4': 'not_a_video'}"
