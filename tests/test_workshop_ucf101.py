"""Rendered videos laid out like UCF101."""

from __future__ import annotations

import pytest

from tristream.dataset.official_lists import index_ucf101
from tristream.media.decode import decode_video
from tristream.media.probe import probe
from tristream.workshop import ucf101


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ucf101, "TRAIN_GROUPS", (8, 9))
        patch.setattr(ucf101, "TEST_GROUPS", (1,))
        patch.setattr(ucf101, "N_CLIPS", 1)
        root = tmp_path_factory.mktemp("ucf")
        return root, ucf101.render(root, n_frames=26, n_workers=1)


def test_the_official_lists_are_read_by_the_official_reader(rendered):
    root, lists = rendered
    rows = index_ucf101(root, lists)
    assert {(row.label, row.split, row.group[-3:]) for row in rows} == {
        (label, split, group)
        for label in ("Archery", "HandstandPushups", "PlayingGuitar", "YoYo")
        for split, group in (("train", "g08"), ("train", "g09"), ("test", "g01"))
    }
    assert b"\r\n" in (lists / "trainlist01.txt").read_bytes()
    assert (lists / "testlist01.txt").read_text().splitlines()[0] == "Archery/v_Archery_g01_c01.avi"
    assert (root / "HandstandPushups" / "v_HandStandPushups_g08_c01.avi").exists()


def test_the_videos_are_what_the_real_ones_are(rendered):
    root, _ = rendered
    found = probe(root / "YoYo" / "v_YoYo_g08_c01.avi")
    assert (found.width, found.height, found.fps) == (320, 240, 25)
    assert (found.container, found.video_codec, found.has_audio) == ("avi", "mpeg4", True)
    assert found.audio_codec.startswith("mp3")
    decoded = decode_video(root / "YoYo" / "v_YoYo_g08_c01.avi")
    assert (len(decoded.frames), decoded.reasons) == (26, ())
    assert len(decoded.samples) >= 15_600, "one example of VGGish"
