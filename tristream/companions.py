"""Companions of videos in a data folder: lists, archives and weights, checked as videos are."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tristream.media.probe import Verdict
from tristream.media.reasons import Rejected, printable

LISTS = (".csv",)
WEIGHTS = (
    ".safetensors",
    ".pt",
    ".pth",
    ".ckpt",
    ".bin",
    ".pkl",
    ".pickle",
    ".joblib",
    ".npy",
    ".npz",
    ".tflite",
)


def judge_companion(path: Path, root: Path | None) -> Verdict | None:
    """Return the verdict on a list, an archive or a file of weights; None for any other suffix.

    Args:
        path: the file; no file that it names is opened, and none of its content is run.
        root: folder that must contain the paths of a list; None: the list's own.
    """
    from tristream.dataset import archive

    name = path.name.lower()
    try:
        if name.endswith(LISTS):
            _judge_list(path, root)
        elif name.endswith(archive.SUFFIXES):
            archive.inspect(path)
        elif name.endswith(WEIGHTS):
            _judge_weights(path)
        else:
            return None
    except Rejected as error:
        return Verdict(status="rejected", reasons=(error.reason,), message=str(error))
    return Verdict(status="ok", reasons=())


def _judge_list(path: Path, root: Path | None) -> None:
    from tristream.dataset.listing import ManifestError, index_csv

    try:
        index_csv(path, root)
    except ManifestError as error:
        n = len(error.problems)
        raise Rejected(
            "label_file_invalid", path, f"has {n} problems: {'; '.join(error.problems)}"
        ) from error


def _judge_weights(path: Path) -> None:
    """Convert the file as `weights add` does, in a process without rights, and discard the result."""
    from tristream.media.limits import DEFAULT_LIMITS
    from tristream.media.opening import open_file
    from tristream.store.weights import convert

    open_file(path, limits=DEFAULT_LIMITS, root=None, follow_links=True).close()
    with tempfile.TemporaryDirectory(prefix="tristream-") as folder:
        try:
            convert.to_safetensors(path, Path(folder) / "weights.safetensors")
        except convert.ImportRefused as error:
            reason = (
                "artifact_corrupt" if path.suffix.lower() == ".safetensors" else "unsafe_artifact"
            )
            raise Rejected(
                reason, path, printable(str(error).removeprefix(str(path)).strip())
            ) from error
