"""Optical flow on disk: Middlebury's .flo, KITTI's png, 8-bit codes, and our own compact form for the cache.

Fields are (2, H, W), x then y, in px. A displacement that a file calls unknown is NaN here.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int16, UInt8

from tristream.errors import TristreamError

_FLO_HEADER = struct.Struct("<4sii")  # magic, width, height
_FLO_MAGIC = b"PIEH"
_FLO_UNKNOWN = 1e9  # larger values are unknown; Middlebury writes 1e10
_KITTI_SCALE, _KITTI_ZERO = 64, 32768
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_HEADER = struct.Struct(">IIBB")  # width, height, bits, colour type (2: RGB)
_COMPACT_HEADER = struct.Struct(
    "<8s4I"
)  # magic, fields, height, width, escaped values; a CRC-32 of these follows
_COMPACT_MAGIC = b"TSFLOW1\0"
_COMPACT_SCALE = 64
_ESCAPE = -32768
_COMPACT_PIECE = 1 << 16  # bytes that are decompressed at a time: a few megabytes of flow


def write_flo(path: Path, flow: Float[np.ndarray, "2 H W"]) -> None:
    """Write one field in Middlebury's format, float32, the same bytes as OpenCV; NaN becomes its mark for unknown."""
    _, height, width = flow.shape
    interleaved = np.ascontiguousarray(flow.transpose(1, 2, 0), dtype="<f4")  # (H, W, 2)
    interleaved = np.where(np.isnan(interleaved), np.float32(1e10), interleaved)
    _write(path, _FLO_HEADER.pack(_FLO_MAGIC, width, height) + interleaved.tobytes())


def read_flo(path: Path) -> Float32[np.ndarray, "2 H W"]:
    """Return one field from Middlebury's format.

    Raises:
        TristreamError: not a .flo file, or not of the size that its header states.
    """
    data = Path(path).read_bytes()
    if len(data) < _FLO_HEADER.size or data[:4] != _FLO_MAGIC:
        raise TristreamError(
            f"{path} begins with {data[:4]!r}; a .flo file begins with {_FLO_MAGIC!r}"
        )
    _, width, height = _FLO_HEADER.unpack_from(data)
    expected = _FLO_HEADER.size + 8 * width * height
    if width < 1 or height < 1 or len(data) != expected:
        raise TristreamError(
            f"{path} has {len(data)} bytes; a .flo file of {width} x {height} px has {expected}"
        )
    flow = np.frombuffer(data, dtype="<f4", offset=_FLO_HEADER.size).reshape(height, width, 2)
    flow = flow.transpose(2, 0, 1).astype(np.float32, order="C")
    flow[np.abs(flow) > _FLO_UNKNOWN] = np.nan
    return flow


def write_kitti(path: Path, flow: Float[np.ndarray, "2 H W"]) -> None:
    """Write one field as KITTI's 16-bit png, steps of 1/64 px; NaN becomes invalid.

    Raises:
        TristreamError: a displacement outside [-512, 512) px.
    """
    import cv2

    valid = ~np.isnan(flow).any(axis=0)
    codes = np.rint(np.where(valid, flow, 0) * np.float64(_KITTI_SCALE)) + _KITTI_ZERO
    if codes.min(initial=0) < 0 or codes.max(initial=0) > 65535:
        worst = np.nanmax(np.abs(flow))
        raise TristreamError(
            f"{path}: a displacement of {worst:.7g} px does not fit KITTI's format, -512 to 512 px; use .flo"
        )
    planes = np.stack([valid, codes[1], codes[0]], axis=-1).astype(
        np.uint16
    )  # BGR for OpenCV: RGB in the file
    _, png = cv2.imencode(".png", planes)
    _write(path, png.tobytes())


def read_kitti(path: Path) -> Float32[np.ndarray, "2 H W"]:
    """Return one field from KITTI's 16-bit png; invalid pixels are NaN.

    Raises:
        TristreamError: not a png of 16-bit RGB, or a damaged one.
    """
    import cv2

    data = Path(path).read_bytes()
    if not data.startswith(_PNG_START) or len(data) < len(_PNG_START) + _PNG_HEADER.size:
        raise TristreamError(f"{path} begins with {data[:4]!r}; KITTI's flow is a png file")
    width, height, bits, colour = _PNG_HEADER.unpack_from(data, len(_PNG_START))
    if (bits, colour) != (16, 2):
        raise TristreamError(
            f"{path} is a png of {bits} bits and colour type {colour}; KITTI's flow has 16 bits, RGB (2)"
        )
    planes = None
    if _png_is_whole(data):  # OpenCV fills what it cannot read with zeros
        with contextlib.suppress(cv2.error):
            planes = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if planes is None or planes.shape != (height, width, 3):
        raise TristreamError(
            f"{path} is damaged: {len(data)} bytes do not hold the {width} x {height} px it states"
        )
    flow = (planes[..., 2:0:-1].transpose(2, 0, 1).astype(np.float32) - _KITTI_ZERO) / _KITTI_SCALE
    flow[:, planes[..., 0] == 0] = np.nan
    return flow


def encode_uint8(
    flow: Float[np.ndarray, "*fields 2 H W"], bound: float | int | np.ndarray
) -> UInt8[np.ndarray, "*fields 2 H W"]:
    """Return 8-bit codes of flow clipped to ± `bound` px: floor((flow + bound) · 255 / (2 bound) + 1/2).

    A fixed bound (20 px is the field's habit) clips large motion; `fitted_bound` clips nothing, has to be stored with
    the codes, and gives each field its own step. Half a step is the largest error where nothing is clipped: .078 px at
    20. No motion has no code: it comes back as half a step on both axes, and the removal of the mean takes that away.

    Raises:
        TristreamError: a bound that is not positive, flow that is not finite.
    """
    bound = _positive_bound(bound)
    n_wild = np.count_nonzero(~np.isfinite(flow))
    if n_wild:
        raise TristreamError(
            f"flow has {n_wild} values that are not finite; 8 bits cannot hold them"
        )
    return np.floor((np.clip(flow, -bound, bound) + bound) * 255 / (2 * bound) + 0.5).astype(
        np.uint8
    )


def decode_uint8(
    codes: UInt8[np.ndarray, "*fields 2 H W"], bound: float | int | np.ndarray
) -> Float32[np.ndarray, "*fields 2 H W"]:
    """Return the flow of 8-bit codes, given the bound of their encoding.

    Raises:
        TristreamError: a bound that is not positive.
    """
    bound = _positive_bound(bound)
    return (codes * 2.0 * bound / 255 - bound).astype(np.float32)


def fitted_bound(flow: Float[np.ndarray, "*fields 2 H W"]) -> Float32[np.ndarray, "*fields 1 1 1"]:
    """Return the largest |component| of each field, px, at least 1/64 (Simonyan & Zisserman 2014, §5)."""
    return np.maximum(np.abs(flow).max(axis=(-3, -2, -1), keepdims=True), 1 / 64).astype(np.float32)


def encode_compact(flow: Float[np.ndarray, "fields 2 H W"]) -> UInt8[np.ndarray, "n"]:
    """Return our cache form as an array of bytes: about a thirtieth of float32 on real flow, off by at most 1/128 px.

    Each field in steps of 1/64 px as int16; differences to the left and then to the upper neighbour, modulo 2^16; small
    negative differences next to small positive ones (zigzag); low bytes, then high bytes; zstd level 3 over all fields.
    What int16 cannot hold (beyond ± 511.98 px, infinite, NaN) is marked and follows as float32, unchanged.
    """
    import zstandard

    n_fields, _, height, width = flow.shape
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    parts, escaped = [], [np.empty(0, dtype="<f4")]
    for field in flow:
        with np.errstate(over="ignore"):
            scaled = np.rint(field * np.float32(_COMPACT_SCALE))
        fits = np.abs(scaled) <= 32767
        if not fits.all():
            escaped.append(field[~fits].astype("<f4"))
            scaled = np.where(fits, scaled, np.float32(_ESCAPE))
        parts.append(compressor.compress(_pack(scaled.astype(np.int16))))
    exact = np.concatenate(escaped)
    parts += [compressor.compress(exact.tobytes()), compressor.flush()]
    header = _COMPACT_HEADER.pack(_COMPACT_MAGIC, n_fields, height, width, len(exact))
    data = b"".join([header, struct.pack("<I", zlib.crc32(header)), *parts])
    return np.frombuffer(data, dtype=np.uint8)


def decode_compact(
    data: bytes | UInt8[np.ndarray, "n"],
    *,
    empty: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> Float[np.ndarray, "fields 2 H W"]:
    """Return flow from our cache form, given as bytes or an array of them, decoded field by field.

    Args:
        data: what `encode_compact` gave.
        empty: makes the array for a shape, which is filled; None: float32 in memory.

    Raises:
        TristreamError: damaged, cut short, or not this form.
    """
    data = data if isinstance(data, bytes) else data.tobytes()
    start = _COMPACT_HEADER.size + 4
    header = data[: _COMPACT_HEADER.size]
    if len(data) < start or not header.startswith(_COMPACT_MAGIC):
        raise TristreamError(
            f"compact flow begins with {data[:8]!r} ({len(data)} bytes); it must begin with {_COMPACT_MAGIC!r}"
        )
    if struct.unpack_from("<I", data, _COMPACT_HEADER.size)[0] != zlib.crc32(header):
        raise TristreamError(
            f"compact flow of {len(data)} bytes has a damaged header; compute it again"
        )
    _, n_fields, height, width, n_escaped = _COMPACT_HEADER.unpack(header)
    sizes = [*itertools.repeat(4 * height * width, n_fields), 4 * n_escaped]
    parts = _decompressed(data, start, sizes, f"{n_fields} fields of {width} x {height} px")
    flow = (
        np.empty((n_fields, 2, height, width), np.float32)
        if empty is None
        else empty((n_fields, 2, height, width))
    )
    escaped: list[tuple[int, np.ndarray]] = []
    for t, planes in enumerate(itertools.islice(parts, n_fields)):
        codes = _unpack(np.frombuffer(planes, np.uint8), height, width)
        flow[t] = np.multiply(codes, np.float32(1 / _COMPACT_SCALE))
        if n_escaped and (marked := codes == _ESCAPE).any():
            escaped.append((t, marked))
    exact = np.frombuffer(next(parts), dtype="<f4")
    next(parts, None)  # the checksum, and that nothing follows
    for t, marked in escaped:
        here, exact = np.split(exact, [np.count_nonzero(marked)])
        flow[t][marked] = here
    return flow


def _decompressed(data: bytes, start: int, sizes: Sequence[int], what: str) -> Iterator[bytes]:
    """Yield the decompressed bytes in pieces of these sizes, with about one piece in memory."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor().decompressobj()
    waiting, at, n_found, expected = bytearray(), start, 0, sum(sizes)

    def damaged(why: object) -> TristreamError:
        return TristreamError(
            f"compact flow of {len(data)} bytes is damaged ({why}); compute it again"
        )

    for size in [*sizes, None]:
        while (size is None or len(waiting) < size) and at < len(data) and not decompressor.eof:
            try:
                piece = decompressor.decompress(data[at : at + _COMPACT_PIECE])
            except zstandard.ZstdError as error:
                raise damaged(error) from error
            at, n_found = at + _COMPACT_PIECE, n_found + len(piece)
            waiting += piece
            if n_found > expected:
                break
        if n_found > expected or (size is not None and len(waiting) < size and decompressor.eof):
            raise TristreamError(f"compact flow holds {n_found} bytes; {what} have {expected}")
        if not decompressor.eof and (size is None or len(waiting) < size):
            raise damaged("it ends too soon")
        if size is None:
            if decompressor.unused_data or at < len(data):
                raise damaged("something follows")
            return
        yield bytes(waiting[:size])
        del waiting[:size]


def _pack(codes: Int16[np.ndarray, "2 H W"]) -> bytes:
    left = codes.copy()
    left[:, :, 1:] -= codes[:, :, :-1]
    both = left.copy()
    both[:, 1:] -= left[:, :-1]
    zigzag = (both << 1) ^ (both >> 15)
    return zigzag.astype("<i2", copy=False).view(np.uint8).reshape(-1, 2).T.tobytes()


def _unpack(planes: UInt8[np.ndarray, "n"], height: int, width: int) -> Int16[np.ndarray, "2 H W"]:
    low, high = planes.reshape(2, -1)
    zigzag = low | (high.astype(np.uint16) << 8)
    both = ((zigzag >> 1) ^ -(zigzag & 1)).reshape(2, height, width)
    left = both.cumsum(axis=1, dtype=np.uint16)  # modulo 2^16, as the differences were
    return left.cumsum(axis=2, dtype=np.uint16).view(np.int16)


def _positive_bound(bound: float | int | np.ndarray) -> np.ndarray:
    bound = np.asarray(bound, dtype=np.float64)
    if not (bound > 0).all():
        raise TristreamError(f"the bound of 8-bit flow is {bound.min()} px; it must be positive")
    return bound


def _png_is_whole(data: bytes) -> bool:
    """True if every chunk up to the last agrees with its checksum."""
    at = 8
    while at + 12 <= len(data):
        (n_bytes,) = struct.unpack_from(">I", data, at)
        chunk, checksum = (
            data[at + 4 : at + 8 + n_bytes],
            data[at + 8 + n_bytes : at + 12 + n_bytes],
        )
        if len(checksum) < 4 or zlib.crc32(chunk) != int.from_bytes(checksum):
            return False
        if chunk[:4] == b"IEND":
            return True
        at += 12 + n_bytes
    return False


def _write(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
