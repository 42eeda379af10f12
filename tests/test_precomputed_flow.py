from __future__ import annotations

import hashlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from tristream.flow import precomputed
from tristream.flow.storage import write_flo, write_kitti
from tristream.store.cache import Cache

FIELDS = (
    np.random.default_rng(0).integers(-640, 640, (12, 2, 6, 9)).astype(np.float32) / 64
)  # exact in every format


@pytest.fixture
def stored(tmp_path):
    """(kind) → a folder in which the flow of `a/b.mp4` is kept that way."""

    def make(kind):
        folder = tmp_path / kind
        (folder / "a").mkdir(parents=True)
        if kind == "safetensors":
            save_file({"flow": FIELDS.astype(np.float16)}, folder / "a" / "b.safetensors")
        else:
            (folder / "a" / "b").mkdir()
            for index, field in enumerate(FIELDS):
                if kind == "flo":
                    write_flo(folder / "a" / "b" / f"{index:03d}.flo", field)
                else:
                    write_kitti(folder / "a" / "b" / f"{index:03d}.png", field)
        return folder

    return make


@pytest.mark.parametrize("kind", ["safetensors", "flo", "kitti"])
def test_every_format_of_flow_gives_the_same_fields(stored, kind):
    flow = precomputed.read(stored(kind), "a/b.mp4", n_steps=12)
    assert flow.dtype == np.float32
    assert np.array_equal(flow, FIELDS)


@pytest.mark.parametrize("kind", ["safetensors", "flo"])
def test_a_video_that_is_cut_short_takes_the_first_fields(stored, kind):
    assert np.array_equal(precomputed.read(stored(kind), "a/b.mp4", n_steps=5), FIELDS[:5])


def test_too_few_fields_are_refused_with_both_numbers(stored):
    sentence = r"b\.safetensors holds 12 flow fields, but 'a/b\.mp4' has 14 frames and needs 13"
    with pytest.raises(ValueError, match=sentence):
        precomputed.read(stored("safetensors"), "a/b.mp4", n_steps=13)


def test_a_video_without_flow_is_named_with_both_places(tmp_path):
    sentence = r"no precomputed flow for 'a/c\.mp4': neither .*a/c\.safetensors nor .*a/c exists"
    with pytest.raises(ValueError, match=sentence):
        precomputed.read(tmp_path, "a/c.mp4", n_steps=1)


@pytest.mark.parametrize("video_id", ["/etc/passwd", "../x.mp4", "a/../../x.mp4"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, video_id):
    for ask in (precomputed.sha256, lambda folder, name: precomputed.read(folder, name, n_steps=1)):
        with pytest.raises(
            ValueError, match=f"no precomputed flow for '{video_id}': it lies outside the data root"
        ):
            ask(tmp_path, video_id)


@pytest.mark.parametrize("shape", [(12, 6, 9), (12, 3, 6, 9), (12, 6, 9, 2)])
def test_an_array_that_is_no_flow_is_refused_with_its_shape(tmp_path, shape):
    save_file({"flow": np.zeros(shape, np.float32)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"\(12, .*\); flow is \(T - 1, 2, height, width\)"):
        precomputed.read(tmp_path, "b.mp4", n_steps=2)


def test_flow_that_is_not_finite_is_refused(tmp_path):
    bad = FIELDS.copy()
    bad[3, 0, 0, 0] = np.nan
    save_file({"flow": bad}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"b\.safetensors holds flow that is not finite"):
        precomputed.read(tmp_path, "b.mp4", n_steps=12)
    assert len(precomputed.read(tmp_path, "b.mp4", n_steps=3)) == 3, (
        "what is not looked at does not matter"
    )


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "b.safetensors").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"b\.safetensors is not a safetensors file with a tensor 'flow'"
    ):
        precomputed.read(tmp_path, "b.mp4", n_steps=1)


def test_a_file_with_another_tensor_is_refused(tmp_path):
    save_file({"flows": FIELDS}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="with a tensor 'flow'"):
        precomputed.read(tmp_path, "b.mp4", n_steps=1)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"b holds no \.flo and no \.png file"):
        precomputed.read(tmp_path, "b.mp4", n_steps=1)


@pytest.mark.parametrize("kind", ["safetensors", "flo", "kitti"])
def test_the_identity_of_stored_flow_is_its_bytes(stored, kind):
    folder = stored(kind)
    before = precomputed.sha256(folder, "a/b.mp4")
    assert before == precomputed.sha256(folder, "a/b.avi")
    file = sorted(path for path in (folder / "a").rglob("*") if path.is_file())[-1]
    if kind == "safetensors":
        assert before == hashlib.sha256(file.read_bytes()).hexdigest()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert precomputed.sha256(folder, "a/b.mp4") != before


def test_a_video_takes_stored_flow_for_its_flow_and_measures_its_motion_itself(
    tmp_path, toy_video, make_videos
):
    flow = np.zeros((39, 2, 32, 32), np.float32)
    flow[:, 0] = np.arange(39)[:, None, None] / 8
    save_file({"flow": flow}, tmp_path / "v.safetensors")
    [video], _ = make_videos(
        {"v.mp4": toy_video(40)}, Cache(tmp_path / "cache"), flow_from=tmp_path
    )
    [plain], _ = make_videos({"v.mp4": toy_video(40)}, Cache(tmp_path / "other"))
    found = video.flow("dis", (64, 64), (16, 16))
    np.testing.assert_allclose(found.field, flow[:, :, ::2, ::2], atol=1 / 128)
    assert np.array_equal(
        video.motion, plain.motion
    )  # the plan of every stream is the same with and without
    assert video.flow_source() == precomputed.sha256(tmp_path, "v.mp4")


def test_changed_flow_under_an_old_name_is_noticed(tmp_path, toy_video, make_videos):
    cache = Cache(tmp_path / "cache")
    for value in (1.0, 2.0):
        save_file({"flow": np.full((39, 2, 32, 32), value, np.float32)}, tmp_path / "v.safetensors")
        [video], _ = make_videos({"v.mp4": toy_video(40)}, cache, flow_from=tmp_path)
        assert (video.flow("dis", (64, 64), (16, 16)).field == value).all()


def test_estimated_and_stored_flow_never_meet_in_the_cache(tmp_path, toy_video, make_videos):
    cache = Cache(tmp_path / "cache")
    [plain], _ = make_videos({"v.mp4": toy_video(40)}, cache)
    estimated = plain.flow("dis_ultrafast", (64, 64), (16, 16)).field
    save_file({"flow": np.zeros((39, 2, 32, 32), np.float32)}, tmp_path / "v.safetensors")
    [other], _ = make_videos({"v.mp4": toy_video(40)}, cache, flow_from=tmp_path)
    assert (other.flow("dis_ultrafast", (64, 64), (16, 16)).field == 0).all()
    [again], decoded = make_videos({"v.mp4": toy_video(40)}, cache)
    assert np.array_equal(again.flow("dis_ultrafast", (64, 64), (16, 16)).field, estimated)
    assert decoded == []


@pytest.mark.parametrize("kind", ["safetensors", "flo", "kitti"])
def test_a_range_of_fields_is_that_part_of_all(stored, kind):
    folder = stored(kind)
    for first, last in ((0, 12), (3, 7), (11, 12)):
        flow = precomputed.read_range(folder, "a/b.mp4", first, last)
        assert flow.dtype == np.float32
        assert np.array_equal(flow, FIELDS[first:last])


@pytest.mark.parametrize("kind", ["safetensors", "flo"])
def test_a_range_beyond_the_last_field_is_refused_with_both_numbers(stored, kind):
    sentence = r"holds 12 flow fields, but 'a/b\.mp4' has at least 16 frames and needs 15"
    with pytest.raises(ValueError, match=sentence):
        precomputed.read_range(stored(kind), "a/b.mp4", 13, 15)
