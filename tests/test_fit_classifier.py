"""The classifier's half of `fuse` on planted embeddings: what is in the report, and what is said in words."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from tristream import fit_classifier, settings
from tristream.commands import fuse, screen
from tristream.fused import Fused, Head
from tristream.fusion.action.svm import LinearSVM
from tristream.store.checkpoint import load_artifact
from tristream.workspace import Workspace

WIDTH, CLASSES = 12, tuple(f"class{k}" for k in range(6))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    paper = io.StringIO()
    monkeypatch.setattr(screen, "people", Console(file=paper, soft_wrap=True, width=200))
    return paper


def planted(n: int = 360, *, silent: np.ndarray | None = None, seed: int = 0) -> Fused:
    """Six classes: `sight` tells which pair of classes (3), `sound` which of the two, `noise` nothing."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 6
    blocks = [
        rng.normal(size=(3, WIDTH))[y // 2],
        rng.normal(size=(2, WIDTH))[y % 2],
        np.zeros((n, WIDTH)),
    ]
    X = np.hstack(blocks) + 0.6 * rng.normal(size=(n, 3 * WIDTH))
    columns = {
        name: slice(s * WIDTH, (s + 1) * WIDTH)
        for s, name in enumerate(("sight", "sound", "noise"))
    }
    masks = np.ones((n, 3), dtype=bool)
    if silent is not None:
        masks[silent, 1] = False
        X[silent, columns["sound"]] = np.nan
    logits = {name: 6 * X[:, block][:, :6] for name, block in columns.items()}
    logits["sight"] = 5.0 * (y[:, None] // 2 == np.arange(6) // 2) + rng.normal(size=(n, 6))
    logits["sound"] = np.where(masks[:, [1]], 5.0 * (y[:, None] % 2 == np.arange(6) % 2) + rng.normal(size=(n, 6)),
                               np.nan)  # fmt: skip
    splits = np.array(["train", "train", "val", "test"])[np.arange(n) // 6 % 4]
    rows = [
        SimpleNamespace(video_id=f"v{i}", label=CLASSES[y[i]], split=splits[i], group=f"g{i // 2}", content_id=f"c{i}",
                        anomaly=None)
        for i in range(n)
    ]  # fmt: skip
    heads = {name: Head(CLASSES, found) for name, found in logits.items()}
    return Fused(rows, X, masks, columns, dict.fromkeys(columns, "space"), heads)


def run(folder: Path, fused: Fused, *assignments: str, verbose: bool = False) -> dict:
    chosen = settings.load("light", None, assignments)
    workspace = Workspace(folder, folder, progress=screen.PROGRESS)
    found = fit_classifier.classify(workspace, fused, chosen, 0)
    assert found is not None
    fuse.show_classification(found, verbose=verbose)
    return json.loads(json.dumps(found, allow_nan=False))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fused, dict, Path]:
    """The planted videos, their report, and where it lies."""
    folder, fused = tmp_path_factory.mktemp("plain"), planted()
    return fused, run(folder, fused), folder


def test_a_stream_of_noise_is_no_help_and_the_others_are_worth_what_was_planted(plain) -> None:
    _, report, _ = plain
    top1 = {name: subset["test_top1"]["value"] for name, subset in report["subsets"].items()}
    assert top1["sight"] == pytest.approx(1 / 2, abs=0.12)
    assert top1["sound"] == pytest.approx(1 / 3, abs=0.12)
    assert top1["sight+sound"] >= 0.9
    gains = {(d["more"], d["less"]): d for d in report["differences"]}
    assert len(gains) == 9
    assert gains["sight+sound", "sight"]["low"] > 0.2
    assert (
        gains["sight+sound+noise", "sight+sound"]["low"]
        <= 0
        <= gains["sight+sound+noise", "sight+sound"]["high"]
    )
    assert report["gains"]["noise"]["retrained"]["value"] < 0.1


def test_the_report_agrees_with_itself(plain) -> None:
    fused, report, _ = plain
    cells, matrix = report["predictions"], np.array(report["confusion"]["matrix"])
    hits = np.mean([cell["label"] == cell["predicted"] for cell in cells])
    assert [cell["video_id"] for cell in cells] == fused.of("video_id")[
        fused.of("split") == "test"
    ].tolist()
    assert hits == pytest.approx(report["subsets"]["sight+sound+noise"]["test_top1"]["value"])
    assert np.trace(matrix) / matrix.sum() == pytest.approx(hits)
    assert np.mean([c["accuracy"]["value"] for c in report["per_class"].values()]) == pytest.approx(
        report["subsets"]["sight+sound+noise"]["mean_class"]
    )
    for name, figure in {"softmax": report["softmax"], **report["late"]}.items():
        assert report["minus_svm"][name]["value"] == pytest.approx(figure["value"] - hits)
    for cell in cells:
        assert report["classes"][int(np.argmax(cell["scores"]))] == cell["predicted"]
        assert sum(cell["probabilities"]) == pytest.approx(1, abs=1e-3)
    margins = [video["margin"] for video in report["hardest"]]
    assert margins == sorted(margins)
    for video in report["hardest"]:
        assert (video["margin"] < 0) == (video["label"] != video["predicted"])
        assert video["top"][0]["label"] == video["predicted"]


def test_sound_that_only_some_classes_have_shows_in_the_fourth_view(tmp_path: Path, said) -> None:
    y = np.arange(360) % 6
    report = run(tmp_path, planted(silent=y >= 3))
    views = report["views"]["sound"]
    assert views["n_test_without"] == 45
    assert views["d"]["value"] == pytest.approx(
        1 / 3, abs=0.01
    )  # one class named of three, in either half
    assert views["words"].startswith("which streams a video has already tells its class")
    assert views["b"]["n"] == 45
    assert views["c"]["value"] < views["a"]["value"]
    assert report["views"]["sight"]["d"] is None
    assert "sound is missing from 45 of 90 test videos" in said.getvalue()


def test_silence_at_random_is_no_leak(tmp_path: Path, said) -> None:
    silent = np.random.default_rng(3).random(360) < 0.5
    report = run(tmp_path, planted(silent=silent))
    assert "does not tell its class" in report["views"]["sound"]["words"]
    assert report["views"]["sound"]["b"]["value"] > report["views"]["sound"]["a"]["value"]


def test_late_fusion_is_there_unless_a_stream_knows_other_classes(
    plain, tmp_path: Path, said
) -> None:
    _, report, _ = plain
    assert set(report["late"]) == {"mean", "weighted", "simonyan"}
    assert set(report["heads"]) == {"sight", "sound", "noise"}
    assert report["late_weights"]["noise"] < 0.2
    assert report["late"]["weighted"]["value"] > report["heads"]["sight"]["value"] + 0.2
    other = planted(120)
    other.heads["sound"] = Head((*CLASSES, "more"), np.zeros((120, 7)))
    report = run(tmp_path, other)
    assert report["late"] == {}
    [sentence] = [words for words in report["warnings"] if "no late fusion" in words]
    assert (
        "'sound' was trained to tell 7 classes apart (first: class0), which are not the 6"
        in sentence
    )


def test_what_is_stored_is_what_was_measured(plain) -> None:
    from tristream.fusion.action.classifier import CalibratedSVM

    fused, report, folder = plain
    arrays, config = load_artifact(folder / "fusion/svm")
    machine = CalibratedSVM.from_arrays(arrays, config)
    test = fused.of("split") == "test"
    scores = machine.svm.decision_function(fused.X[test], masks=fused.masks[test])
    assert np.allclose(scores, [cell["scores"] for cell in report["predictions"]], atol=1e-4)
    assert np.allclose(
        machine.probabilities(scores),
        [c["probabilities"] for c in report["predictions"]],
        atol=1e-4,
    )
    assert LinearSVM.from_arrays(arrays, config).classes_.tolist() == report["classes"]
    assert config["spaces"] == fused.spaces


def test_calibration_helps_and_the_reject_option_keeps_its_word(tmp_path: Path, said) -> None:
    report = run(tmp_path, planted(1200, seed=5))
    found = report["calibration"]
    assert found["nll_after"] < found["nll_before"]
    assert found["ece_after"] < found["ece_before"]
    for rule in report["rejection"]:
        assert rule["val_error"] <= rule["max_error"]
        if rule["test_kept"] < 1:
            n_named = rule["test_kept"] * len(report["predictions"])
            assert rule["test_error"] <= rule["max_error"] + 2 * np.sqrt(
                rule["max_error"] / n_named
            )


def test_without_validation_videos_there_are_no_probabilities_and_that_is_said(
    tmp_path: Path, said
) -> None:
    fused = planted(120)
    for row in fused.rows:
        row.split = "train" if row.split == "val" else row.split
    report = run(tmp_path, fused)
    assert report["calibration"] is None
    assert report["rejection"] == []
    assert "probabilities" not in report["predictions"][0]
    assert any(
        "no labelled validation video: margins stay margins" in words
        for words in report["warnings"]
    )


def test_the_screen_holds_one_table_and_verbose_the_rest(tmp_path: Path, said) -> None:
    run(tmp_path, planted(120))
    brief = said.getvalue()
    assert brief.count("┏") == 1
    assert "beside the SVM's" in brief
    run(tmp_path, planted(120), verbose=True)
    full = said.getvalue()[len(brief) :]
    for title in (
        "Confused most often",
        "Hardest test videos",
        "Each class",
        "One stream more",
        "Baselines of the SVM",
    ):
        assert title in full


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (
            ["fusion.select=grouped_cv", "fusion.reading=keras"],
            "chooses l2 in the reading mean_hinge; reading is ker",
        ),
        (["fusion.stream_dropout=1"], "stream_dropout = 1"),
        (["fusion.select=best"], "select = 'best'"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, said, assignments: list[str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(tmp_path, planted(24), *assignments)


def test_l2_by_cross_validation_is_reported_for_each_subset(tmp_path: Path, said) -> None:
    whole = planted(96)
    columns = {name: whole.columns[name] for name in ("sight", "sound")}
    fused = Fused(
        whole.rows,
        whole.X[:, : 2 * WIDTH],
        whole.masks[:, :2],
        columns,
        dict.fromkeys(columns, "space"),
    )
    report = run(tmp_path, fused, "fusion.select=grouped_cv")
    assert {subset["l2"] for subset in report["subsets"].values()} <= {1e-4, 1e-3, 1e-2, 1e-1, 1.0}
    assert report["l2"] == report["subsets"]["sight+sound"]["l2"]
    assert report["late"] == report["heads"] == {}  # no stream has said what it decides alone
