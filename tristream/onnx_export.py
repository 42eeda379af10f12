"""Trained streams and the classifier as ONNX graphs, each checked against torch on real videos.

A stream is two graphs: its encoder (segments of any number → segment embeddings) and its aggregator
(the segment embeddings of one video, of any number → video embedding). The classifier takes the
video embeddings side by side, NaN where a video lacks a stream.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.errors import TristreamError, UsageError
from tristream.videos import contents, decode_pool, decoder, make_video
from tristream.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from tristream.fusion.action.classifier import CalibratedSVM
    from tristream.streams.model import TrainedStream

LARGEST_ERROR = 1e-4  # against torch; of float32 sums in another order: 1e-7 to 1e-5
CHECKED_VIDEOS = 3
OPSET = 17


@dataclass(frozen=True)
class Graph:
    """One ONNX file.

    Attributes:
        path: of the file.
        inputs, outputs: {name: shape}; a name in a shape is an axis of any length.
        error: largest absolute difference to torch on the checked videos, relative to the largest
            value if that is above 1.
        n_checked: videos on which it was compared.
    """

    path: Path
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    error: float
    n_checked: int


def export_onnx(
    workspace: Workspace, *, out: Path | None = None, streams: Sequence[str] | None = None
) -> dict[str, Graph]:
    """Write encoder and aggregator of each trained stream and the classifier as ONNX.

    Each graph is run by onnxruntime on the first videos of the run that have the stream and compared
    with torch. `classifier.json` beside them holds the classes and the columns of each stream.

    Args:
        workspace: of a run with trained streams and videos.
        out: folder for the files; None: RUN/export/onnx.
        streams: trained streams; None: all.

    Returns:
        {name: graph}, as "audio-encoder", "audio-aggregator", "classifier". Without a fitted
        decision there is no classifier.

    Raises:
        UsageError: onnx or onnxruntime is not installed; no stream is trained.
        TristreamError: a graph that cannot be converted or differs from torch by more than 1e-4;
            no video of the run has the stream.
    """
    _check_installed()
    trained = workspace.load_streams(streams)
    folder = out or workspace.folder / "export" / "onnx"
    folder.mkdir(parents=True, exist_ok=True)
    graphs: dict[str, Graph] = {}
    segments = _first_segments(workspace, trained)
    for stream in trained:
        graphs |= _export_stream(stream, segments[stream.name], folder)
    classifier = _classifier(workspace, streams)
    if classifier is not None:
        graphs["classifier"] = _export_classifier(classifier, folder)
    return graphs


def _check_installed() -> None:
    for module in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"--to onnx needs the library {module}: pip install 'tristream[onnx]'")


def _first_segments(
    workspace: Workspace, trained: Sequence[TrainedStream]
) -> dict[str, list[np.ndarray]]:
    """Return the segments of the first videos that have each stream: {stream: one array per video}."""
    from tristream.media.reasons import Rejected
    from tristream.streams.model import shared_estimators
    from tristream.streams.segments import Absent

    workspace = workspace.reading_from(workspace.data_root())
    estimators = shared_estimators(trained)
    segments: dict[str, list[np.ndarray]] = {stream.name: [] for stream in trained}
    with decode_pool(workspace) as pool:
        decode = decoder(pool, workspace.reading)
        for row in workspace.manifest().rows:
            missing = [each for each in trained if len(segments[each.name]) < CHECKED_VIDEOS]
            if not missing:
                break
            content = contents([row], workspace.reading)[row.video_id]
            video = make_video(
                row,
                content,
                missing,
                decode=decode,
                cache=workspace.cache(),
                flow_from=workspace.reading.flow_from,
                estimators=estimators,
            )
            for stream in missing:
                with contextlib.suppress(Absent, Rejected):
                    cut = stream.stream.cut(stream.stream.footage(video))
                    segments[stream.name].append(cut.array)
            video.forget()
    for name, arrays in segments.items():
        if not arrays:
            raise TristreamError(
                f"no video of {workspace.folder} has the stream '{name}': its graphs cannot be "
                "checked; leave it out with --streams"
            )
    return segments


def _export_stream(
    stream: TrainedStream, videos: Sequence[np.ndarray], folder: Path
) -> dict[str, Graph]:
    import torch

    from tristream.streams.backend import Embedding

    encoder = Embedding(stream.model.encoder).eval()  # type: ignore[arg-type]
    aggregator = _one_video(stream.model).eval()
    reference: list[np.ndarray] = []
    with torch.inference_mode():
        for array in videos:
            reference.append(encoder(torch.from_numpy(np.ascontiguousarray(array))).numpy())
        whole = [aggregator(torch.from_numpy(rows)[None]).numpy() for rows in reference]
    first = {
        "encoder": (encoder, videos, reference, "segments", "segment_embeddings", "B"),
        "aggregator": (
            aggregator,
            [rows[None] for rows in reference],
            whole,
            "segment_embeddings",
            "video_embedding",
            "S",
        ),
    }
    graphs = {}
    for part, (module, inputs, outputs, taken, given, axis) in first.items():
        path = folder / f"{stream.name}-{part}.onnx"
        where = 0 if axis == "B" else 1
        example = torch.from_numpy(np.ascontiguousarray(inputs[0]))
        axes = {taken: {where: axis}} | ({given: {0: axis}} if axis == "B" else {})
        _convert(module, example, path, (taken,), (given,), axes)
        pairs = [({taken: x}, [y]) for x, y in zip(inputs, outputs, strict=True)]
        graphs[f"{stream.name}-{part}"] = _checked(path, pairs)
    return graphs


def _one_video(model: Any) -> torch.nn.Module:
    """Return the aggregator for one video without padding: (1, S, D) → (1, E)."""
    import torch
    from torch import nn

    class OneVideo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, segments: torch.Tensor) -> torch.Tensor:
            lengths = torch.full((1,), segments.shape[1], dtype=torch.int64)
            return self.model.aggregate(segments, lengths)

    return OneVideo()


def _classifier(
    workspace: Workspace, streams: Sequence[str] | None
) -> tuple[CalibratedSVM, list[str]] | None:
    from tristream.decision import Decision
    from tristream.store.checkpoint import ArtifactError

    try:
        svm = Decision(workspace).classifier
    except (UsageError, ArtifactError):
        return None
    names = list(svm.svm.standardiser.columns)
    return None if streams is not None and set(names) - set(streams) else (svm, names)


def _export_classifier(classifier: tuple[CalibratedSVM, list[str]], folder: Path) -> Graph:
    """Write standardisation, margins and, if calibrated, the probabilities of complete videos."""
    import torch
    from torch import nn

    calibrated, names = classifier
    svm = calibrated.svm
    scaler = svm.standardiser
    double = {
        name: torch.from_numpy(np.asarray(value, dtype=np.float64))
        for name, value in (
            ("mean", scaler.mean),
            ("sd", scaler.sd),
            ("coef", svm.coef_.T),
            ("intercept", svm.intercept_),
        )
    }
    known = torch.zeros(len(scaler.mean), dtype=torch.bool)
    for block, is_known in zip(scaler.columns.values(), scaler.known, strict=True):
        known[block] = bool(is_known)

    class Classifier(nn.Module):
        def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
            used = known & ~torch.isnan(embeddings)
            z = (embeddings.double() - double["mean"]) / double["sd"]
            z = torch.where(used, z, torch.zeros_like(z))
            return z @ double["coef"] + double["intercept"]

    generator = np.random.default_rng(0)
    X = (scaler.mean + scaler.sd * generator.standard_normal((4, len(scaler.mean)))).astype(
        np.float32
    )
    masked = X.copy()
    block = next(iter(scaler.columns.values()))
    masked[:2, block] = np.nan if len(names) > 1 else masked[:2, block]
    path = folder / "classifier.onnx"
    axes = {"embeddings": {0: "N"}, "margins": {0: "N"}}
    _convert(Classifier().eval(), torch.from_numpy(X), path, ("embeddings",), ("margins",), axes)
    pairs = [({"embeddings": rows}, [svm.margins(rows)]) for rows in (X, masked)]
    graph = _checked(path, pairs)
    curve = calibrated.calibration
    about = {
        "classes": [str(name) for name in svm.classes_],
        "columns": {name: [block.start, block.stop] for name, block in scaler.columns.items()},
        "temperature": getattr(curve, "temperature", None),
        "floor": getattr(curve, "floor", None),
    }
    (folder / "classifier.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return graph


def _convert(
    module: torch.nn.Module,
    example: torch.Tensor,
    path: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    axes: dict[str, dict[int, str]],
) -> None:
    """Write a module as ONNX, completely or not at all."""
    import torch

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer: the result is compared below
            torch.onnx.export(
                module,
                (example,),
                str(temporary),
                dynamo=False,  # the other exporter needs onnxscript and cannot trace packed sequences
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes=axes,
                opset_version=OPSET,
            )
        temporary.replace(path)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TristreamError(
            f"{path.stem} cannot be converted to ONNX ({reason}); leave the stream out with --streams"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _checked(path: Path, pairs: Sequence[tuple[dict[str, np.ndarray], list[np.ndarray]]]) -> Graph:
    """Run a graph and compare it with torch.

    Raises:
        TristreamError: it differs by more than 1e-4; its file is removed.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    error = 0.0
    for inputs, expected in pairs:
        for actual, wanted in zip(session.run(None, inputs), expected, strict=True):
            scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
            error = max(error, float(np.abs(actual - wanted).max(initial=0.0)) / scale)
    if not error <= LARGEST_ERROR:
        path.unlink()
        raise TristreamError(
            f"{path.stem} differs from torch by {error:.1e} in ONNX; at most {LARGEST_ERROR:.0e} is "
            "accepted; the file was removed"
        )
    return Graph(
        path,
        {each.name: list(each.shape) for each in session.get_inputs()},
        {each.name: list(each.shape) for each in session.get_outputs()},
        error,
        len(pairs),
    )
