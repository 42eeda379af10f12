"""The wheel: one top-level name, everything that the checkout has, and a user's own modules beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built without a network."""
    source = tmp_path_factory.mktemp("source") / "src"
    ignore = shutil.ignore_patterns(
        ".git",
        ".venv*",
        "build",
        "dist",
        "runs",
        "cache",
        "tests",
        "docs",
        "__pycache__",
        ".*_cache",
    )
    shutil.copytree(HOME, source, ignore=ignore)
    out = tmp_path_factory.mktemp("wheel")
    code = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [path] = out.glob("*.whl")
    return path


def test_the_wheel_has_exactly_one_top_level_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"tristream"}


def test_the_wheel_holds_every_module_preset_and_page(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("tristream/")}
    rooms = [path.parent for path in HOME.glob("*/__init__.py")]
    for room in rooms:
        inside = "" if room.name == "tristream" else f"{room.name}/"
        for suffix in ("*.py", "*.toml", "*.j2", "*.css", "*.js"):
            for path in room.rglob(suffix):
                assert f"tristream/{inside}{path.relative_to(room).as_posix()}" in packed


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the unpacked wheel alone, as site-packages would."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_installed_it_does_the_whole_job_beside_modules_of_the_same_names(
    installed, two_classes, tmp_path
):
    """A user's own store.py, media/ and streams.py lie in the folder where the commands run."""
    for name in ("store", "streams", "fusion", "report"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    epochs = [
        part
        for phase in ("encoder", "aggregator")
        for part in ("--set", f"streams.audio.{phase}_training.epochs=1")
    ]

    def tristream(*arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tristream", *map(str, arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout

    code = "import tristream; print(tristream.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    assert Path(where.strip()).is_relative_to(installed)
    assert tristream("--version").startswith("tristream ")
    tristream("index", "--data", two_classes)
    tristream("train-stream", "audio", "--preset", "workshop", *epochs)
    tristream("embed", code=3)  # broken.mp4
    tristream("fuse")
    found = json.loads(tristream("predict", two_classes / "spin" / "3.mp4", "--json"))
    assert found["predictions"][0]["label"] in ("bounce", "spin")
    detected = json.loads(tristream("detect", two_classes / "spin" / "3.mp4", "--json"))
    assert detected["detections"][0]["anomaly_score"] > 0
