"""The report: what was found stands on the page, names do no harm, a real browser draws it without a network."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tristream.dataset.manifest import Manifest, VideoRow, write_manifest
from tristream.fusion.intervals import Estimate
from tristream.media.encode import write_video
from tristream.report import (
    collect,
    figures,
    links,
    page,
    palette,
    plots,
    projection,
    thumbnails,
    verdict,
)
from tristream.report.charts import Curves, Line
from tristream.store import embeddings
from tristream.store.embeddings import EmbeddingTable

HOSTILE = "wood/<script>alert(1)</script >\nnext\x1b[31mred.mp4"
CLASSES = ("bounce", "spin", "wood & <i>metal</i>")
STREAMS = ("audio", "spatial")
FPS = 10.0


def _estimate(value, half=0.05, n=12):
    return {"value": value, "low": value - half, "high": value + half, "n": n, "n_groups": n}


def _rows(root):
    """Six videos of each class and split; the last has a name that means harm."""
    rows = []
    for k, label in enumerate(CLASSES):
        for split in ("train", "val", "test"):
            for i in range(6):
                name = f"{k}/{split}_{i}.mp4"
                rows.append(_row(root, name, label, split))
    rows[-1] = _row(root, HOSTILE, CLASSES[-1], "test")
    return rows


def _row(root, name, label, split):
    return VideoRow(video_id=name, path=root / name, label=label, split=split, group=name, anomaly=None, fold="",
                    content_id="0" * 64, duration_seconds=2.0, has_audio=True)  # fmt: skip


def _metrics(name):
    """Two phases; the validation loss is lowest in the second epoch of each."""
    lines = []
    for phase, n in (("encoder", 3), ("aggregator", 5)):
        for epoch in range(1, n + 1):
            curves = {"loss": 2 / epoch, "accuracy": epoch / 10, "val_loss": abs(epoch - 2.0) + 1}
            lines.append(
                {"phase": f"{name}-{phase}", "epoch": epoch, **curves, "val_accuracy": epoch / 20}
            )
    return "".join(json.dumps(line) + "\n" for line in lines)


DECISIONS = {
    "streams": list(STREAMS),
    "n_videos": 54,
    "spaces": dict.fromkeys(STREAMS, "5" * 16),
    "leaks": ["group 'kitchen <b>7</b>' is in train and in test"],
    "classification": {
        "C": 1.0,
        "subsets": {
            "audio": {"train_top1": 0.91, "test_top1": _estimate(0.4321), "test_top5": None, "mean_class": 0.4},
            "spatial": {"train_top1": 0.92, "test_top1": _estimate(0.512), "test_top5": None, "mean_class": 0.5},
            "audio+spatial": {"train_top1": 0.97, "test_top1": _estimate(0.877), "test_top5": None, "mean_class": 0.8},
        },
        "gains": {
            "audio": {"retrained": _estimate(0.365, 0.1), "withheld": _estimate(0.4, 0.1)},
            "spatial": {"retrained": _estimate(-0.2, 0.05), "withheld": _estimate(-0.1)},
        },
        "words": ["the stream 'spatial' makes it worse"],
        "confusion": {"classes": list(CLASSES), "matrix": [[5, 1, 0], [0, 6, 0], [2, 0, 4]]},
        "per_class": {
            label: {"n": 6, "accuracy": _estimate(0.5 + k / 10), "precision": 0.5,
                    "alone": {"audio": 0.3, "spatial": 0.4}}
            for k, label in enumerate(CLASSES)
        },
        "hardest": [{"video_id": HOSTILE, "label": CLASSES[2], "predicted": "spin", "margin": -1.2345, "top": []}],
        "predictions": [
            {"video_id": f"0/test_{i}.mp4", "label": "bounce", "predicted": "spin" if i < 2 else "bounce",
             "probabilities": [0.2, 0.75, 0.05]}
            for i in range(6)
        ],
        "calibration": {"method": "temperature", "n_val": 18, "ece_before": 0.111, "ece_after": 0.042},
        "rejection": [
            {"max_error": 0.05, "confidence": 0.61, "test_error": 0.023, "test_kept": 0.712},
            {"max_error": 0.01, "confidence": None, "words": "nothing is that sure"},
        ],
    },
    "detection": {"auroc": 0.934, "average_precision": 0.8, "prevalence": 0.25, "equal_error_rate": 0.11, "hits": 0.75,
                  "false_alarms": 0.04, "threshold": 12.5, "bottleneck": 8, "kind": "autoencoder",
                  "rivals": {"autoencoder": {"auroc": 0.934}, "knn": {"auroc": 0.717}},
                  "frames": {"autoencoder": {"micro": 0.881, "macro": None}},
                  "events": {"n_true": 12, "n_hits": 9, "n_false": 3, "watched_seconds": 600.0, "false_per_hour": 18.0,
                             "median_seconds_to_alarm": 1.25}},
}  # fmt: skip
TIMELINES = {
    "window_seconds": 2.0,
    "hop_seconds": 1.0,
    "threshold": 5.0,
    "streams": list(STREAMS),
    "videos": [
        {
            "video_id": "0/test_0.mp4",
            "path": "0/test_0.mp4",
            "times": [0.5, 1.5, 2.5, 3.5],
            "scores": [1.0, 9.0, 7.0, 1.0],
            "shares": {"audio": [0.5, 0.9, 0.8, 0.5], "spatial": [0.5, 0.1, 0.2, 0.5]},
            "labels": [[1.2, 2.8]],
            "events": [
                {"start_seconds": 1.0, "stop_seconds": 3.0, "peak_seconds": 1.5, "peak_score": 9.0,
                 "shares": {"audio": 0.85, "spatial": 0.15}, "region": "r1c2", "nearest": ["0/train_0.mp4", HOSTILE]}
            ],
        },
        {"video_id": HOSTILE, "path": "", "times": [1.0], "scores": [0.5], "shares": {}, "labels": None, "events": []},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def made_run(tmp_path_factory):
    """A run with everything in it, on three real videos and many that are not there."""
    root, folder = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("runs") / "kitchen"
    rows = _rows(root)
    for k, name in enumerate(("0/test_0.mp4", "1/test_0.mp4", "2/test_0.mp4")):
        (root / name).parent.mkdir(exist_ok=True)
        write_video(root / name, _flat_video(60 * k + 60), fps=FPS)
    folder.mkdir()
    write_manifest(Manifest(root, tuple(rows)), folder / "videos.csv")
    (folder / "fusion").mkdir()
    (folder / "fusion" / "report.json").write_text(json.dumps(DECISIONS))
    (folder / "fusion" / "timelines.json").write_text(json.dumps(TIMELINES))
    (folder / "status.csv").write_text(
        "video_id,status,reasons,absent_streams\n0/test_0.mp4,ok,,\n0/test_1.mp4,degraded,no_audio,audio:no_audio\n"
        "x.mp4,rejected,truncated_no_index,\n"
    )
    with (folder / "failures.csv").open("w", newline="") as file:
        import csv

        csv.writer(file).writerows(
            [
                ["video_id", "reason", "sentence"],
                [HOSTILE, "truncated_no_index", f"{HOSTILE} stops"],
            ]
        )
    generator = np.random.default_rng(0)
    for k, name in enumerate(STREAMS):
        (folder / "streams" / name).mkdir(parents=True)
        (folder / "streams" / name / "metrics.jsonl").write_text(_metrics(name))
        config = {"stream": name, "space_id": "5" * 16, "encoder_sha256": "a" * 64, "model_sha256": "b" * 64,
                  "config": {"encoder": "small", "aggregator": {"kind": "gru", "n_layers": 2, "hidden_dim": 64}},
                  "sampler": {"method": "adaptive", "n_samples": 12, "max_seconds": 36.0}, "data": {},
                  "lineage": {"seed": 7, "n_train": 18, "n_val": 18}, "versions": {"torch": "2.15.0"}}  # fmt: skip
        (folder / "streams" / name / "config.json").write_text(json.dumps(config))
        labels = np.array([CLASSES.index(row.label) for row in rows])
        X = generator.normal(size=(len(rows), 4)) + 5 * np.eye(4)[labels]
        present = np.arange(len(rows)) % 7 != 3 if k == 0 else np.ones(len(rows), bool)
        X[~present] = np.nan
        table = EmbeddingTable(
            stream=name, space_id="5" * 16, video_id=[row.video_id for row in rows], content_id=["0" * 64] * len(rows),
            present=present, reason=["" if there else "no_audio" for there in present],
            start_seconds=np.zeros(len(rows)), stop_seconds=np.full(len(rows), 2.0), embedding=X.astype(np.float32),
        )  # fmt: skip
        embeddings.write(table, folder / "embeddings" / name / ("5" * 16))
    return folder


def _flat_video(value):
    """Twenty frames that get brighter, so that a frame tells its time."""
    return np.repeat(value + 2 * np.arange(20, dtype=np.uint8), 32 * 48 * 3).reshape(20, 32, 48, 3)


def _page(folder, **more):
    run = collect.collect(folder)
    chart = projection.project(run.fused) if run.fused else None
    return page.render(run, title=folder.name, made="today", version="0", chart=chart,
                       timelines=plots.timelines(run), **more)  # fmt: skip


class Text(HTMLParser):
    """The words of a page, its tags, and the rows of its tables."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.rows, self._silent = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._silent += tag in ("script", "style")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._silent -= tag in ("script", "style")

    def handle_data(self, data):
        if self._silent:
            return
        self.words.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] = (self.rows[-1][-1] + data).strip()

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def made_page(made_run):
    return _page(made_run, beside=page.Beside("the best possible", {"spatial+audio": 95.0}))


def test_every_figure_of_the_decisions_stands_on_the_page(made_page):
    rows = {
        row[0]: row[1:] for row in reversed(Text(made_page).rows) if row
    }  # the first table counts
    for name, found in DECISIONS["classification"]["subsets"].items():
        cells = rows[" + ".join(name.split("+"))]
        assert f"{100 * found['test_top1']['value']:.1f}" in cells
        assert (
            f"{100 * found['test_top1']['low']:.1f}–{100 * found['test_top1']['high']:.1f}12 groups"
            in cells
        )
        assert f"{100 * found['train_top1']:.1f}" in cells
    assert "95.0" in rows["audio + spatial"]
    text = Text(made_page).text
    sure = ("11.1 to 4.2 %", "0.61", "71.2 %", "2.3 %", "nothing is that sure")
    events = (
        "9 of 12",
        "Of 12 labelled events it finds 9 , with 3 false alarms in 10:00 of video",
        "0.717",
        "0.881",
    )
    for figure in ("0.934", "75 %", "4 %", "12.5", "−1.23", "5" * 16, *sure, *events):
        assert figure in text, figure


def test_the_verdict_says_what_helps_and_what_hurts(made_run):
    run = collect.collect(made_run)
    said = " ".join(map(str, verdict.verdict(run, {"audio+spatial": 95.0})))
    assert "<strong>87.7 %</strong>" in said
    assert "82.7–92.7 %" in said
    assert "95 % is the best possible" in said
    assert "without audio 36.5 points are lost" in said
    assert (
        "Spatial makes it worse</strong>: an SVM without it names 20.0 points more [15.0, 25.0]"
        in said
    )
    assert "1 of 3 videos could not be used at all and 1 of 3 have no audio" in said


def test_the_verdict_of_an_anomaly_run_opens_with_its_events_and_the_cause_of_the_strongest():
    videos = [
        {"video_id": f"test/{i:02d}.mp4", "events": [] if i < 5 else [
            {"peak_seconds": float(i), "peak_score": 9.0 - abs(i - 8),
             "shares": {"audio": 0.1, "spatial": 0.2, "temporal": 0.7}}]}
        for i in range(12)
    ]  # fmt: skip
    run = collect.Run(
        Path("r"), decisions={"detection": {"auroc": 0.9}}, timelines={"videos": videos}
    )
    first = str(verdict.verdict(run)[0])
    assert first.startswith("<strong>7 events</strong> in 12 videos")
    assert "the strongest: test/08.mp4 at 8.0 s, motion." in first
    quiet = collect.Run(Path("r"), timelines={"videos": videos[:5]})
    assert "No event</strong> in 5 videos" in str(verdict.verdict(quiet)[0])


@pytest.mark.parametrize(("n", "warned"), [(29, True), (30, False)])
def test_fewer_than_thirty_test_videos_are_named_in_the_verdict(n, warned):
    subsets = {"audio": {"test_top1": {**_estimate(0.5, n=n), "n_groups": 7}}}
    run = collect.Run(Path("r"), decisions={"classification": {"subsets": subsets}})
    sentences = " ".join(map(str, verdict.verdict(run)))
    assert ("Only 29 test videos" in sentences) == warned
    assert "45.0–55.0 % from 7 groups" in sentences


def test_an_interval_of_the_auroc_stands_beside_it_when_the_run_has_one():
    figures_ = {
        name: note
        for name, _, note in verdict.detection_figures(
            {"auroc": 0.9, "auroc_interval": [0.812, 0.955], "equal_error_rate": 0.1}
        )
    }
    assert "0.812–0.955" in figures_["AUROC"]
    assert "interval" not in figures_["equal error rate"]


def test_a_gain_whose_interval_crosses_zero_is_not_called_help():
    run = collect.Run(Path("r"), decisions={"classification": {
        "subsets": {name: {"test_top1": _estimate(0.5)} for name in ("a", "b", "a+b")},
        "gains": {name: {"retrained": _estimate(0.01)} for name in ("a", "b")}}})  # fmt: skip
    said = " ".join(map(str, verdict.verdict(run)))
    assert "No effect can be told from chance for a (+1.0 points, −4.0 to +6.0) and b" in said
    assert "help" not in said


def test_what_is_no_better_than_guessing_is_called_so():
    rows = [_row(Path("/v"), f"{label}.mp4", label, "train") for label in CLASSES]
    for value, said in ((0.36, "would do as well (33.3 %)"), (0.5, "guessing would give 33.3 %")):
        found = {"subsets": {"audio": {"test_top1": _estimate(value)}}}
        run = collect.Run(
            Path("r"),
            manifest=Manifest(Path("/v"), tuple(rows)),
            decisions={"classification": found},
        )
        assert said in " ".join(map(str, verdict.verdict(run)))


def test_points_cells_and_events_link_to_clips_inside_the_data_root_only(made_run):
    run = collect.collect(made_run)
    links_ = links.clip_links(run, made_run / "report.html")
    assert set(links_) == {
        "0/test_0.mp4",
        "1/test_0.mp4",
        "2/test_0.mp4",
    }  # the others do not exist
    for name, link in links_.items():
        assert (made_run / link).resolve() == (run.manifest.root / name).resolve()
    text = _page(made_run, pictures=page.Pictures(clips=links_))
    hrefs = [about["href"] for tag, about in Text(text).tags if tag == "a"]
    first = links_["0/test_0.mp4"]
    assert hrefs.count(first) == 2  # its point, and the cell bounce -> spin
    assert f"{first}#t=1.0" in hrefs  # its event
    assert not any(":" in href for href in hrefs)


def test_a_clip_outside_the_data_root_is_not_linked_and_a_scheme_is_spelled_out(tmp_path):
    root, outside = tmp_path / "data", tmp_path / "outside.mp4"
    root.mkdir()
    outside.touch()
    (root / "javascript:alert(1).mp4").touch()
    (root / "away.mp4").symlink_to(outside)
    rows = tuple(_row(root, n, "a", "test") for n in ("javascript:alert(1).mp4", "away.mp4"))
    run = collect.Run(tmp_path / "run", manifest=Manifest(root, rows))
    assert links.clip_links(run, root / "report.html") == {
        "javascript:alert(1).mp4": "./javascript%3Aalert%281%29.mp4"
    }


def test_hostile_names_are_shown_and_do_nothing(made_page):
    page_ = Text(made_page)
    scripts = [about for tag, about in page_.tags if tag == "script"]
    assert [about.get("type") for about in scripts] == ["application/json", None]
    assert not any(
        tag == "i" and not about.get("class") and not about.get("style")
        for tag, about in page_.tags
    )
    assert "\x1b" not in made_page
    assert r"<script>alert(1)</script >\nnext\x1b[31mred.mp4" in page_.text
    assert "wood & <i>metal</i>" in page_.text


def test_the_policy_of_the_page_allows_its_own_script_and_nothing_else(made_page):
    import base64
    import hashlib

    policy = next(
        a["content"]
        for t, a in Text(made_page).tags
        if a.get("http-equiv") == "Content-Security-Policy"
    )
    script = re.findall(r"<script>(.*?)</script>", made_page, re.DOTALL)[-1]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:")


def test_nothing_on_the_page_points_outside_it(made_page):
    for tag, about in Text(made_page).tags:
        for name in ("src", "href", "srcset", "data", "action"):
            assert (about.get(name) or "#").startswith(("#", "data:")), (tag, about)
    assert "url(" not in made_page
    assert "@import" not in made_page


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        (["fusion"], "tristream fuse --run "),
        (["embeddings"], "tristream embed --run "),
        (["streams"], "tristream train-stream NAME --run "),
        (["videos.csv"], "tristream index --data DIR --run "),
        (["fusion/timelines.json"], "tristream fuse --window 2 --hop 1 --run "),
        (["status.csv", "failures.csv"], "tristream embed --run "),
        (
            ["fusion", "embeddings", "streams", "videos.csv", "status.csv", "failures.csv"],
            "tristream index",
        ),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(made_run, tmp_path, lost, says):
    folder = tmp_path / "kitchen"
    shutil.copytree(made_run, folder)
    for name in lost:
        (shutil.rmtree if (folder / name).is_dir() else Path.unlink)(folder / name)
    assert f"{says}{folder}" in Text(_page(folder)).text or says == "tristream index"


def test_decisions_as_fuse_first_wrote_them_are_enough(made_run, tmp_path):
    folder = tmp_path / "kitchen"
    shutil.copytree(made_run, folder)
    found = {key: DECISIONS["classification"][key] for key in ("subsets", "gains", "words")}
    (folder / "fusion" / "report.json").write_text(
        json.dumps({**DECISIONS, "classification": found, "detection": None})
    )
    text = Text(_page(folder)).text
    assert "87.7" in text
    assert "it needs two normal training videos" in text


def test_a_damaged_file_is_named_and_left_out(made_run, tmp_path):
    folder = tmp_path / "kitchen"
    shutil.copytree(made_run, folder)
    (folder / "fusion" / "report.json").write_text("{half")
    (folder / "fusion" / "timelines.json").write_text("[1]")
    text = Text(_page(folder)).text
    assert "report.json is not JSON" in text
    assert "timelines.json holds no JSON object" in text


def test_the_map_shows_each_video_where_it_has_the_stream(made_run):
    run = collect.collect(made_run)
    chart = projection.project(run.fused)
    assert list(chart.places) == ["all streams", "audio", "spatial"]
    lacks = ~run.fused.masks[:, 0]
    assert lacks.any()
    np.testing.assert_array_equal(np.isnan(chart.places["audio"]).all(axis=1), lacks)
    assert np.isfinite(chart.places["all streams"]).all()


def test_the_map_is_the_principal_components_of_the_training_videos(made_run):
    from sklearn.decomposition import PCA

    fused = collect.collect(made_run).fused
    block = fused.X[:, fused.columns["spatial"]]
    train = np.array([row.split == "train" for row in fused.rows])
    Z = (block - block[train].mean(axis=0)) / block[train].std(axis=0)
    expected = PCA(2).fit(Z[train]).transform(Z)
    places = projection.project(fused).places["spatial"]
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-6)


def test_an_unknown_projection_is_refused(made_run):
    with pytest.raises(ValueError, match=r"unknown projection 'tsne'; available: pca, umap"):
        projection.project(collect.collect(made_run).fused, how="tsne")


def test_a_picture_is_the_frame_that_is_shown_at_its_moment(made_run):
    import base64

    import cv2

    from tristream.media.sandbox.pool import DecodePool

    root = collect.collect(made_run).manifest.root
    moments = {
        "early": thumbnails.Moment(root / "0/test_0.mp4", 0.35),
        "late": thumbnails.Moment(root / "0/test_0.mp4", 1.75),
        "lost": thumbnails.Moment(root / "0/nothing.mp4", 1.0),
        "far": thumbnails.Moment(root / "0/test_0.mp4", 4000.0),
    }
    with DecodePool(1) as pool:
        found, missing = thumbnails.pictures(moments, pool, root=root, height_px=32)
    for name, frame in (("early", 3), ("late", 17)):
        data = base64.b64decode(found[name].removeprefix("data:image/jpeg;base64,"))
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (32, 48, 3)
        assert (
            abs(picture.mean() - (60 + 2 * frame)) < 2.0
        )  # 2 levels a frame; H.264 and JPEG lose a little
    assert missing == {"lost": "not_found", "far": "more than 15 min into the file"}


def test_labels_take_turns_in_what_is_shown():
    assert thumbnails.spread(["a", "a", "a", "b", "c"], 4) == [0, 3, 4, 1]
    assert thumbnails.spread(["a"], 9) == [0]


def test_a_stream_keeps_its_colour_whatever_others_there_are():
    alone = palette.stream_index("temporal", ["temporal"])
    assert alone == palette.stream_index("temporal", ["audio", "pose", "temporal"])
    used = [palette.stream_index(name, ["audio", "pose", "spatial", "temporal", "text"]) for name in
            ("audio", "pose", "spatial", "temporal", "text")]  # fmt: skip
    assert len(set(used)) == 5


def test_class_colours_differ_and_can_be_read_on_both_papers():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return float(
            np.dot(
                [0.2126, 0.7152, 0.0722],
                [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts],
            )
        )

    for n in (1, 2, 6, 16, 51):
        colours = palette.class_colours(n)
        assert len(set(colours)) == n
        for colour in colours:
            contrast = [
                1.05 / (luminance(colour) + 0.05),
                (luminance(colour) + 0.05) / (luminance("#16181b") + 0.05),
            ]
            assert min(contrast) > 2.0, colour


def test_reliability_is_the_share_of_right_answers_by_confidence(made_run):
    [line] = plots.reliability(collect.collect(made_run)).lines
    np.testing.assert_allclose(line.x, [75.0])
    np.testing.assert_allclose(line.y, [100 * 4 / 6])


def test_the_kept_epoch_is_the_one_of_the_lowest_validation_loss(made_run):
    curves = plots.training(collect.collect(made_run))
    assert [pair[0].mark[0] for pair in curves["audio"]] == [2.0, 2.0]


def test_figures_for_papers_are_vector_files_with_text_in_them(made_run, tmp_path):
    pytest.importorskip("matplotlib")
    run = collect.collect(made_run)
    charts = [plots.accuracy(run.subsets(), 33.3), plots.gains(run.gains()), plots.confusion(run),
              projection.project(run.fused), *plots.timelines(run),
              Curves("plain", "Plain $x_", "x", "y", [Line("one", np.arange(3.0), np.arange(3.0))])]  # fmt: skip
    written = figures.write(charts, tmp_path / "figures", streams=run.streams)
    assert len(written) == 2 * len(charts)
    for path in written:
        data = path.read_bytes()
        assert data.startswith(b"%PDF" if path.suffix == ".pdf" else b"<?xml"), path
        assert b"/Type3" not in data
    assert "audio + spatial" in (tmp_path / "figures" / "accuracy.svg").read_text()
    again = figures.write(charts[:1], tmp_path / "again", streams=run.streams)
    assert [p.read_bytes() for p in again] == [
        (tmp_path / "figures" / p.name).read_bytes() for p in again
    ]


def test_an_interval_of_one_group_is_no_interval():
    assert np.isnan(
        collect.estimate({"value": 0.5, "low": None, "high": None, "n": 3, "n_groups": 1}).low
    )
    assert verdict.interval(Estimate(0.5, float("nan"), float("nan"), 3, 1)) == ""


# The command.


@pytest.mark.slow
def test_the_report_of_a_trained_run_holds_its_figures_and_its_pictures(
    command_line, trained_run, tmp_path
):
    shutil.copytree(trained_run / "runs", tmp_path / "runs")
    line = command_line(tmp_path)
    told = line.json("report", "--out", "all.html", "--thumbnails", 5, "--workers", 1)
    written = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert told["bytes"] == len(written.encode())
    found, shown = (
        json.loads((tmp_path / "runs/default/fusion/report.json").read_text()),
        Text(written),
    )
    rows = {row[0]: row for row in reversed(shown.rows) if row}
    for name, subset in found["classification"]["subsets"].items():
        assert f"{100 * subset['test_top1']['value']:.1f}" in rows[" + ".join(name.split("+"))]
    for space in found["spaces"].values():
        assert space in shown.text
    assert "spin/broken.mp4" in shown.text
    assert "not_a_video" in shown.text
    data = json.loads(re.search(r'id="map-data">(.*?)</script>', written)[1])
    assert len(data["thumbnails"]) == 5
    strips = [
        about for tag, about in shown.tags if tag == "img" and about["alt"].startswith("frame at")
    ]
    assert len(strips) == 2 * 8  # two classes, eight frames each


@pytest.mark.slow
def test_a_report_without_its_videos_or_with_a_damaged_checkpoint_says_so(
    command_line, trained_run, tmp_path
):
    shutil.copytree(trained_run / "runs", tmp_path / "runs")
    line = command_line(tmp_path)
    line("report", "--data", tmp_path / "gone")
    assert f"There are no pictures: {tmp_path / 'gone'} is not there" in line.said
    first = next((tmp_path / "runs/default/streams").iterdir())
    (first / "checkpoint.safetensors").write_bytes(b"half")
    line("report", "--thumbnails", 1, "--workers", 1)
    assert "Where the streams look cannot be shown" in line.said
    assert (
        "Where the streams look cannot be shown"
        in (tmp_path / "runs/default/report.html").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--run", "nothing"], "nothing does not exist; make it first: tristream index"),
        (["--map", "tsne"], "--map tsne is not known; available: pca, umap"),
        (["--claims", "none.toml"], "none.toml does not exist"),
        (["--claims", "half.toml"], "half.toml is not TOML"),
        (["--claims", "more.toml"], "more.toml has accuracy, colour, words; it must have words"),
        (
            ["--claims", "high.toml"],
            "accuracy of 'audio' is 931; it must be a percentage, 0 to 100",
        ),
    ],
)
def test_a_mistake_is_said_before_any_work(command_line, made_run, tmp_path, arguments, sentence):
    (tmp_path / "half.toml").write_text("words = ")
    (tmp_path / "more.toml").write_text("words = 'x'\ncolour = 1\n[accuracy]\n")
    (tmp_path / "high.toml").write_text("words = 'x'\n[accuracy]\naudio = 931\n")
    line = command_line(tmp_path)
    line(
        "report",
        *(["--run", made_run] if "--run" not in arguments else []),
        "--out",
        "x.html",
        *arguments,
        code=2,
    )
    assert sentence in line.said
    assert not (tmp_path / "x.html").exists()


def test_claims_stand_beside_what_was_reached(command_line, made_run, tmp_path):
    (tmp_path / "claims.toml").write_text(
        "words = 'what the paper says'\n[accuracy]\n'spatial+audio' = 93.1\n"
    )
    command_line(tmp_path)(
        "report", "--run", made_run, "--out", "x.html", "--claims", "claims.toml", "--thumbnails", 0
    )
    shown = Text((tmp_path / "x.html").read_text())
    assert "The red tick is what the paper says." in shown.text
    assert "93.1" in next(row for row in shown.rows if row and row[0] == "audio + spatial")


@pytest.mark.parametrize(
    ("option", "module"), [(["--map", "umap"], "umap"), (["--figures", "f"], "matplotlib")]
)
def test_a_library_that_is_not_there_is_named_with_what_installs_it(
    command_line, made_run, tmp_path, monkeypatch, option, module
):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == module else find(name, *more),
    )
    line = command_line(tmp_path)
    line("report", "--run", made_run, "--out", "x.html", *option, code=2)
    extra = "umap" if module == "umap" else "figures"
    assert f"needs {module}, which is not installed: pip install 'tristream[{extra}]'" in line.said


# A real browser.

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = ("quic", "background-networking", "component-update", "sync", "gpu")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
FLAGS += [f"--disable-{name}" for name in QUIET]
PATIENCE_SECONDS = 60
DRAWN = """(() => {
  const seen = (e) => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0; };
  return {
    points: [...document.querySelectorAll('.pt')].filter(seen).length,
    plots: [...document.querySelectorAll('.field > svg')].filter(seen).length,
    lines: [...document.querySelectorAll('.line')].filter((e) => e.getTotalLength() > 0).length,
    whiskers: [...document.querySelectorAll('svg.row')].filter(seen).length,
    pictures: [...document.images].filter((i) => i.complete && i.naturalWidth > 0).length,
    images: document.images.length,
    width: document.documentElement.scrollWidth,
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    anchors: [...document.querySelectorAll('nav a')].filter((a) => !document.querySelector(a.hash)).map((a) => a.hash),
  };
})()"""


class Browser:
    """Headless Chromium over its debugging pipe: messages end in a zero byte, so no web socket is needed."""

    def __init__(self, profile: Path) -> None:
        to_read, self._out = os.pipe()
        self._in, to_write = os.pipe()

        def wire() -> None:  # the browser reads 3 and writes 4
            for source, target in ((os.dup(to_read), 3), (os.dup(to_write), 4)):
                os.dup2(source, target)

        self.process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        os.set_blocking(self._in, False)
        self.events: list[dict] = []
        self._buffer, self._number, self._session = b"", 0, None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: object) -> dict:
        """The answer to one command; what happens meanwhile is kept in `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda found: found.get("id") == self._number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def open(self, page: Path, *, dark: bool = False, width: int = 1200, height: int = 900) -> None:
        """Load a page as people with these wishes and this window see it."""
        self.events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 600)  # fmt: skip
        self.ask("Page.navigate", url=page.as_uri())
        self._wait(lambda found: found.get("method") == "Page.loadEventFired")

    def value(self, expression: str) -> object:
        """Value of a line of JavaScript on the page."""
        found = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def requests(self) -> list[str]:
        """Everything that was asked for, the page itself and what lies inside it left out."""
        urls = [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("file:", "data:"))]

    def complaints(self) -> list[dict]:
        """Errors and warnings on the console, exceptions and what the content policy refused."""
        kinds = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [event["params"] for event in self.events if event.get("method") in kinds]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        os.close(self._out)
        os.close(self._in)

    def _wait(self, is_it) -> dict:
        deadline = time.monotonic() + PATIENCE_SECONDS
        for event in self.events:
            if is_it(event):
                return event
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                self._buffer += os.read(self._in, 1 << 20)
            while b"\0" in self._buffer:
                text, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(text)
                if "id" not in message:
                    self.events.append(message)
                if is_it(message):
                    return message
            time.sleep(0.005)
        raise TimeoutError(f"the browser has not answered within {PATIENCE_SECONDS} s")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium is installed here (apt-get install chromium); the page is not looked at"
        )
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def drawn_page(made_run, tmp_path_factory):
    """The page with pictures, on disk."""
    from tristream.media.sandbox.pool import DecodePool

    run = collect.collect(made_run)
    root = run.manifest.root
    moments = {
        name: thumbnails.Moment(root / name, 1.0) for name in ("0/test_0.mp4", "1/test_0.mp4")
    }
    with DecodePool(1) as pool:
        videos, _ = thumbnails.pictures(moments, pool, root=root, height_px=32)
    pictures = page.Pictures(videos=videos, peaks={("0/test_0.mp4", 0): videos["0/test_0.mp4"]})
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(_page(made_run, pictures=pictures), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("dark", "width"), [(False, 1200), (True, 1200), (False, 390), (True, 390)]
)
def test_a_browser_draws_every_plot_and_asks_for_nothing(browser, drawn_page, dark, width):
    browser.open(drawn_page, dark=dark, width=width)
    found = browser.value(DRAWN)
    assert browser.requests() == []
    assert browser.complaints() == []
    assert found["points"] == 54
    assert (
        found["plots"] == 2 * 2 * len(STREAMS) + 1 + 3
    )  # curves, reliability, two timelines and the shares of one
    assert found["lines"] >= 2 * 2 * 2 * len(STREAMS)
    assert found["whiskers"] == 3 + 2 + 3
    assert found["pictures"] == found["images"] == 1
    assert found["width"] <= width  # nothing sticks out: tables scroll by themselves
    assert found["anchors"] == []
    assert (found["paper"] == "rgb(22, 24, 27)") == dark


def test_a_stream_can_be_chosen_and_a_class_picked_out_on_the_map(browser, drawn_page):
    browser.open(drawn_page)
    browser.value("document.querySelector('#map-views [data-view=audio]').click()")
    hidden = browser.value(
        "[...document.querySelectorAll('.pt')].filter(p => p.classList.contains('gone')).length"
    )
    assert hidden == sum(i % 7 == 3 for i in range(54))
    browser.value("document.querySelector('#map-legend [data-k=\"1\"]').click()")
    assert browser.value("document.querySelectorAll('.pt.off').length") == 36
    where = browser.value(
        "(p => { p.scrollIntoView(); const b = p.getBoundingClientRect();"
        " p.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, clientX: b.x, clientY: b.y}));"
        " return document.getElementById('tip').textContent })(document.querySelector('.pt[data-i=\"53\"]'))"
    )
    assert r"\nnext\x1b[31mred.mp4" in where
    assert browser.complaints() == []


def test_zooming_the_map_separates_points_and_the_whole_map_comes_back(browser, drawn_page):
    browser.open(drawn_page)
    view = "document.getElementById('map-points').getAttribute('viewBox')"
    whole = browser.value(view)
    browser.value("document.querySelectorAll('#map-zoom button')[0].click()")
    assert browser.value(view) == "250 170 500 340"
    assert "scale(0.5)" in browser.value("document.querySelector('.pt').style.transform")
    browser.value("document.querySelectorAll('#map-zoom button')[2].click()")
    assert browser.value(view) == whole
    assert browser.complaints() == []


def test_the_printed_page_is_all_there(browser, drawn_page):
    import base64

    browser.open(drawn_page, dark=True)
    printed = base64.b64decode(browser.ask("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert printed.startswith(b"%PDF")
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.ask("Emulation.setEmulatedMedia", media="print", features=[dark])
    assert (
        browser.value("getComputedStyle(document.querySelector('.c0')).color")
        == "rgb(18, 128, 106)"
    )  # on paper
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.value("getComputedStyle(document.getElementById('map-views')).display") == "none"
    browser.ask("Emulation.setEmulatedMedia", media="")
