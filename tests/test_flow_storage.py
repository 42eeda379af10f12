from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tristream.flow import storage

CHAIRS = Path(__file__).parents[2] / "shared" / "data" / "flow" / "flyingchairs"


def smooth_flow(
    n_fields: int = 3, height: int = 37, width: int = 53, size: float = 4.0
) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(n_fields, 2, height, width)).astype(np.float32)
    fields = np.stack([[cv2.GaussianBlur(plane, (0, 0), 6) for plane in field] for field in noise])
    return (fields / np.abs(fields).max() * size).astype(np.float32)


# Middlebury .flo


def test_flo_files_are_byte_for_byte_opencvs(tmp_path):
    flow = smooth_flow(1)[0]
    storage.write_flo(tmp_path / "ours.flo", flow)
    cv2.writeOpticalFlow(
        str(tmp_path / "theirs.flo"), np.ascontiguousarray(flow.transpose(1, 2, 0))
    )
    assert (tmp_path / "ours.flo").read_bytes() == (tmp_path / "theirs.flo").read_bytes()
    np.testing.assert_array_equal(storage.read_flo(tmp_path / "theirs.flo"), flow)


def test_real_flo_files_read_as_opencv_reads_them():
    files = sorted(CHAIRS.glob("*.flo"))
    if not files:
        pytest.skip(f"no FlyingChairs pairs in {CHAIRS}")
    for file in files:
        np.testing.assert_array_equal(
            storage.read_flo(file), cv2.readOpticalFlow(str(file)).transpose(2, 0, 1)
        )


def test_unknown_flow_is_nan_here_and_huge_in_a_flo_file(tmp_path):
    flow = smooth_flow(1)[0]
    flow[:, 3, 5] = np.nan
    storage.write_flo(tmp_path / "a.flo", flow)
    assert cv2.readOpticalFlow(str(tmp_path / "a.flo"))[3, 5].min() > 1e9
    np.testing.assert_array_equal(storage.read_flo(tmp_path / "a.flo"), flow)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"PIEX" + data[4:], "begins with b'PIEX'"),
        (lambda data: data[:7], "begins with b'PIEH'"),
        (lambda data: data[:-1], "has 15699 bytes; .* 53 x 37 px has 15700"),
        (lambda data: data + b"\0", "has 15701 bytes"),
        (
            lambda data: data[:4] + struct.pack("<i", -53) + data[8:],
            "has 15700 bytes; .* -53 x 37 px",
        ),
        (
            lambda data: data[:4] + struct.pack("<ii", 2**30, 2**30) + data[12:],
            "has 15700 bytes; .* 1073741824 x 1073741824 px",
        ),
    ],
)
def test_damaged_flo_files_are_refused(tmp_path, damage, message):
    file = tmp_path / "a.flo"
    storage.write_flo(file, smooth_flow(1)[0])
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=rf"a\.flo {message}"):
        storage.read_flo(file)


def test_a_write_that_fails_leaves_neither_a_file_nor_a_trace(tmp_path, monkeypatch):
    def full_disk(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        storage.write_flo(tmp_path / "a.flo", smooth_flow(1)[0])
    assert list(tmp_path.iterdir()) == []


# KITTI png


def test_kitti_files_hold_u_v_and_valid_as_16_bit_rgb(tmp_path):
    flow = smooth_flow(1)[0]
    flow[0, 0, 0], flow[1, 0, 0] = 1.5, -2.25
    flow[1, 2, 3] = np.nan
    storage.write_kitti(tmp_path / "a.png", flow)
    blue, green, red = (
        cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED).transpose(2, 0, 1).astype(int)
    )
    assert (red[0, 0], green[0, 0], blue[0, 0]) == (32768 + 96, 32768 - 144, 1)
    assert blue[2, 3] == 0
    assert blue.sum() == blue.size - 1


def test_kitti_round_trip_is_within_half_a_step_and_keeps_what_is_invalid(tmp_path):
    flow = smooth_flow(1, size=500)[0]
    flow[:, 2, 3] = np.nan
    storage.write_kitti(tmp_path / "a.png", flow)
    again = storage.read_kitti(tmp_path / "a.png")
    assert again.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(again), np.isnan(flow))
    assert np.nanmax(np.abs(again - flow)) <= 1 / 128
    storage.write_kitti(tmp_path / "b.png", again)
    np.testing.assert_array_equal(storage.read_kitti(tmp_path / "b.png"), again)


@pytest.mark.parametrize("value", [512.0, -512.1, np.inf])
def test_kitti_refuses_displacements_it_cannot_hold(tmp_path, value):
    flow = smooth_flow(1)[0]
    flow[0, 1, 1] = value
    with pytest.raises(ValueError, match=rf"{abs(value):.7g} px does not fit"):
        storage.write_kitti(tmp_path / "a.png", flow)


def test_kitti_refuses_other_pictures(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="png of 8 bits and colour type 2"):
        storage.read_kitti(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"b\.png begins with b'GIF8'"):
        storage.read_kitti(tmp_path / "b.png")


@pytest.mark.parametrize("where", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_kitti_file_is_refused_rather_than_half_read(tmp_path, where, cut):
    file = tmp_path / "a.png"
    storage.write_kitti(file, smooth_flow(1)[0])
    data = bytearray(file.read_bytes())
    at = int(len(data) * where)
    if cut:
        del data[at:]
    else:
        data[at] ^= 0x55
    file.write_bytes(data)
    with pytest.raises(ValueError, match="53 x 37 px"):
        storage.read_kitti(file)


# 8 bits


def test_8_bit_codes_follow_the_stated_rule():
    flow = np.array([-25, -20, -0.05, 0, 0.05, 19.95, 20, 30], dtype=np.float32).reshape(2, 2, 2)
    assert storage.encode_uint8(flow, 20).ravel().tolist() == [0, 0, 127, 128, 128, 255, 255, 255]


@given(st.floats(0.1, 100), hnp.arrays(np.float32, (2, 4, 5), elements=st.floats(-1, 1, width=32)))
def test_8_bit_errors_are_at_most_half_a_step_inside_the_bound(bound, shares):
    flow = shares * np.float32(bound)
    again = storage.decode_uint8(storage.encode_uint8(flow, bound), bound)
    assert again.dtype == np.float32
    assert np.abs(again - flow).max() <= bound / 255 * (1 + 1e-5)


def test_motion_beyond_the_bound_is_clipped_to_it():
    flow = np.full((2, 3, 3), 27.07, dtype=np.float32)
    again = storage.decode_uint8(storage.encode_uint8(flow, 20.0), 20.0)
    np.testing.assert_allclose(flow - again, 7.07, atol=1e-5)


def test_a_fitted_bound_clips_nothing_and_gives_each_field_its_own_step():
    flow = smooth_flow(3) * np.float32([0, 1, 50])[:, None, None, None]
    bound = storage.fitted_bound(flow)
    again = storage.decode_uint8(storage.encode_uint8(flow, bound), bound)
    errors = np.abs(again - flow).max(axis=(1, 2, 3))
    assert (errors <= bound.ravel() / 255 * (1 + 1e-5)).all()
    assert errors[1] < errors[2] / 10


@pytest.mark.parametrize("bound", [20.0, 7.3, 0.015625])
def test_no_motion_comes_back_as_the_same_half_step_everywhere(bound):
    again = storage.decode_uint8(
        storage.encode_uint8(np.zeros((2, 2, 9, 11), np.float32), bound), bound
    )
    assert np.unique(again).tolist() == [np.float32(bound / 255)]


@pytest.mark.parametrize("bound", [0.0, -20.0, np.nan])
def test_bounds_that_are_not_positive_are_refused(bound):
    for call in (storage.encode_uint8, storage.decode_uint8):
        with pytest.raises(ValueError, match=f"bound of 8-bit flow is {bound} px"):
            call(
                np.zeros((2, 3, 3), np.float32 if call is storage.encode_uint8 else np.uint8), bound
            )


def test_8_bits_refuse_flow_that_is_not_finite():
    flow = smooth_flow(1)[0]
    flow[0, :2, 0] = np.inf, np.nan
    with pytest.raises(ValueError, match="2 values that are not finite"):
        storage.encode_uint8(flow, 20)


# compact form


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6).map(
            lambda s: (s[0] - 1, 2, *s[1:])
        ),
        elements=st.floats(width=32),
    )
)
def test_compact_flow_is_within_a_128th_of_a_pixel_and_exact_beyond_its_range(flow):
    again = storage.decode_compact(storage.encode_compact(flow))
    assert again.shape == flow.shape
    assert again.dtype == np.float32
    inside = np.abs(flow) <= 511.98
    assert (np.abs(again[inside] - flow[inside]) <= 1 / 128).all()
    beyond = ~(np.abs(flow) <= 512)
    np.testing.assert_array_equal(again[beyond], flow[beyond])


@pytest.mark.parametrize(
    "value", [511.98, 511.99, 511.9922, 511.99222, 511.9999, 512.0, 513.3, 1e30, np.inf, np.nan]
)
def test_compact_flow_holds_every_value_around_the_end_of_its_range(value):
    flow = np.zeros((2, 2, 3, 4), dtype=np.float32)
    flow[0, 1, 2, 3], flow[1, 0, 1, 1] = value, -value
    again = storage.decode_compact(storage.encode_compact(flow))
    np.testing.assert_allclose(again, flow, rtol=0, atol=1 / 128)


def test_compact_flow_of_real_motion_takes_a_tenth_of_float16():
    files = sorted(CHAIRS.glob("*.flo"))
    if not files:
        pytest.skip(f"no FlyingChairs pairs in {CHAIRS}")
    flow = np.stack([storage.read_flo(file) for file in files])
    data = storage.encode_compact(flow)
    assert len(data) < flow.nbytes / 20
    assert np.abs(storage.decode_compact(data) - flow).max() <= 1 / 128


def test_compact_flow_decodes_from_an_array_of_bytes_and_from_a_slice_of_a_larger_array():
    flow = smooth_flow()
    data = storage.encode_compact(flow)
    expected = storage.decode_compact(data.tobytes())
    np.testing.assert_array_equal(storage.decode_compact(data), expected)
    np.testing.assert_array_equal(storage.decode_compact(np.repeat(data, 2)[::2]), expected)


def test_encoding_again_what_was_decoded_changes_nothing():
    once = storage.decode_compact(storage.encode_compact(smooth_flow()))
    np.testing.assert_array_equal(storage.decode_compact(storage.encode_compact(once)), once)


def test_float16_flow_and_views_encode_like_their_float32_copies():
    flow = smooth_flow(4)
    view = flow[::2, :, 3:, ::-1]
    np.testing.assert_array_equal(storage.encode_compact(view), storage.encode_compact(view.copy()))
    half = flow.astype(np.float16)
    np.testing.assert_array_equal(
        storage.encode_compact(half), storage.encode_compact(half.astype(np.float32))
    )


def test_flipped_bytes_never_come_back_as_other_flow_and_cuts_are_noticed():
    flow = smooth_flow(1, 6, 7)
    flow[0, 0, 0, 0] = 1e6
    data = storage.encode_compact(flow).tobytes()
    expected = storage.decode_compact(data)
    n_refused = 0
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        try:
            again = storage.decode_compact(bytes(damaged))
        except ValueError:
            n_refused += 1
        else:
            np.testing.assert_array_equal(again, expected)
        with pytest.raises(ValueError, match="compact flow"):
            storage.decode_compact(data[:at])
    assert (
        n_refused >= len(data) - 2
    )  # two bytes of zstd's frame header have bits that change nothing
    with pytest.raises(ValueError, match=f"compact flow of {len(data) + 3} bytes is damaged"):
        storage.decode_compact(data + b"abc")


def test_a_header_that_promises_another_size_is_refused():
    data = storage.encode_compact(smooth_flow(2, 6, 8)).tobytes()
    for sizes, message in (
        ((2, 6, 9, 0), "2 fields of 9 x 6 px have 432"),
        ((1, 6, 8, 0), "compact flow"),
    ):
        header = struct.pack("<8s4I", b"TSFLOW1\0", *sizes)
        with pytest.raises(ValueError, match=message):
            storage.decode_compact(header + struct.pack("<I", zlib.crc32(header)) + data[28:])


def test_other_bytes_are_not_compact_flow():
    with pytest.raises(ValueError, match=r"begins with b'PIEH' \(4 bytes\)"):
        storage.decode_compact(b"PIEH")
