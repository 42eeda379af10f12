"""Convert weight files of other formats, recognised by content, to safetensors without running anything in them.

PyTorch's files are pickles: they are read in a child process without any rights (`convert_child`), as
plain tensors and nothing else. TorchScript archives and all other pickles are refused.
"""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

from tristream.errors import TristreamError
from tristream.store.atomic import replace_file
from tristream.store.weights import pickle_scan

MAX_BYTES = 4 << 30  # of one file; the largest encoders of timm are near it
MAX_SECONDS = 900.0
MAX_PICKLE_BYTES = (
    64 << 20
)  # of a PyTorch file's table of contents; the numbers themselves lie beside it
FORMATS = "safetensors, PyTorch state dict (.pth, .pt, .ckpt), TFLite, NumPy .npz"
_CHILD = Path(__file__).with_name("convert_child.py")
_TORCH_LEGACY = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number such a file starts with
)
_REFUSED = 3


class ImportRefused(TristreamError):
    """File that holds no weights, or that could run code."""


def format_of(path: Path) -> str:
    """Return safetensors, torch, tflite or npz, by the content of the file, not its name.

    Raises:
        ImportRefused: none of these; the message names the likely format.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if (
        len(head) > 8
        and head[8:9] == b"{"
        and struct.unpack("<Q", head[:8])[0] <= path.stat().st_size
    ):
        return "safetensors"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head.startswith(_TORCH_LEGACY):
        return "torch"
    if head.startswith(b"PK\x03\x04"):
        return _format_of_zip(path)
    raise ImportRefused(f"{path} is {_looks_like(head)}; it must be one of: {FORMATS}")


def _format_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ImportRefused(
            f"{path} is a broken zip archive ({error}); get the file again"
        ) from error
    names = [member.filename for member in members]
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise ImportRefused(
            f"{path} unpacks to more than {MAX_BYTES >> 30} GiB; weights of this program are smaller"
        )
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise ImportRefused(
            f"{path} is a TorchScript archive: a program, not plain weights, and is not opened; "
            "get the model's state dict instead"
        )
    if pickle := next((name for name in names if name.endswith("/data.pkl")), None):
        _refuse_calls(path, pickle)
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise ImportRefused(
        f"{path} is a zip archive of other files (first: {names[:1]}); it must be one of: {FORMATS}"
    )


def _refuse_calls(path: Path, member: str) -> None:
    """Check what the pickle in an archive would call before PyTorch reads it."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            data = file.read(MAX_PICKLE_BYTES + 1)
        if len(data) > MAX_PICKLE_BYTES:
            raise ImportRefused(
                f"{path} has a pickle of over {MAX_PICKLE_BYTES >> 20} MiB; that of weights is small"
            )
        calls = pickle_scan.forbidden(pickle_scan.calls_in(data))
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError) as error:
        raise ImportRefused(
            f"{path} is a broken zip archive ({error}); get the file again"
        ) from error
    except (ValueError, IndexError, KeyError) as error:
        if isinstance(error, ImportRefused):
            raise
        raise ImportRefused(
            f"{path} holds no pickle that can be read ({error}); get the file again"
        ) from error
    if calls:
        raise ImportRefused(
            f"{path} would call {calls[0]!r} when it is loaded, as no plain weights do; it is not opened. Save the "
            "model's state_dict() alone"
        )


def _looks_like(head: bytes) -> str:
    if not head:
        return "empty"
    if head[:1] == b"\x80" or head.startswith((b"(", b"ccopy_reg", b"c__builtin__")):
        return "a pickle, which can run code, and is not opened"
    if head.lstrip()[:14].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not weights (an error page, or a login, was saved in their place)"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself (git lfs pull)"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file"
    return f"of no known format (it starts with {head[:8]!r})"


def to_safetensors(source: Path, target: Path) -> dict[str, str]:
    """Write the tensors of `source` to `target` as safetensors, completely or not at all.

    Of TFLite every constant is kept: named `<index>:<tensor name>`, de-quantised to float32; the graph is in the
    metadata.

    Returns:
        The file's metadata: of TFLite {"graph": JSON of operators and of the tensors between them}, else nothing.

    Raises:
        ImportRefused: no weights, damaged, values that are not finite, or more than plain tensors in it.
    """
    kind = format_of(source)
    size = source.stat().st_size
    if size > MAX_BYTES:
        raise ImportRefused(f"{source} has {size} bytes; weights may have {MAX_BYTES} at most")
    command = [sys.executable, "-I", str(_CHILD), kind, str(size)]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with source.open("rb") as given, replace_file(target) as written:
        try:
            done = subprocess.run(
                command, stdin=given, stdout=written, stderr=subprocess.PIPE, env=environment, timeout=MAX_SECONDS,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ImportRefused(
                f"{source}: reading it took more than {MAX_SECONDS:g} s, and was stopped"
            ) from error
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [
                "it said nothing"
            ]
            if done.returncode == _REFUSED:
                raise ImportRefused(f"{source} is not taken: {lines[-1]}")
            raise ImportRefused(
                f"{source} is not taken: the process that read it ended with {done.returncode} ({lines[-1][:200]})"
            )
    return metadata_of(target)


def metadata_of(path: Path) -> dict[str, str]:
    """Return the text metadata of a safetensors file."""
    import json

    with path.open("rb") as file:
        (n_header,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(n_header)).get("__metadata__", {})


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
