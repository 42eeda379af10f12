"""Every row of the paper's Table I on segment embeddings that are there: only aggregators learn.

    python -m tristream.bench.table1 RUN STREAM --cache DIR --out FILE.json [--scale 8]

RUN is a run with a trained STREAM; its encoder embeds the segments of every video once. Widths are the paper's over
`scale`. The paper's column is top-1 and top-5 on UCF101, split 1, spatial stream (Tkachenko 2018, section V-E).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tristream.bench.table import Table
from tristream.dataset.manifest import read_manifest
from tristream.fusion.action.svm import fit_svm
from tristream.media.sandbox.pool import DecodePool
from tristream.store.cache import Cache
from tristream.store.lineage import digest
from tristream.streams import aggregator
from tristream.streams.batches import Batch, batches_of
from tristream.streams.config import AggregatorPhase
from tristream.streams.encoding import encode
from tristream.streams.model import StreamModel, TrainedStream, load, pad
from tristream.streams.torch_backend import TorchBackend
from tristream.streams.training_loop import Phase, cross_entropy, run_phase
from tristream.streams.video import Video, View

CPU = torch.device("cpu")
TOP = 5


def _row(
    kind: str, hidden_dim: int, n_layers: int = 1, *, bidirectional: bool = False, **more: Any
) -> dict[str, Any]:
    return {
        "kind": kind,
        "hidden_dim": hidden_dim,
        "n_layers": n_layers,
        "bidirectional": bidirectional,
        **more,
    }


# Name → [streams.<name>.aggregator] of a configuration, the paper's top-1 and top-5.
ROWS: dict[str, tuple[dict[str, Any], float, float]] = {
    "LSTM 256": (_row("lstm", 256), 76.24, 93.49),
    "LSTM 512": (_row("lstm", 512), 77.09, 93.09),
    "LSTM 1024": (_row("lstm", 1024), 77.07, 93.62),
    "LSTM 2048": (_row("lstm", 2048), 76.22, 93.62),
    "GRU 512": (_row("gru", 512), 77.83, 93.88),
    "GRU 1024": (_row("gru", 1024), 77.81, 93.17),
    "BiLSTM 512": (_row("lstm", 512, bidirectional=True), 77.36, 93.41),
    "BiLSTM 1024": (_row("lstm", 1024, bidirectional=True), 75.93, 93.49),
    "BiGRU 512": (_row("gru", 512, bidirectional=True), 77.33, 93.46),
    "BiGRU 1024": (_row("gru", 1024, bidirectional=True), 77.52, 93.41),
    "stacked LSTM 512": (_row("lstm", 512, 2), 74.71, 92.80),
    "stacked LSTM 1024": (_row("lstm", 1024, 2), 76.80, 94.09),
    "stacked GRU 512": (_row("gru", 512, 2), 77.09, 93.03),
    "stacked GRU 1024": (_row("gru", 1024, 2), 77.22, 93.25),
    "stacked BiGRU 512": (_row("gru", 512, 2, bidirectional=True), 78.34, 93.51),
    "stacked BiGRU 1024": (_row("gru", 1024, 2, bidirectional=True), 77.15, 93.17),
    "stacked BiLSTM 512": (_row("lstm", 512, 2, bidirectional=True), 74.50, 92.77),
    "stacked BiGRU 512 + attention": (
        _row("gru", 512, 2, bidirectional=True, self_attention=True),
        75.03,
        92.89,
    ),
}
SVM_ROW, SVM_PAPER = "stacked BiGRU 512", (79.40, 90.84)
BESIDE = {
    "mean, not in the paper": _row("mean", 1),
    "attention pooling, not in the paper": _row("attention", 512),
}


@dataclass(frozen=True)
class Sequences:
    """Segment embeddings of the videos of one split."""

    embeddings: list[np.ndarray]
    labels: np.ndarray


def embed(trained: TrainedStream, manifest_path: Path, cache: Cache) -> dict[str, Sequences]:
    """Split → what the trained encoder makes of its videos."""
    manifest = read_manifest(manifest_path)
    sequences: dict[str, tuple[list[np.ndarray], list[int]]] = {
        split: ([], []) for split in ("train", "val", "test")
    }
    backend = TorchBackend(CPU)
    with DecodePool(1) as pool:
        for row in manifest.rows:
            if row.split not in sequences:
                continue

            def decode(path: Path, **wanted: Any) -> Any:
                return pool.submit(path, **wanted).result()

            video = Video(row.video_id, row.path, row.content_id, decode=decode, cache=cache, view=View(
                              trained.data, trained.sampler, pictures=trained.stream.needs_pictures,
                              sound=trained.stream.needs_sound))  # fmt: skip
            segments = trained.stream.cut(trained.stream.footage(video))
            embedding = encode(
                trained.model.encoder,
                segments,
                batch_size=trained.config.encode_batch_size,
                backend=backend,
            )
            sequences[row.split][0].append(embedding)
            sequences[row.split][1].append(trained.classes.index(row.label))
    return {
        split: Sequences(embeddings, np.array(labels))
        for split, (embeddings, labels) in sequences.items()
    }


def learn(
    parts: dict[str, Sequences],
    settings: dict[str, Any],
    training: AggregatorPhase,
    n_classes: int,
    seed: int,
) -> StreamModel:
    """A new aggregator and softmax layer that have learned the training sequences."""
    torch.manual_seed(seed)
    width = parts["train"].embeddings[0].shape[1]
    no_encoder: Any = torch.nn.Identity()
    model = StreamModel(no_encoder, aggregator.build(input_dim=width, **settings), n_classes)

    def batch(part: Sequences, rows: np.ndarray) -> Batch:
        labels = torch.from_numpy(part.labels[rows])
        return Batch(
            pad([part.embeddings[row] for row in rows]), labels, [str(row) for row in rows]
        )

    size, train, val = training.batch_size, parts["train"], parts["val"]
    phase = Phase(
        name="table1",
        config=training,
        module=model,
        objective=cross_entropy(model.classify),
        n_batches=len(batches_of(len(train.labels), size)),
        train_batches=lambda generator: (
            batch(train, rows) for rows in batches_of(len(train.labels), size, generator)
        ),
        val_batches=lambda: (batch(val, rows) for rows in batches_of(len(val.labels), size)),
    )
    run_phase(phase, seed=seed, device=CPU)
    return model.eval()


@torch.inference_mode()
def judge(model: StreamModel, part: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Video embeddings and logits of every video of a split."""
    sequences, lengths = pad(part.embeddings)
    embedding = model.aggregate(sequences, lengths)
    return embedding.double().numpy(), model.classifier(embedding).double().numpy()


def top(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of videos whose label is among the k largest logits, %."""
    best = np.argsort(-logits, axis=1)[:, :k]
    return 100 * float((best == labels[:, None]).any(axis=1).mean())


def measure(
    parts: dict[str, Sequences],
    training: AggregatorPhase,
    n_classes: int,
    *,
    scale: int,
    seeds: Sequence[int],
) -> Table:
    """The table: means over the seeds."""
    rows: list[list[str | float | None]] = []
    paper: dict[str, tuple[float | None, float | None]] = {
        name: row[1:] for name, row in ROWS.items()
    }
    for name, settings in ({name: row[0] for name, row in ROWS.items()} | BESIDE).items():
        scaled = settings | {"hidden_dim": max(1, settings["hidden_dim"] // scale)}
        scores, svm_scores = [], []
        for seed in seeds:
            model = learn(parts, scaled, training, n_classes, int(digest([seed, name])[:8], 16))
            embedding, logits = judge(model, parts["test"])
            labels = parts["test"].labels
            scores.append((top(logits, labels, 1), top(logits, labels, TOP)))
            if name == SVM_ROW:
                svm = fit_svm(judge(model, parts["train"])[0], parts["train"].labels)
                decision = svm.decision_function(embedding)
                svm_scores.append((top(decision, labels, 1), top(decision, labels, TOP)))
        rows.append([name, *np.mean(scores, axis=0).tolist(), *paper.get(name, (None, None))])
        print(rows[-1], flush=True)
        if svm_scores:
            rows.append([f"{name} + SVM", *np.mean(svm_scores, axis=0).tolist(), *SVM_PAPER])
    header = ("aggregator", "top-1, %", "top-5, %", "paper top-1", "paper top-5")
    n = len(parts["test"].labels)
    notes = (
        f"{n} test videos, {n_classes} classes, means over {len(seeds)} seeds; one standard error at 50 % is "
        f"{100 * (0.25 / n) ** 0.5:.1f} points",
        f"widths are the paper's over {scale}; the paper: UCF101, split 1, spatial stream, 3,783 test videos, where "
        "one standard error at 78 % is .67 points: most rows are within noise of the winner",
    )
    return Table("Table I: aggregators on finished segment embeddings", header, rows, notes)


def main() -> None:
    """Embeds, learns every row, prints and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("stream")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trained = load(options.run / "streams" / options.stream)
    parts = embed(trained, options.run / "videos.csv", Cache(options.cache))
    training = trained.config.aggregator_training.model_copy(update={"epochs": options.epochs})
    result = measure(
        parts, training, len(trained.classes), scale=options.scale, seeds=range(options.seeds)
    )
    options.out.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    for cells in [list(result.header), *result.cells(), *([note] for note in result.notes)]:
        print(" | ".join(cells))


if __name__ == "__main__":
    main()
