"""The documentation site: builds without a warning, asks no other server, and its new stream works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
ROOMS = ("bench", "commands", "dataset", "flow", "fusion", "media", "report", "store", "streams")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_no_page_of_the_site_loads_anything_from_another_server(site):
    pages = sorted(site.glob("*.html"))
    assert len(pages) > 20
    loaded = re.compile(
        r'<(?:script|img|iframe|source)[^>]+src="(https?:)?//|<link[^>]+stylesheet[^>]+href="(https?:)?//'
    )
    foreign = [page.name for page in pages if loaded.search(page.read_text(encoding="utf-8"))]
    assert foreign == []


def test_every_page_of_docs_is_in_the_navigation(site):
    navigation = (HOME / "mkdocs.yml").read_text(encoding="utf-8")
    assert [p.name for p in (HOME / "docs").glob("*.md") if f": {p.name}" not in navigation] == []


def test_the_api_page_documents_the_methods_of_a_run(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    for name in (
        "train_stream",
        "embed",
        "fuse",
        "predict",
        "detect",
        "StreamEmbedder",
        "Decision",
    ):
        assert re.search(rf'id="tristream\.[\w.]*{name}"', text), name


@pytest.mark.slow
def test_the_new_stream_of_the_page_trains_and_embeds(two_classes, quick, tmp_path):
    """In a copy of the checkout: two files of the page, and the command line knows the stream."""
    home = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", ".*", "build", "runs", "cache")
    for name in (*ROOMS, "tristream", "workshop", "orchestrate.py", "pyproject.toml"):
        if (HOME / name).is_dir():
            shutil.copytree(HOME / name, home / name, ignore=ignored)
        else:
            shutil.copy(HOME / name, home / name)
    page = (HOME / "docs" / "new-stream.md").read_text(encoding="utf-8")
    config, stream = re.findall(r"```python\n(.*?)```", page, re.S)
    folder = home / "streams" / "brightness"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "config.py").write_text(config)
    (folder / "stream.py").write_text(stream)
    assert sum(1 for line in (config + stream).splitlines() if line.strip()) <= 75

    def tristream(*arguments: str | Path) -> str:
        command = [sys.executable, str(home / "orchestrate.py"), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode in (0, 3), done.stderr
        return done.stdout

    tristream("index", "--data", two_classes)
    tristream("train-stream", "brightness", *quick("brightness"))
    tristream("embed")
    import pyarrow.parquet as pq

    [part] = (tmp_path / "runs" / "default" / "embeddings" / "brightness").rglob("*.parquet")
    present = pq.read_table(part)["present"].to_pylist()
    assert sum(present) == 20
