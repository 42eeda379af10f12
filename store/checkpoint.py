"""Arrays and configuration as two files that load no code: NAME.safetensors and NAME.json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from tristream.errors import TristreamError
from tristream.store.atomic import write_bytes


class ArtifactError(TristreamError):
    """Artifact that is missing, damaged, or inconsistent with its configuration."""


def save_artifact(
    path: Path,
    arrays: dict[str, np.ndarray],
    config: dict[str, Any],
    *,
    config_file: str | None = None,
) -> str:
    """Write `path`.safetensors and `path`.json (or `config_file` beside it); return the sha256 of the former.

    The JSON is the manifest: it holds the sha256 of the arrays and, on its last line, that of its own bytes before.
    It is written last, so that a crash between the two leaves an artifact that is refused.
    """
    from safetensors.numpy import save

    data = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    sha256 = hashlib.sha256(data).hexdigest()
    text = _text({**config, "sha256": sha256})  # before anything is written: it may not be possible
    write_bytes(path.with_name(f"{path.name}.safetensors"), data)
    write_bytes(_config_path(path, config_file), _sealed(text))
    return sha256


def save_config(path: Path, config: dict[str, Any], *, config_file: str | None = None) -> None:
    """Rewrite the sealed JSON half of an artifact; the arrays stay, and `config` must keep their sha256."""
    write_bytes(_config_path(path, config_file), _sealed(_text(config)))


def load_config(path: Path, *, config_file: str | None = None) -> dict[str, Any]:
    """Return the JSON half of the artifact `path`.

    Raises:
        ArtifactError: it is missing, its bytes have changed since it was written, or it is not JSON.
    """
    file = _config_path(path, config_file)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{file} does not exist") from None
    is_sealed = _SEAL.encode() in data
    if is_sealed and _sealed_again(data) != data:
        raise ArtifactError(
            f"{file} is corrupt: its sha256 is not the one on its last line; make it again"
        )
    try:
        config = json.loads(data.decode())
    except ValueError as error:
        raise ArtifactError(f"{file} is corrupt ({error}); delete it and make it again") from error
    if not isinstance(config, dict) or not isinstance(config.get("sha256"), str):
        raise ArtifactError(f"{file} is corrupt (no sha256 in it); delete it and make it again")
    if config.pop("sealed", False) and not is_sealed:
        raise ArtifactError(
            f"{file} is corrupt: the sha256 of its own bytes is not on its last line; make it again"
        )
    config.pop("file_sha256", None)
    return config


def load_artifact(
    path: Path, *, config_file: str | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and configuration of the artifact `path`; the bytes are verified before they are parsed.

    Raises:
        ArtifactError: a file is missing, its sha256 differs, the arrays are no safetensors file, or not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    config, file = (
        load_config(path, config_file=config_file),
        path.with_name(f"{path.name}.safetensors"),
    )
    config_name = _config_path(path, config_file).name
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(
            f"{file} does not exist, though {config_name} does; make it again"
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != config["sha256"]:
        raise ArtifactError(
            f"{file} is corrupt: its sha256 is {digest[:12]}…, {config_name} says {config['sha256'][:12]}…; "
            "make it again"
        )
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} is no safetensors file ({error}); make it again") from error
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ArtifactError(
                f"{file}: array '{name}' holds values that are not finite; make it again"
            )
    return arrays, config


_SEAL = ',\n "file_sha256": "'


def _text(config: dict[str, Any]) -> str:
    return json.dumps({**config, "sealed": True}, indent=1, sort_keys=True, ensure_ascii=False)


def _sealed(text: str) -> bytes:
    """Return a JSON object with one more key at its end: the sha256 of all bytes before that key."""
    stem = text.removesuffix("\n}")
    return f'{stem}{_SEAL}{hashlib.sha256(stem.encode()).hexdigest()}"\n}}\n'.encode()


def _sealed_again(data: bytes) -> bytes:
    """Return `data` sealed again, to compare with what `_sealed` wrote."""
    stem = data.rpartition(_SEAL.encode())[0]
    return stem + f'{_SEAL}{hashlib.sha256(stem).hexdigest()}"\n}}\n'.encode()


def _config_path(path: Path, config_file: str | None) -> Path:
    return path.with_name(config_file or f"{path.name}.json")
