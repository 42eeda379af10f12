"""Cross-validation: every video is tested once, groups stay whole, finished folds are not repeated."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tristream import cross_validate as module
from tristream.cross_validate import CrossValidateOptions, cross_validate
from tristream.dataset.manifest import Manifest, VideoRow, read_manifest, write_manifest
from tristream.errors import UsageError
from tristream.workspace import Workspace


def row(label: str, group: int, n: int, fold: str = "") -> VideoRow:
    name = f"{label}/{group}-{n}.mp4"
    return VideoRow(video_id=name, path=Path("/data") / name, label=label, split="train",
                    group=f"{label}{group}", anomaly=None, fold=fold, content_id=f"{label}{group}{n}")  # fmt: skip


@pytest.fixture
def workspace(tmp_path):
    """A run of two classes with ten groups of three videos each, and one video without a label."""
    rows = [row(label, group, n, str(group % 3 + 1))
            for label in ("a", "b") for group in range(10) for n in range(3)]  # fmt: skip
    rows.append(dataclasses.replace(row("x", 0, 0), label="", split="unlabelled"))
    made = Workspace(tmp_path / "run", tmp_path / "cache")
    write_manifest(Manifest(Path("/data"), tuple(rows)), made.manifest_path)
    return made


@pytest.fixture
def calls(monkeypatch):
    """Training, embedding and fusion that only count; every third test video is wrong."""
    counts: Counter = Counter()

    class Trained:
        space_id = "space"

    def train(fold, stream, options, **_):
        counts[f"train {stream}"] += 1
        return Trained

    def fuse(fold, options):
        counts["fuse"] += 1
        test = [r for r in read_manifest(fold.manifest_path).rows if r.split == "test"]
        predictions = [
            {"video_id": r.video_id, "label": r.label, "predicted": "?" if r.video_id.endswith("-2.mp4") else r.label}
            for r in test
        ]  # fmt: skip
        subsets = {
            "audio": {"test_top1": {"value": 0.5}},
            "audio+spatial": {"test_top1": {"value": 2 / 3}},
        }
        return {"classification": {"predictions": predictions, "subsets": subsets}}

    monkeypatch.setattr(module, "train_stream", train)
    monkeypatch.setattr(module, "embed", lambda fold, options: counts.update(["embed"]))
    monkeypatch.setattr(module, "fuse", fuse)
    return counts


def splits_of(workspace: Workspace, name: str) -> dict[str, list[VideoRow]]:
    rows = read_manifest(workspace.folder / "folds" / name / "videos.csv").rows
    return {part: [r for r in rows if r.split == part] for part in ("train", "val", "test")}


def test_every_labelled_video_is_tested_once_and_no_group_is_on_two_sides(workspace, calls):
    result = cross_validate(workspace, CrossValidateOptions(4))
    tested = Counter()
    for name in ("1", "2", "3", "4"):
        splits = splits_of(workspace, name)
        groups = {part: {r.group for r in rows} for part, rows in splits.items()}
        assert all(groups.values())
        assert not groups["train"] & groups["val"]
        assert not (groups["train"] | groups["val"]) & groups["test"]
        assert {r.label for r in splits["test"]} == {"a", "b"}, "classes are spread evenly"
        tested.update(r.video_id for r in splits["test"])
    assert set(tested.values()) == {1}
    assert len(tested) == 60
    assert (calls["fuse"], calls["embed"], calls["train audio"]) == (4, 4, 4)
    assert [fold["n_test"] for fold in result["folds"]] == [
        len(splits_of(workspace, n)["test"]) for n in "1234"
    ]
    assert result["mean"] == pytest.approx(2 / 3)
    assert result["standard_deviation"] == pytest.approx(0)
    pooled = result["pooled"]
    assert (pooled["value"], pooled["n"], pooled["n_groups"]) == (pytest.approx(2 / 3), 60, 20)
    assert pooled["low"] < 2 / 3 < pooled["high"]
    stored = json.loads((workspace.folder / "cross_validation.json").read_text())
    assert stored == json.loads(json.dumps(result))


def test_finished_folds_are_resumed_and_other_settings_are_not(workspace, calls):
    first = cross_validate(workspace, CrossValidateOptions(3))
    shutil.rmtree(workspace.folder / "folds" / "2")
    assert cross_validate(workspace, CrossValidateOptions(3)) == first
    assert calls["fuse"] == 4
    train = dataclasses.replace(CrossValidateOptions().train, seed=1)
    cross_validate(workspace, CrossValidateOptions(3, train=train))
    assert calls["fuse"] == 7
    cross_validate(workspace, CrossValidateOptions(3, train=dataclasses.replace(train, force=True)))
    assert calls["fuse"] == 10


def test_the_folds_of_a_column_are_taken_as_they_are(workspace, calls):
    result = cross_validate(workspace, CrossValidateOptions(by_fold=True, streams=["audio"]))
    assert [fold["name"] for fold in result["folds"]] == ["1", "2", "3"]
    assert {r.fold for r in splits_of(workspace, "2")["test"]} == {"2"}
    assert "2" not in {r.fold for r in splits_of(workspace, "2")["train"]}
    assert set(calls) == {"train audio", "embed", "fuse"}


def test_folds_that_cannot_be_made_are_refused(workspace, calls):
    with pytest.raises(UsageError, match="--folds 21: the 60 labelled videos have 20 groups"):
        cross_validate(workspace, CrossValidateOptions(21))
    manifest = read_manifest(workspace.manifest_path)
    rows = tuple(
        dataclasses.replace(r, fold="" if r.video_id == "a/0-0.mp4" else r.fold)
        for r in manifest.rows
    )
    write_manifest(Manifest(manifest.root, rows), workspace.manifest_path)
    with pytest.raises(UsageError, match="1 of 60 labelled videos have no fold"):
        cross_validate(workspace, CrossValidateOptions(by_fold=True))
    rows = tuple(dataclasses.replace(r, fold="1") for r in manifest.rows)
    write_manifest(Manifest(manifest.root, rows), workspace.manifest_path)
    with pytest.raises(UsageError, match="one fold; --by fold needs at least two folds"):
        cross_validate(workspace, CrossValidateOptions(by_fold=True))
    assert not calls


def test_a_fold_with_a_name_of_a_path_stays_inside_the_folder():
    names = ["1", "a/b", "..", "../x", "a b", "a_b", ""]
    folders = [module._folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert not any("/" in folder or folder.startswith(".") for folder in folders)
    assert folders[0] == "1"


@pytest.mark.slow
def test_the_command_prints_a_row_per_fold_and_resumes(two_classes, quick, tmp_path, command_line):
    line = command_line(tmp_path)
    line("index", "--data", two_classes)
    options = ["--folds", "2", "--streams", "audio", *quick("audio")]
    result = line.json("cross-validate", *options)
    assert [fold["name"] for fold in result["folds"]] == ["1", "2"]
    assert sum(fold["n_test"] for fold in result["folds"]) == 21 - 3  # one broken, two silent
    assert "all streams on all" in line.said
    again = line.json("cross-validate", *options)
    assert again == result
    assert "fold 2 is finished already" in line.said
    assert line("show", "runs/default/folds/1").count("[x]") >= 3
