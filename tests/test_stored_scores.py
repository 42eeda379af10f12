"""Scores of the streams' own softmax layers: stored, read by `fuse`, printed per segment by `predict`."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tristream import streams
from tristream.fused import fused_embeddings
from tristream.store import embeddings
from tristream.store.embeddings import EmbeddingTable
from tristream.streams import model
from tristream.streams.extraction import Scores
from tristream.streams.reader import Reading
from tristream.workspace import Workspace


def table(n: int = 5, **changes) -> EmbeddingTable:
    rng = np.random.default_rng(0)
    present = np.arange(n) % 3 != 1
    values = {
        "stream": "audio",
        "space_id": "space0",
        "video_id": [f"v{i}.mp4" for i in range(n)],
        "content_id": [f"{i:064x}" for i in range(n)],
        "present": present,
        "reason": ["" if p else "no_audio" for p in present],
        "start_seconds": np.where(present, 0, np.nan),
        "stop_seconds": np.where(present, 1, np.nan),
        "embedding": np.where(present[:, None], rng.normal(size=(n, 3)), np.nan).astype("f4"),
        "logits": np.where(present[:, None], rng.normal(size=(n, 4)), np.nan).astype("f4"),
        "segment_labels": [[i % 4] * i if p else [] for i, p in enumerate(present)],
    }
    return EmbeddingTable(**(values | changes))


def plain(whole: EmbeddingTable) -> EmbeddingTable:
    return dataclasses.replace(whole, logits=None, segment_labels=None)


def test_scores_come_back_bit_for_bit(tmp_path):
    embeddings.write(table(), tmp_path)
    again = embeddings.read(tmp_path)
    np.testing.assert_array_equal(again.logits, table().logits)
    assert again.logits.dtype == np.float32
    assert again.segment_labels == table().segment_labels
    some = again.take([3, 0])
    np.testing.assert_array_equal(some.logits, table().logits[[3, 0]])
    assert some.segment_labels == [[3, 3, 3], []]


def test_a_table_without_scores_is_the_file_that_older_versions_wrote(tmp_path):
    arrow = pq.read_table(embeddings.write(plain(table()), tmp_path))
    assert b'"schema_version": 1' in arrow.schema.metadata[b"tristream"]
    assert arrow.column_names[-1] == "embedding"
    assert embeddings.read(tmp_path).logits is None
    newer = pq.read_table(embeddings.write(table(), tmp_path / "new"))
    assert b'"schema_version": 2' in newer.schema.metadata[b"tristream"]


def test_a_folder_with_an_old_part_has_no_scores(tmp_path):
    embeddings.write(plain(table().take([0, 1])), tmp_path)
    embeddings.write(table().take([2, 3, 4]), tmp_path)
    together = embeddings.read(tmp_path)
    assert len(together) == 5
    assert together.logits is None
    assert together.segment_labels is None


def test_scores_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="5 video_ids and 4 values of logits"):
        table(logits=np.zeros((4, 2), np.float32))
    with pytest.raises(ValueError, match="5 video_ids and 1 values of segment_labels"):
        table(segment_labels=[[1]])


def test_the_label_of_a_segment_is_its_most_probable_class():
    steps = torch.tensor([[[1.0, 2, 0], [3, 0, 0]]])
    scores = Scores.of(Reading(torch.zeros(1, 2), torch.ones(1, 3), steps))
    assert scores.segment_labels.tolist() == [1, 0]
    probabilities = steps[0].softmax(1)
    assert scores.segment_probabilities.tolist() == [
        probabilities[0, 1].item(),
        probabilities[1, 0].item(),
    ]


def test_a_read_out_of_steps_from_training_to_the_labels_of_segments(
    trained_run, two_classes, quick, tmp_path, command_line
):
    shutil.copytree(trained_run, tmp_path, dirs_exist_ok=True)
    tristream = command_line(tmp_path)
    name, plain_stream = streams.names()[0], streams.names()[-1]
    settings = ["readout=mean_prob", "loss=steps", "clip_length=2", "clip_stride=1"]
    words = [word for each in settings for word in ("--set", f"streams.{name}.aggregator.{each}")]
    assert "readout = embedding" in (
        tristream("predict", two_classes / "spin" / "1.mp4", "--segments", code=2) + tristream.said
    )
    tristream("train-stream", name, *quick(name), *words, "--force")
    tristream("embed", code=3)
    report = tristream.json("fuse")["classification"]
    assert set(report["segments"]) == {name}

    workspace = Workspace.of(tmp_path / "runs/default")
    rows = workspace.manifest().rows
    fused = fused_embeddings(workspace, rows, None)
    trained = model.load(workspace.stream_dir(name))
    test = [i for i, row in enumerate(fused.rows) if row.split == "test" and row.label]
    hits = [
        trained.classes[label] == fused.rows[i].label
        for i in test
        for label in fused.heads[name].segment_labels[i]
    ]
    assert report["segments"][name] == {"value": np.mean(hits), "n": len(hits)}

    # another stream's scores are those of its embeddings, which old tables are read with
    other = model.load(workspace.stream_dir(plain_stream)).model.classifier
    head, block = fused.heads[plain_stream].logits, fused.columns[plain_stream]
    present = ~np.isnan(head).any(axis=1)
    wanted = other(torch.from_numpy(fused.X[present, block]).float()).detach().numpy()
    np.testing.assert_allclose(head[present], wanted, rtol=1e-5, atol=1e-5)

    [prediction] = tristream.json("predict", two_classes / "spin" / "1.mp4", "--segments")[
        "predictions"
    ]
    assert prediction["segments"].keys() == {name}
    assert all(each["label"] in trained.classes for each in prediction["segments"][name])
    assert all(0.5 <= each["probability"] <= 1 for each in prediction["segments"][name])
    printed = tristream("predict", two_classes / "spin" / "1.mp4", "--segments")
    assert printed.count(f"  {name} ") == len(prediction["segments"][name]) > 0
