"""Normal videos of a split, and anomalies of the test split."""

from __future__ import annotations

from pathlib import Path

import pytest

from tristream.dataset.manifest import VideoRow
from tristream.errors import UsageError
from tristream.fit_detector import normal_labels, normal_rows, truth_of_test
from tristream.progress import Silent


def row(name: str, split: str, anomaly: int | None = None, label: str = "") -> VideoRow:
    return VideoRow(
        video_id=name,
        path=Path(name),
        label=label,
        split=split,
        group=name,
        anomaly=anomaly,
        fold="",
        content_id=name,
    )


class Notes(Silent):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, sentence: str) -> None:
        self.lines.append(sentence)


def ids(rows: list[VideoRow], normal: list[str] | None, split: str) -> list[str]:
    return [rows[n].video_id for n in normal_rows(rows, normal, split)[0]]


def test_a_validation_video_with_anomaly_1_is_not_normal_though_training_videos_have_no_value() -> (
    None
):
    rows = [row("a", "train"), row("b", "val", 1), row("c", "val", 0), row("d", "val")]
    assert ids(rows, None, "train") == ["a"]
    assert ids(rows, None, "val") == ["c", "d"]


def test_a_normal_label_does_not_make_a_video_with_anomaly_1_normal() -> None:
    rows = [
        row("a", "train", None, "walk"),
        row("b", "train", 1, "walk"),
        row("c", "train", 0, "run"),
    ]
    assert ids(rows, ["walk"], "train") == ["a"]


@pytest.mark.parametrize(
    ("normal", "labels"),
    [
        (["sit,walk"], ["sit", "walk"]),
        (["sit, walk", "run"], ["sit, walk", "run"]),
        (["run,sit, walk"], ["run", "sit, walk"]),
        (["walk,", "walk"], ["walk"]),
    ],
)
def test_a_label_with_commas_is_taken_whole_and_the_option_may_be_repeated(
    normal: list[str], labels: list[str]
) -> None:
    rows = [row(label, "train", None, label) for label in ("sit", "walk", "run", "sit, walk")]
    assert normal_labels(rows, normal) == labels
    with pytest.raises(UsageError, match="no video has the label 'jump'; there are run, sit"):
        normal_labels(rows, ["sit,jump"])


def test_without_a_column_anomaly_other_test_classes_are_the_anomalies_and_it_is_reported_once() -> (
    None
):
    rows = [
        row("a", "train", None, "walk"),
        row("b", "test", None, "walk"),
        row("c", "test", None, "run"),
    ]
    rows += [row("d", "test")]
    progress = Notes()
    assert truth_of_test(rows, ["walk"], progress) == {"b": False, "c": True}
    assert "1 test videos of labels other than walk count as anomalies" in progress.lines.pop()
    assert truth_of_test(rows, None, progress) == {}
    rows += [row("e", "test", 1, "walk")]  # the column says something: it alone counts
    assert truth_of_test(rows, ["walk"], progress) == {"e": True}
    assert not progress.lines
