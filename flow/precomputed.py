"""Precomputed flow: a source looked up by `video_id`, not an estimator.

For the video `a/b.mp4` one of these stands in the folder:

- `a/b.safetensors`, one tensor `flow` (T − 1, 2, H, W), float16 or float32, px;
- `a/b/`, a folder of T − 1 `.flo` or KITTI `.png` files in the order of their names.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from tristream.errors import TristreamError
from tristream.flow import storage


def read(folder: Path, video_id: str, *, n_steps: int) -> Float[np.ndarray, "n_steps 2 H W"]:
    """Return the first `n_steps` fields of a video, px, float32.

    Raises:
        TristreamError: nothing is there for this video, it holds too few fields, or values that are not finite.
    """
    place = _locate(folder, video_id)
    flow = _read_fields(place)
    if flow.ndim != 4 or flow.shape[1] != 2:
        raise TristreamError(
            f"{place} holds an array of shape {flow.shape}; flow is (T - 1, 2, height, width)"
        )
    if len(flow) < n_steps:
        raise TristreamError(
            f"{place} holds {len(flow)} flow fields, but '{video_id}' has {n_steps + 1} frames and needs {n_steps}; "
            "compute the flow of this very file"
        )
    flow = np.asarray(flow[:n_steps], np.float32)
    if not np.isfinite(flow).all():
        raise TristreamError(f"{place} holds flow that is not finite; compute it again")
    return flow


def read_range(
    folder: Path, video_id: str, first: int, last: int
) -> Float[np.ndarray, "steps 2 H W"]:
    """Return the fields first … last − 1 of a video, px, float32; the others are not read.

    Raises:
        TristreamError: as `read`.
    """
    place = _locate(folder, video_id)
    flow, n_fields = _read_part(place, first, last)
    if n_fields < last:
        raise TristreamError(
            f"{place} holds {n_fields} flow fields, but '{video_id}' has at least {last + 1} frames "
            f"and needs {last}; compute the flow of this very file"
        )
    if flow.ndim != 4 or flow.shape[1] != 2:
        raise TristreamError(
            f"{place} holds an array of shape {flow.shape}; flow is (T - 1, 2, height, width)"
        )
    if not np.isfinite(flow).all():
        raise TristreamError(f"{place} holds flow that is not finite; compute it again")
    return np.asarray(flow, np.float32)


def sha256(folder: Path, video_id: str) -> str:
    """Return the sha256 of the stored flow of a video."""
    place = _locate(folder, video_id)
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    sha = hashlib.sha256()
    for file in files:
        sha.update(file.read_bytes())
    return sha.hexdigest()


def _locate(folder: Path, video_id: str) -> Path:
    name = PurePosixPath(video_id)
    if name.is_absolute() or ".." in name.parts:
        raise TristreamError(f"no precomputed flow for '{video_id}': it lies outside the data root")
    stem = folder / name.with_suffix("")
    for place in (stem.with_name(stem.name + ".safetensors"), stem):
        if place.exists():
            return place
    raise TristreamError(
        f"no precomputed flow for '{video_id}': neither {stem}.safetensors nor the folder {stem} exists"
    )


_READERS = {".flo": storage.read_flo, ".png": storage.read_kitti}


def _read_fields(place: Path) -> np.ndarray:
    if place.is_dir():
        return _stack(_field_files(place))
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(place.read_bytes())["flow"]
    except (SafetensorError, KeyError) as error:
        raise TristreamError(
            f"{place} is not a safetensors file with a tensor 'flow' ({error})"
        ) from error


def _read_part(place: Path, first: int, last: int) -> tuple[np.ndarray, int]:
    """Return the existing fields among first … last − 1, and the number of all."""
    if place.is_dir():
        files = _field_files(place)
        return _stack(files[first:last] or files[-1:]), len(files)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place, framework="numpy") as file:
            stored = file.get_slice("flow")
            n_fields = stored.get_shape()[0]
            return stored[min(first, n_fields - 1) : min(last, n_fields)], n_fields
    except (SafetensorError, KeyError) as error:
        raise TristreamError(
            f"{place} is not a safetensors file with a tensor 'flow' ({error})"
        ) from error


def _field_files(place: Path) -> list[Path]:
    files = [file for file in sorted(place.iterdir()) if file.suffix in _READERS]
    if not files:
        raise TristreamError(
            f"{place} holds no .flo and no .png file; it must hold one for each step"
        )
    return files


def _stack(files: list[Path]) -> np.ndarray:
    fields = [_READERS[file.suffix](file) for file in files]
    return np.stack([field[0] if isinstance(field, tuple) else field for field in fields])
