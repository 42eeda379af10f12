"""Networks and classifier of a run as ONNX: onnxruntime computes what torch computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tristream as ts
from tristream import streams
from tristream.errors import TristreamError, UsageError
from tristream.streams import aggregator

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from tristream import onnx_export  # noqa: E402
from tristream.workspace import Workspace  # noqa: E402


@pytest.fixture(scope="module")
def run_folder(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("onnx") / "work"))
    return folder / "runs" / "default"


@pytest.fixture(scope="module")
def graphs(run_folder: Path) -> dict[str, onnx_export.Graph]:
    return onnx_export.export_onnx(Workspace.of(run_folder))


def _session(graph: onnx_export.Graph):
    return onnxruntime.InferenceSession(str(graph.path), providers=["CPUExecutionProvider"])


def test_every_stream_and_the_classifier_are_written_and_agree_with_torch(graphs):
    parts = {f"{name}-{part}" for name in streams.names() for part in ("encoder", "aggregator")}
    assert graphs.keys() == parts | {"classifier"}
    assert max(graph.error for graph in graphs.values()) <= 1e-4


def test_onnxruntime_alone_gives_the_label_that_predict_gives(graphs, run_folder):
    """The chain of a program without torch: segment embeddings → video embedding → margins → label."""
    run = ts.Run(run_folder)
    manifest = run.workspace.manifest()
    row = next(row for row in manifest.rows if row.split == "test")
    [prediction] = run.predict([row.path])
    about = json.loads((graphs["classifier"].path.parent / "classifier.json").read_text())
    X = np.full((1, max(stop for _, stop in about["columns"].values())), np.nan, np.float32)
    for name, (start, stop) in about["columns"].items():
        with ts.StreamEmbedder(run, name) as embedder:
            stream = embedder.stream
            [arrays] = [onnx_export._first_segments(Workspace.of(run_folder), [stream])[name]]
            first = _session(graphs[f"{name}-encoder"]).run(None, {"segments": arrays[0]})[0]
            aggregate = _session(graphs[f"{name}-aggregator"])
            [embedding] = aggregate.run(None, {"segment_embeddings": first[None]})
            assert embedding.shape == (1, stop - start)
            own = embedder.embed(row.path).embedding
        if own is not None:
            X[0, start:stop] = own
    [margins] = _session(graphs["classifier"]).run(None, {"embeddings": X})
    assert about["classes"][int(margins[0].argmax())] == prediction.label


@pytest.mark.parametrize("kind", aggregator.KINDS)
def test_every_kind_of_aggregator_takes_videos_of_any_length(kind, tmp_path):
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = aggregator.build(kind, 12, hidden_dim=8)

        def aggregate(self, segments, lengths):
            return self.own(segments, lengths)

    module = onnx_export._one_video(Model()).eval()
    path = tmp_path / f"{kind}.onnx"
    axes = {"x": {1: "S"}}
    onnx_export._convert(module, torch.randn(1, 7, 12), path, ("x",), ("y",), axes)
    videos = [torch.randn(1, n, 12) for n in (7, 1, 30)]
    with torch.inference_mode():
        pairs = [({"x": video.numpy()}, [module(video).numpy()]) for video in videos]
    assert onnx_export._checked(path, pairs).error < 1e-6


def test_a_graph_that_differs_is_refused_and_removed(tmp_path):
    import torch
    from torch import nn

    path = tmp_path / "linear.onnx"
    layer = nn.Linear(3, 2).eval()
    onnx_export._convert(layer, torch.ones(1, 3), path, ("x",), ("y",), {})
    wrong = layer(torch.ones(1, 3)).detach().numpy() + 0.5
    with pytest.raises(TristreamError, match="linear differs from torch by"):
        onnx_export._checked(path, [({"x": np.ones((1, 3), np.float32)}, [wrong])])
    assert not path.exists()


def test_a_missing_library_is_named(monkeypatch, run_folder):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tristream\[onnx\]'"):
        onnx_export.export_onnx(Workspace.of(run_folder))
