"""The paper's own pipeline, whole, on rendered videos in place of UCF101 and random weights in that of pretrained."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tristream import streams
from tristream.workshop import ucf101

HOME = Path(__file__).parents[1]
# The networks are the paper's; what is cut short is how often and at what size they look.
SHORT = {
    "sampler.n_samples": 2, "sampler.max_side_px": 64, "streams.temporal.estimate_size": "[64,64]",
    "streams.temporal.encode_batch_size": 8, "streams.spatial.encode_batch_size": 8,
    "streams.temporal.encoder_training.epochs": 1, "streams.temporal.encoder_training.batch_size": 4,
    **{f"streams.{name}.aggregator_training.epochs": 2 for name in ("spatial", "temporal", "audio")},
}  # fmt: skip


def tristream(*arguments):
    command = [sys.executable, "orchestrate.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(
    set(streams.names()) != {"audio", "spatial", "temporal"},
    reason="needs the paper's three streams",
)
def test_the_paper_is_rehearsed_from_official_lists_to_the_svm(tmp_path, monkeypatch):
    if importlib.util.find_spec("ptlflow") is None:
        pytest.skip("needs the extra 'flow'")
    monkeypatch.setattr(ucf101, "TRAIN_GROUPS", (8, 9))
    monkeypatch.setattr(ucf101, "TEST_GROUPS", (1,))
    monkeypatch.setattr(ucf101, "N_CLIPS", 1)
    monkeypatch.setattr(ucf101, "CLASSES", dict(list(ucf101.CLASSES.items())[:2]))
    lists = ucf101.render(tmp_path / "UCF-101", n_workers=1)
    run, cache = tmp_path / "run", tmp_path / "cache"
    tristream("index", "--data", tmp_path / "UCF-101", "--ucf101", lists, "--run", run)
    common = ["--run", run, "--cache", cache, "--workers", 1]
    short = [part for key, value in SHORT.items() for part in ("--set", f"{key}={value}")]
    for name in ("temporal", "spatial", "audio"):
        done = tristream(
            "train-stream", name, *common, "--preset", "paper", "--random-weights", 0, *short
        )
        assert "random weights (seed 0) in place of pretrained ones" in " ".join(
            done.stderr.split()
        )
        stored = json.loads((run / "streams" / name / "config.json").read_text(encoding="utf-8"))
        assert stored["lineage"]["random_weights"] == 0
    n_cached = len(list((cache / "segments").glob("*/*")))
    assert n_cached == 2 * 4, (
        "what the two frozen encoders made of the 4 training and validation videos"
    )
    report = json.loads(tristream("embed", *common, "--json").stdout)
    assert report["present"] == {"audio": 6, "spatial": 6, "temporal": 6}
    assert len(list((cache / "segments").glob("*/*"))) == 3 * 6, "those were not made again"
    done = tristream("fuse", "--run", run, "--preset", "paper", "--json")
    assert json.loads(done.stdout)["random_weights"] == {"audio": 0, "spatial": 0, "temporal": 0}
    assert " ".join(done.stderr.split()).count("whose figures mean nothing") == 3
    widths = {
        name: json.loads((run / "streams" / name / "config.json").read_text())["config"][
            "aggregator"
        ]["hidden_dim"]
        for name in streams.names()
    }
    assert widths == {"audio": 512, "spatial": 512, "temporal": 512}
