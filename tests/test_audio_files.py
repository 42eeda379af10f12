"""Folders of sound files, no pictures anywhere: indexed, learned and embedded by the audio stream."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest

import orchestrate
from tristream.store import embeddings
from tristream.streams.audio.logmel import SAMPLE_RATE

FILES = {"wav": "pcm_s16le", "flac": "flac", "ogg": "libopus", "mp3": "libmp3lame", "m4a": "aac"}
PITCHES = {"low": 300.0, "high": 2500.0}
RATE = 48_000


def write(path: Path, hertz: float, seed: int, seconds: float = 1.5) -> None:
    """A warbling tone in noise, in stereo."""
    generator = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    sound = 0.3 * np.sin(
        2 * np.pi * hertz * generator.uniform(0.9, 1.1) * t
    ) + 0.02 * generator.normal(size=len(t))
    with av.open(str(path), "w") as container:
        track = container.add_stream(FILES[path.suffix[1:]], rate=RATE, layout="stereo")
        interleaved = np.repeat(sound.astype(np.float32), 2)[None]
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        resampler = av.AudioResampler(
            format=track.codec_context.format,
            layout="stereo",
            rate=RATE,
            frame_size=track.frame_size or 1024,
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(track.encode(piece))
        container.mux(track.encode())


@pytest.fixture
def tristream(tmp_path, monkeypatch, capsys):
    def run(*arguments: object, code: int = 0) -> dict:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["tristream", *map(str, arguments), "--json"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            orchestrate.main()
        out, said = capsys.readouterr()
        assert (end.value.code or 0) == code, said
        return json.loads(out)

    return run


@pytest.mark.slow
def test_folders_of_sound_files_go_all_the_way(tmp_path, tristream):
    for label, hertz in PITCHES.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(10):
            suffix = list(FILES)[i % len(FILES)]
            write(tmp_path / "data" / label / f"{i}.{suffix}", hertz, seed=i)
    found = tristream("index", "--data", "data")
    assert found["n_videos"] == found["n_with_sound"] == 20
    quick = [f"streams.audio.{phase}_training.epochs=8" for phase in ("encoder", "aggregator")]
    options = [word for assignment in quick for word in ("--set", assignment)]
    assert tristream("train-stream", "audio", "--preset", "workshop", *options)["trained"]
    embedded = tristream("embed")
    assert (embedded["ok"], embedded["present"]) == (20, {"audio": 20})
    [part] = (tmp_path / "runs/default/embeddings/audio").glob("*/part-*.parquet")
    table = embeddings.read(part.parent)
    with (tmp_path / "runs/default/videos.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    suffixes = {Path(row["path"]).suffix[1:] for row in rows.values()}
    assert suffixes == FILES.keys()
    labels = np.array([Path(video_id).parts[0] for video_id in table.video_id])
    train = np.array(
        [
            next(r for p, r in rows.items() if p.endswith(v))["split"] == "train"
            for v in table.video_id
        ]
    )
    centres = {label: table.embedding[train & (labels == label)].mean(axis=0) for label in PITCHES}
    for values, label in zip(table.embedding[~train], labels[~train], strict=True):
        distances = {name: np.linalg.norm(values - centre) for name, centre in centres.items()}
        assert min(distances, key=distances.__getitem__) == label
    assert table.start_seconds == pytest.approx(0, abs=0.03)
    assert SAMPLE_RATE < RATE
