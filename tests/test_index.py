"""`tristream index` on folders and lists that are not as expected: printed sentences and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

HOME = Path(__file__).parents[1]


def tone(path: Path, n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.3 * np.sin(2 * np.pi * (200 + 10 * n) * np.arange(8000) / 16000)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def tristream(*arguments: object) -> tuple[int, dict, str]:
    command = [sys.executable, "orchestrate.py", *map(str, arguments), "--workers", "1", "--json"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Split folders as annotation services export them, with files of other kinds."""
    names = [(split, label) for split in ("train", "valid", "test") for label in ("walk", "sit")]
    for i, (split, label) in enumerate(names):
        for k in range(2):
            tone(tmp_path / "data" / split / label / f"{split}{k}.wav", 2 * i + k)
    (tmp_path / "data/README.txt").write_text("notes")
    (tmp_path / "data/train/sit/frames.xyz").write_text("unknown")
    return tmp_path / "data"


def test_exported_split_folders_keep_their_labels_and_the_account_is_that_of_check(exported):
    code, result, errors = tristream("index", "--data", exported, "--run", exported.parent / "run")
    assert (code, result["classes"]) == (0, ["sit", "walk"])
    assert result["splits"] == {"test": 4, "train": 4, "val": 4}
    assert result["warnings"] == ["splits by folder: 'valid' is val"]
    account = "skipped 2 entries that are no media files: 1 .txt, 1 .xyz"
    assert account in errors
    code, checked, errors = tristream("check", exported)
    assert account in errors
    assert len(checked["files"]) == result["n_videos"] == 12
    assert checked["skipped"] == result["skipped"] == {".txt": 1, ".xyz": 1}


def test_an_unclear_split_folder_is_exit_two_and_named(exported):
    (exported / "valid").rename(exported / "eval")
    code, _, errors = tristream("index", "--data", exported, "--run", exported.parent / "run")
    assert (code, "'eval' cannot be read as train, val or test" in errors) == (2, True)
    assert not (exported.parent / "run/videos.csv").exists()


def test_a_fold_column_and_files_outside_the_list_are_reported(exported):
    rows = [
        f"train/{label}/train{k}.wav;{label};{k}" for label in ("walk", "sit") for k in range(2)
    ]
    source = exported / "list.csv"
    source.write_text("\n".join(["Path;Label;Fold", *rows]))
    run = exported.parent / "run"
    code, result, errors = tristream("index", "--data", exported, "--list", source, "--run", run)
    assert (code, result["n_videos"], result["folds"]) == (0, 4, ["0", "1"])
    assert "the column fold has 2 values (0, 1) and was not used for these splits" in errors
    assert f"8 media files are below {exported} but not in the list" in errors
    assert result["n_unlisted"] == 8
    code, _, errors = tristream(
        "index", "--data", exported, "--list", source, "--run", run, "--test-fold", "1"
    )
    assert "fold 1 is test" in errors
