"""Problems planted for `doctor`: another FFmpeg, two OpenCVs, a foreign package under our name."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import types
from pathlib import Path

import pytest
import typer

from tristream.commands import doctor
from tristream.media import ffmpeg


def library(folder: Path, name: str, version: bytes | None) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    said = b"" if version is None else b"FFmpeg version " + version + b"\0"
    path.write_bytes(b"\x7fELF" + bytes(100) + said + bytes(100))


def test_every_bundled_ffmpeg_is_found_with_its_version(tmp_path):
    library(tmp_path, "av.libs/libavcodec-46.so.62.28.102", b"8.1.2")
    library(tmp_path, "opencv_python.libs/libavcodec-15.so.62", b"n7.0.1-3-gabc")
    library(tmp_path, "decord/libavcodec.so.58", None)
    library(tmp_path, "cv2/.dylibs/libavcodec.61.dylib", b"7.1")
    library(tmp_path, "pillow.libs/libavif-c6.so.16", b"1.0")  # pictures, no FFmpeg
    library(tmp_path, "notes/avcodec.txt", b"1.0")
    assert sorted(ffmpeg.bundled_copies([tmp_path, tmp_path / "none"])) == [
        (".dylibs/libavcodec.61.dylib", "7.1"),
        ("av.libs/libavcodec-46.so.62.28.102", "8.1.2"),
        ("decord/libavcodec.so.58", ""),
        ("opencv_python.libs/libavcodec-15.so.62", "n7.0.1-3-gabc"),
    ]


def test_an_old_copy_that_decodes_nothing_is_information_only(monkeypatch, tmp_path):
    library(tmp_path, "opencv_python.libs/libavcodec-15.so.62", b"8.1.1")
    library(tmp_path, "av.libs/libavcodec-46.so.62", b"8.1.2")
    library(tmp_path, "decord/libavcodec.so.58", None)
    monkeypatch.setattr("site.getsitepackages", lambda: [str(tmp_path)])
    assert sorted(version for _, version in doctor._copies()) == [
        "8.1.1 (old, with known vulnerabilities; it decodes nothing here)",
        "8.1.2",
        "unknown version",
    ]


def installed(*names: str):
    return lambda: [types.SimpleNamespace(metadata={"Name": name}) for name in names]


@pytest.mark.parametrize("names", [("numpy", "opencv-python"), ("OpenCV-Python-headless",)])
def test_one_opencv_is_well(monkeypatch, names):
    monkeypatch.setattr(importlib.metadata, "distributions", installed(*names))
    assert doctor._two_opencvs() == []


def test_two_opencvs_are_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr(
        importlib.metadata, "distributions", installed("OpenCV-Python", "opencv-python-headless")
    )
    assert doctor._two_opencvs() == [
        "opencv-python and opencv-python-headless overwrite each other's files; keep one: pip uninstall opencv-python "
        "opencv-python-headless && pip install opencv-python"
    ]


def test_this_environment_fits_and_is_loaded():
    assert doctor._unfit() == []
    assert doctor._not_loaded() == []


def test_a_package_of_another_version_or_none_is_named_with_what_to_do(monkeypatch):
    wanted = ["av<19,>=18", "numpy>=2", "absent-one>=3", "opencv-python<5,>=4.11", 'ptlflow>=99; extra == "flow"',
              'absent-two>=1; extra == "flow"', 'pytest>=99; extra == "dev"', "torch>=2.10"]  # fmt: skip
    there = {"av": "19.0.2", "numpy": "2.4.6", "ptlflow": "0.4.2", "pytest": "8", "torch": "2.10.0a0+b4e4ee81d3",
             "opencv-python": "4.5.1"}  # fmt: skip
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(doctor, "version_of", there.get)
    assert doctor._unfit() == [
        "av 19.0.2 is installed; tristream needs <19,>=18: pip install 'av<19,>=18'",
        "absent-one is not installed: pip install 'absent-one>=3'",
        "opencv-python 4.5.1 is installed; tristream needs <5,>=4.11: pip install 'opencv-python<5,>=4.11'",
        "ptlflow 0.4.2 is installed; tristream needs >=99: pip install 'ptlflow>=99'",
    ]


def test_a_library_that_does_not_load_is_named(monkeypatch):
    def load(name):
        if name == "cv2":
            raise ImportError(
                "libxcb.so.1: cannot open shared object file: No such file or directory"
            )
        if name == "av":
            raise ImportError("no such symbol")

        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", load)
    opencv, av, torchvision = doctor._not_loaded()
    assert opencv.startswith("OpenCV cannot be loaded: this system lacks libxcb.so.1")
    assert "pip install opencv-python-headless" in opencv
    assert av == "av cannot be imported: no such symbol"
    assert torchvision == "torchvision cannot be imported: operator torchvision::nms does not exist"


def test_a_foreign_package_in_our_folder_is_named(monkeypatch):
    owners = {"tristream": ["tristream", "tri-stream-js"], "fusion": ["fusion-js"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    [problem] = doctor._foreign()
    assert problem.startswith("the package 'tri-stream-js' installs into the folder 'tristream'")
    assert "pip uninstall tri-stream-js" in problem
    owners["tristream"] = ["tristream", "Tristream"]
    assert doctor._foreign() == []


def test_a_package_of_our_name_from_elsewhere_is_named(monkeypatch, tmp_path):
    spec = types.SimpleNamespace(origin=str(tmp_path / "tristream/__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    [problem] = doctor._elsewhere()
    assert problem.startswith(
        f"'tristream' is imported from {tmp_path / 'tristream'}, but this command from {doctor.HOME}"
    )
    for root in (tmp_path / "tristream", tmp_path):  # installed; a checkout
        monkeypatch.setattr(doctor, "HOME", root)
        assert doctor._elsewhere() == []


def test_an_extra_that_is_absent_says_what_it_would_add_and_how(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert (
        doctor._extras()["fast"]
        == "absent; pip install 'tristream[fast]' adds OpenVINO on Intel CPUs"
    )


def test_extras_are_those_of_the_project():
    import tomllib

    about = tomllib.loads((doctor.HOME / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert doctor.EXTRAS.keys() == about.keys() - {"all", "dev"}


def test_an_old_decoder_ends_doctor_with_four(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tristream.media.ffmpeg.MIN_FFMPEG", (99,))
    monkeypatch.setattr("tristream.media.sandbox.pool.isolation", dict)
    with pytest.raises(typer.Exit) as stopped:
        doctor.run(cache=tmp_path, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert stopped.value.exit_code == 4
    assert len(found["problems"]) == 1
    assert "it must be 99 or newer: pip install -U av" in found["problems"][0]
    assert found["facts"]["extra fast"]
    assert found["facts"]["weights here"].startswith("none")
