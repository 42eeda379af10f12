"""Fixtures of several test files: videos in memory, and untrained streams."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from beartype import BeartypeConf, beartype
from hypothesis import settings
from jaxtyping import install_import_hook

HOME = Path(__file__).parents[1]

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # before torch is imported, as the front door does

settings.register_profile("shared machines", deadline=None)  # a timed assertion is not a test
settings.load_profile("shared machines")

# Types and shapes in the signatures of these rooms are checked while the tests run; an int is a float.
_checks = types.ModuleType("checked_signatures")
_checks.check = beartype(conf=BeartypeConf(is_pep484_tower=True))
sys.modules[_checks.__name__] = _checks
rooms = ("dataset", "media", "flow", "fusion", "streams", "workshop")
install_import_hook([f"tristream.{room}" for room in rooms], "checked_signatures.check")


def _needs_an_absent_stream(file: Path) -> bool:
    """True if a test file imports from a missing folder of `streams/`."""
    imported = re.findall(
        r"^\s*(?:from|import) tristream\.streams\.(\w+)",
        file.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    there = {path.stem for path in (HOME / "streams").iterdir()}
    return not there.issuperset(imported)


collect_ignore = [
    file.name for file in Path(__file__).parent.glob("test_*.py") if _needs_an_absent_stream(file)
]


def _toy_video(
    n_frames=40,
    *,
    seed=0,
    fps=25.0,
    side=64,
    silent=False,
    blind=False,
    reasons=(),
    sound_starts=0.0,
):
    """A decoded video that no file stands for: a texture that drifts faster and faster, and a rising tone in noise."""
    from tristream.media.decode import DecodedVideo

    generator = np.random.default_rng(seed)
    texture = np.kron(
        generator.integers(40, 215, (side // 4, side // 4, 3)), np.ones((4, 4, 1))
    ).astype(np.uint8)
    offsets = np.cumsum(
        generator.uniform(0, 2.5, (n_frames, 2)) * np.linspace(0.2, 1, n_frames)[:, None], axis=0
    )
    frames = np.stack([np.roll(texture, offset.astype(int), (0, 1)) for offset in offsets])
    times = np.arange(n_frames + 1) / fps
    seconds = np.arange(round(16_000 * n_frames / fps)) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * generator.uniform(200, 2000) * (1 + seconds) * seconds)
    samples = (tone + 0.05 * generator.normal(size=len(tone))).astype(np.float32)
    missing = [reason for reason, is_so in (("no_audio", silent), ("no_video", blind)) if is_so]
    return DecodedVideo(
        frames=None if blind else frames,
        start_seconds=times[:0] if blind else times[:-1],
        stop_seconds=times[:0] if blind else times[1:],
        suspect=np.zeros(0 if blind else n_frames, bool),
        samples=None if silent else samples,
        samples_start_seconds=sound_starts,
        samples_stop_seconds=0.0 if silent else sound_starts + len(samples) / 16_000,
        reasons=tuple(sorted([*reasons, *missing])),
        source_height=side,
        source_width=side,
        source_fps=fps,
        n_declared_frames=n_frames,
        n_decoded_frames=n_frames,
        n_decode_errors=0,
    )


@pytest.fixture(scope="session")
def toy_video():
    """(n_frames, …) → DecodedVideo."""
    return _toy_video


@pytest.fixture(scope="session")
def workshop_settings():
    """Settings of the smallest preset, for every stream there is."""
    from tristream import settings, streams

    return settings.load("workshop", stream_names=streams.names())


@pytest.fixture(scope="session")
def untrained(workshop_settings):
    """(name of a stream, …) → TrainedStream with random weights that follow from the seed."""
    import torch

    from tristream import streams
    from tristream.streams import model

    def make(name, *, seed=0, classes=("a", "b", "c"), config=None, sampler=None):
        stream = streams.load(
            name,
            config or workshop_settings.streams[name],
            sampler or workshop_settings.sampler,
        )
        torch.manual_seed(seed)
        network = model.build_model(stream, len(classes)).eval()
        return model.TrainedStream(
            stream=stream,
            data=workshop_settings.data,
            classes=tuple(classes),
            model=network,
            checksums=model.Checksums.of(network),
            lineage={"seed": seed},
        )

    return make


@pytest.fixture
def no_network(monkeypatch):
    """Every way out leads to a port of this machine where nobody listens."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


@pytest.fixture
def make_videos(workshop_settings):
    """(video_id → DecodedVideo or an error, cache, …) → Videos and the list of paths that were decoded."""
    import hashlib

    import cv2

    from tristream.streams.video import FlowSource, Video, View

    cv2.setNumThreads(1)  # as the commands do

    def make(files, cache, *, content=None, sampler=None, data=None, flow_from=None):
        decoded = []

        def decode(path, *, pictures, sound, max_side, stop_seconds):
            decoded.append(path.name)
            found = files[path.name]
            if isinstance(found, Exception):
                raise found
            return found

        content = content or {}
        videos = [
            Video(
                name,
                Path("/data") / name,
                content.get(name, hashlib.sha256(name.encode()).hexdigest()),
                decode=decode,
                cache=cache,
                view=View(data or workshop_settings.data, sampler or workshop_settings.sampler),
                flow_source=FlowSource(folder=flow_from),
            )
            for name in files
        ]
        return videos, decoded

    return make


class CommandLine:
    """The command line in a folder, as a user types it there."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys

    def __call__(self, *arguments, code=0):
        """Run it, checks the exit code, and returns stdout; stderr is in `said`."""
        self._capsys.readouterr()
        found = _tristream(self.folder, self._monkeypatch, arguments)
        out, self.said = self._capsys.readouterr()
        assert found == code, self.said
        return out

    def json(self, *arguments, code=0):
        """Return the result of --json."""
        return json.loads(self(*arguments, "--json", code=code))


def _tristream(folder, monkeypatch, arguments):
    import orchestrate

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["tristream", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        orchestrate.main()
    return end.value.code or 0


@pytest.fixture
def command_line(monkeypatch, capsys):
    """(folder) → the command line in it."""
    return lambda folder: CommandLine(folder, monkeypatch, capsys)


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory):
    """A folder of two classes of ten clips; the first of each is silent, and one file is broken."""
    from tristream.media.encode import write_video
    from tristream.workshop.clips import FPS, Recipe, make_clip

    folder = tmp_path_factory.mktemp("data")
    for label, motion, sound in (("bounce", "bounce", "impact"), ("spin", "spin", "hum")):
        for index in range(10):
            clip = make_clip(Recipe(motions=(motion,), sound=sound), f"{label}-{index}")
            (folder / label).mkdir(exist_ok=True)
            samples = clip.samples[: 16_000 * 30 // 25] if index else None
            write_video(folder / label / f"{index}.mp4", clip.frames[:30], fps=FPS, samples=samples)
    (folder / "spin" / "broken.mp4").write_bytes(b"<html>404</html>")
    return folder


@pytest.fixture(scope="session")
def quick():
    """(name of a stream) → options of a training of one epoch a phase."""
    phases = ("encoder_training", "aggregator_training")
    options = ["--preset", "workshop", "--deterministic", "--set", "sampler.n_samples=4"]
    return lambda name: [
        *options, *(word for phase in phases for word in ("--set", f"streams.{name}.{phase}.epochs=1"))
    ]  # fmt: skip


@pytest.fixture(scope="session")
def trained_run(two_classes, quick, tmp_path_factory):
    """A folder with runs/default: `two_classes` indexed, trained, embedded, fused. Copy it before changing it."""
    from tristream import streams

    folder = tmp_path_factory.mktemp("trained")
    patch = pytest.MonkeyPatch()
    try:
        for arguments in (
            ["index", "--data", two_classes],
            *(["train-stream", name, *quick(name)] for name in streams.names()),
            ["embed"],
            ["fuse"],
        ):
            assert _tristream(folder, patch, arguments) in (0, 3), arguments
    finally:
        patch.undo()
    return folder


# A shell starts background jobs with SIGINT ignored, and children inherit it: tests of interrupts need Python's own.
signal.signal(signal.SIGINT, signal.default_int_handler)
