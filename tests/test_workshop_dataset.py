"""workshop/dataset.py, classes.py, clips.py: the files, their labels and splits, and the same again tomorrow."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors.numpy import load_file

from tristream.dataset.manifest import complete, index_csv
from tristream.workshop import dataset
from tristream.workshop.anomalies import KINDS
from tristream.workshop.classes import CEILINGS, CLASSES, SHORT_EVENT_CLASSES, XOR_CLASSES
from tristream.workshop.clips import Recipe, make_clip, make_scene
from tristream.workshop.dataset import ANOMALY_SIZES, SIZES, VARIANTS, is_silent, plan, render

FEW = {name: CLASSES[name] for name in ("wood", "spin", "hum")}


@pytest.fixture
def few(monkeypatch):
    """A data set small enough for tests: three classes, one clip in each split."""
    monkeypatch.setitem(SIZES, "tiny", (1, 1, 1))
    monkeypatch.setattr(dataset, "CLASSES", FEW)


def _rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _videos(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.mp4"))
    }


def _decode(path: Path) -> tuple[np.ndarray, list[str]]:
    with av.open(str(path)) as container:
        kinds = sorted(stream.type for stream in container.streams)
        return np.stack(
            [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        ), kinds


# ---- what is in it


@pytest.mark.parametrize(
    ("ceiling", "sees"),
    [
        ("spatial", lambda r: r.material),
        ("temporal", lambda r: r.motions),
        ("temporal order-blind", lambda r: frozenset(r.motions)),
        ("audio", lambda r: r.sound),
        ("spatial+temporal", lambda r: (r.material, r.motions)),
        ("audio+spatial", lambda r: (r.material, r.sound)),
        ("audio+temporal", lambda r: (r.motions, r.sound)),
        ("audio+spatial+temporal", lambda r: (r.material, r.motions, r.sound)),
        (
            "audio+spatial+temporal order-blind",
            lambda r: (r.material, frozenset(r.motions), r.sound),
        ),
        ("chance", lambda r: None),
    ],
)
def test_ceilings_are_the_share_of_observations_that_can_be_told_apart(ceiling, sees):
    assert CEILINGS[ceiling] == 100 * len({sees(recipe) for recipe in CLASSES.values()}) / 16


def test_the_ceiling_with_half_of_the_clips_silent_is_the_mean_of_hearing_and_not_hearing():
    assert (
        CEILINGS["audio+spatial+temporal half silent"]
        == (CEILINGS["audio+spatial+temporal"] + 81.25) / 2
    )


@pytest.mark.parametrize(
    ("size", "counts"), [("tiny", (10, 8, 10)), ("small", (20, 8, 10)), ("full", (60, 20, 30))]
)
def test_sizes_are_clips_per_class_in_train_val_and_test(size, counts):
    clips = plan(size=size)
    found = Counter((clip.label, clip.split) for clip in clips)
    assert found == {
        (label, split): n for label in CLASSES for split, n in zip(("train", "val", "test"), counts)
    }
    assert len(clips) == 16 * sum(counts)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_two_clips_share_a_path_or_their_random_numbers(variant):
    clips = plan(size="full", variant=variant) + plan(size="full", variant=variant, seed=1)
    assert len({clip.key for clip in clips}) == len(clips)
    assert len({clip.path for clip in clips}) == len(clips) / 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_clip_does_not_depend_on_how_many_others_there_are(variant):
    full = {clip.path: clip for clip in plan(size="full", variant=variant)}
    assert all(full[clip.path] == clip for clip in plan(size="tiny", variant=variant))


def test_seeds_give_other_clips():
    first, second = (make_clip(Recipe(), plan(seed=seed)[0].key) for seed in (0, 1))
    assert np.mean(np.abs(first.frames.astype(float) - second.frames)) > 5
    assert np.corrcoef(first.samples, second.samples)[0, 1] < 0.1


def test_of_the_xor_bits_no_two_tell_anything_about_the_label():
    recipes = [(recipe, label) for label, four in XOR_CLASSES.items() for recipe in four]
    assert len(recipes) == 8
    for sees in (
        lambda r: (r.material, r.motions),
        lambda r: (r.material, r.sound),
        lambda r: (r.motions, r.sound),
    ):
        labels_of: dict[tuple, list[str]] = {}
        for recipe, label in recipes:
            labels_of.setdefault(sees(recipe), []).append(label)
        assert all(sorted(labels) == ["even", "odd"] for labels in labels_of.values())
    counts = Counter((clip.recipe, clip.split) for clip in plan(size="small", variant="xor"))
    assert set(counts.values()) == {40, 16, 20}  # every combination equally often in each split


@pytest.mark.parametrize("name", sorted(SHORT_EVENT_CLASSES))
def test_in_a_short_event_the_body_moves_in_a_fifth_of_the_frames_at_a_random_place(name):
    firsts = []
    for index in range(12):
        scene = make_scene(SHORT_EVENT_CLASSES[name], f"short {name} {index}")
        path = np.stack([scene.trajectory.x, scene.trajectory.y, scene.trajectory.angle])
        moving = np.flatnonzero(np.abs(np.diff(path, axis=1)).max(axis=0) > 0)
        assert moving[-1] - moving[0] == 11  # 12 of 60
        assert len(moving) >= 11  # a turn may stand still for one step
        firsts.append(moving[0])
    assert max(firsts) - min(firsts) > 15


# ---- files


def test_what_is_rendered_is_what_videos_csv_lists(tmp_path, few):
    seen = []
    manifest = render(
        tmp_path / "w",
        size="tiny",
        n_workers=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    rows = _rows(manifest)
    assert manifest == tmp_path / "w" / "videos.csv"
    assert list(rows[0]) == ["path", "label", "split", "group", "anomaly"]
    assert {row["path"] for row in rows} == set(_videos(tmp_path / "w"))
    assert all(row["path"].startswith(row["label"] + "/") for row in rows)
    assert len({row["group"] for row in rows}) == len(rows) == 9
    assert {row["anomaly"] for row in rows} == {""}
    assert seen == [(done, 9) for done in range(1, 10)]


def test_pictures_and_sound_come_back_from_the_files(tmp_path, few):
    root = render(tmp_path / "w", size="tiny", n_workers=1).parent
    for clip in plan(size="tiny")[::3]:
        original = make_clip(clip.recipe, clip.key)
        decoded, kinds = _decode(root / clip.path)
        assert kinds == ["audio", "video"]
        assert decoded.shape == original.frames.shape == (60, 64, 64, 3)
        error = np.mean((decoded.astype(float) - original.frames) ** 2)
        assert 10 * np.log10(255**2 / error) > 30
        with av.open(str(root / clip.path)) as container:
            heard = np.concatenate([block.to_ndarray()[0] for block in container.decode(audio=0)])[
                :38400
            ]
            assert container.streams.audio[0].rate == 16000
        assert np.corrcoef(heard, original.samples)[0, 1] > 0.8


def test_exact_flow_is_stored_beside_the_videos_by_video_id(tmp_path, few):
    root = render(tmp_path / "w", size="tiny", n_workers=1, exact_flow=True).parent
    for clip in plan(size="tiny")[::2]:
        arrays = load_file((root / "flow" / clip.path).with_suffix(".safetensors"))
        assert list(arrays) == ["flow"]
        assert arrays["flow"].dtype == np.float16
        exact = make_clip(clip.recipe, clip.key, with_flow=True).flow
        np.testing.assert_allclose(arrays["flow"].astype(np.float32), exact, atol=0.005)
    assert len(list((root / "flow").rglob("*.safetensors"))) == 9


@pytest.mark.slow
def test_two_renderings_are_the_same_bytes_however_many_processes(tmp_path, few, monkeypatch):
    monkeypatch.setattr(dataset, "_BATCH", 2)
    manifests = [render(tmp_path / str(n), size="tiny", n_workers=n) for n in (1, 2)]
    assert _videos(tmp_path / "1") == _videos(tmp_path / "2")
    assert manifests[0].read_bytes() == manifests[1].read_bytes()


def test_a_second_call_changes_nothing_and_an_interrupted_one_is_completed(tmp_path, few):
    root = tmp_path / "w"
    manifest = render(root, size="tiny", n_workers=1)
    before = _videos(root)
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}
    calls = []
    render(root, size="tiny", n_workers=1, progress=lambda *counts: calls.append(counts))
    assert not calls
    assert stamps == {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}
    for lost in ("wood/train_000.mp4", "spin/test_000.mp4"):
        (root / lost).unlink()
    manifest.unlink()
    render(root, size="tiny", n_workers=1, progress=lambda *counts: calls.append(counts))
    assert calls == [(8, 9), (9, 9)]
    assert _videos(root) == before


def test_a_larger_size_adds_clips_and_keeps_the_others(tmp_path, few, monkeypatch):
    root = tmp_path / "w"
    render(root, size="tiny", n_workers=1)
    before = _videos(root)
    monkeypatch.setitem(SIZES, "small", (2, 1, 1))
    rows = _rows(render(root, size="small", n_workers=1))
    after = _videos(root)
    assert len(rows) == len(after) == 12
    assert all(after[path] == data for path, data in before.items())


def test_random_silence_takes_the_same_share_of_every_class():
    clips = plan(size="full")
    silent = {
        label: [is_silent(c, "random", 0.5) for c in clips if c.label == label] for label in CLASSES
    }
    shares = np.array([np.mean(values) for values in silent.values()])
    assert abs(shares.mean() - 0.5) < 0.04  # 3 standard errors of 1760 clips
    assert np.abs(shares - 0.5).max() < 0.17


def test_random_silence_takes_the_audio_track_and_leaves_the_pictures(tmp_path, few):
    loud = render(tmp_path / "loud", size="tiny", n_workers=1).parent
    half = render(
        tmp_path / "half", size="tiny", n_workers=1, silence="random", silent_fraction=0.5
    ).parent
    has_sound = []
    for clip in plan(size="tiny"):
        pictures, kinds = _decode(half / clip.path)
        has_sound.append("audio" in kinds)
        assert has_sound[-1] != is_silent(clip, "random", 0.5)
        np.testing.assert_array_equal(pictures, _decode(loud / clip.path)[0])
    assert 0 < sum(has_sound) < 9


def test_with_class_dependent_silence_only_the_sound_classes_have_a_track():
    clips = plan(size="tiny")
    heard = {clip.label for clip in clips if not is_silent(clip, "class_dependent", 0.0)}
    assert heard == {"impact", "hum", "rolling", "squeak"}
    assert not any(is_silent(clip, "none", 0.0) for clip in clips)


def test_clips_of_96_px_have_the_body_in_proportion():
    clip = make_clip(Recipe(), "side", side_px=96, with_flow=True)
    assert clip.frames.shape == (60, 96, 96, 3)
    assert clip.flow.shape == (59, 2, 96, 96)
    small, large = (make_scene(Recipe(), "side", side_px=side) for side in (64, 96))
    assert large.radius_px / small.radius_px == pytest.approx(1.5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_manifest_is_accepted_by_the_reader_of_manifests(tmp_path, few, monkeypatch, variant):
    monkeypatch.setattr(dataset, "SHORT_EVENT_CLASSES", {"spin": SHORT_EVENT_CLASSES["spin"]})
    monkeypatch.setattr(dataset, "XOR_REPEATS", 1)
    monkeypatch.setattr(dataset, "KINDS", {"glass": KINDS["glass"]})
    monkeypatch.setitem(ANOMALY_SIZES, "tiny", ((1, 1, 1), 1))
    manifest = render(tmp_path / "w", size="tiny", variant=variant, n_workers=1)
    rows = complete(index_csv(manifest)).rows
    clips = plan(size="tiny", variant=variant)
    assert [(row.video_id, row.label, row.split) for row in rows] == [
        (c.path, c.label, c.split) for c in clips
    ]
    assert len({row.group for row in rows}) == len(rows)
    assert {row.anomaly for row in rows} == ({0, 1} if variant == "anomalies" else {None})


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": "huge"}, "unknown size 'huge'; available: tiny, small, full"),
        (
            {"variant": "opera"},
            "unknown variant 'opera'; available: classes, short_event, xor, anomalies",
        ),
        (
            {"silence": "golden"},
            "unknown silence 'golden'; available: none, random, class_dependent",
        ),
        ({"silence": "random"}, r"silent_fraction is 0\.0; with silence='random'"),
        ({"silence": "random", "silent_fraction": 1.5}, r"silent_fraction is 1\.5"),
        ({"silent_fraction": 0.5}, r"silent_fraction is 0\.5 but silence is 'none'"),
        ({"side_px": 65}, "side_px is 65; it must be even"),
    ],
)
def test_choices_that_do_not_exist_are_named_before_anything_is_written(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        render(tmp_path / "w", **options)
    assert not (tmp_path / "w").exists()


def test_a_folder_with_other_parameters_is_refused_by_what_differs(tmp_path, few):
    render(tmp_path / "w", size="tiny", n_workers=1)
    with pytest.raises(
        ValueError, match=r"was rendered with seed=0, not 3; silence=none, not class_dependent"
    ):
        render(tmp_path / "w", size="tiny", seed=3, silence="class_dependent")


def test_a_folder_of_somebody_elses_videos_is_refused(tmp_path):
    (tmp_path / "videos.csv").write_text("path,label\nmine.mp4,holiday\n")
    with pytest.raises(ValueError, match=r"videos\.csv that the workshop did not write"):
        render(tmp_path, size="tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["videos.csv"]


def test_damaged_facts_are_named(tmp_path):
    (tmp_path / "workshop.json").write_text("{")
    with pytest.raises(ValueError, match=r"workshop\.json cannot be read"):
        render(tmp_path, size="tiny")
    (tmp_path / "workshop.json").write_text(json.dumps({"renderer": dataset._RENDERER + 1}))
    with pytest.raises(
        ValueError, match=f"renderer={dataset._RENDERER + 1}, not {dataset._RENDERER}"
    ):
        render(tmp_path, size="tiny")
