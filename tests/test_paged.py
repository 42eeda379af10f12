from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest

from tristream.media import paged
from tristream.memory import tree_bytes


def test_large_arrays_leave_memory_and_keep_their_values():
    before = tree_bytes(os.getpid())
    array = paged.empty((64, 1 << 20), np.uint8)
    array[:] = np.arange(64, dtype=np.uint8)[:, None]
    assert tree_bytes(os.getpid()) - before > 50 << 20
    paged.release(array)
    assert tree_bytes(os.getpid()) - before < 10 << 20
    assert (array[:, ::4096] == np.arange(64)[:, None]).all()
    view = array[3:5, 10:]
    paged.release(view)
    assert (view == np.array([[3], [4]])).all()


def test_small_arrays_are_plain_memory():
    small = paged.empty((3, 4), np.float32)
    assert small.base is None
    paged.release(small)
    assert paged.copy(np.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_a_full_disk_means_memory_not_a_crash(monkeypatch):
    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    array = paged.empty((paged.PAGED_BYTES,), np.uint8)
    assert array.base is None
    array[:] = 7


def test_paged_arrays_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = paged.copy(np.full(paged.PAGED_BYTES, 5, np.uint8))
    assert list(tmp_path.iterdir()) == []
    assert array.sum() == 5 * paged.PAGED_BYTES


@pytest.mark.parametrize("n_frames", [2, 33, 70])
def test_flow_in_blocks_is_the_flow_of_the_whole_video(make_videos, toy_video, n_frames):
    from tristream.flow import estimators
    from tristream.flow.storage import decode_compact, encode_compact
    from tristream.streams.video import reduce_flow

    decoded = toy_video(n_frames)
    [video], _ = make_videos({"a.mp4": decoded}, None)
    found = video.flow("dis_fast", (64, 64), (16, 24))
    whole = reduce_flow(estimators.load("dis_fast")(decoded.frames), 16, 24)
    assert found.field.dtype == np.float16
    assert np.array_equal(found.field, decode_compact(encode_compact(whole)).astype(np.float16))
