"""The temporal stream on a real set, one choice changed at a time: stacks, mean, width, augmentation, estimator.

    python -m tristream.bench.motion DIR --out FILE.jsonl [--rows default,farneback]
        [--seeds 3] [--splits given,0,1,2,3,4]

DIR holds videos.csv with path, label, split, group. "given" is its own split; 0 to 4 are folds of whole groups over all
videos, each fold once the test. Footage is read once and stays in memory; every training is one process' thread. What
FILE holds already is not done again, so that it can be stopped and started.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tristream
from tristream import streams
from tristream.bench.table import Table
from tristream.dataset.manifest import content_id
from tristream.dataset.splits import held_out_groups
from tristream.fusion.action.svm import fit_svm
from tristream.media.sandbox.pool import DecodePool
from tristream.store.cache import Cache
from tristream.streams.config import DataConfig, SamplerConfig
from tristream.streams.encoding import encode
from tristream.streams.model import StreamModel, pad
from tristream.streams.stream import Stream
from tristream.streams.torch_backend import TorchBackend
from tristream.streams.training import Example, Examples, train
from tristream.streams.video import Video, View


def _light_preset() -> Path:
    """Path of the preset `light`: in the package, or in `commands/` of a checkout from before it moved."""
    packaged = Path(tristream.__file__).parent / "presets" / "light.toml"
    older = Path(__file__).parents[1] / "commands" / "presets" / "light.toml"
    return packaged if packaged.is_file() else older


PRESET = _light_preset()
N_FOLDS = 5
CPU = torch.device("cpu")
NO_VIEWS = {"flip": False, "crop_scale": [1.0, 1.0], "shift": 0.0}

# A third of the preset's epochs, made up for by batch norm after every convolution: what the rows start from.
BASE: dict[str, Any] = {
    "batch_norm": "all",
    "encoder_training": {"epochs": 40, "learning_rate": 2e-3},
    "aggregator_training": {"epochs": 40, "n_views": 4},
}

# Name of a row → what differs from the base, which differs from the preset's [streams.temporal].
ROWS: dict[str, dict[str, Any]] = {
    "default": {},
    "L 5": {"stack_length": 5},
    "step 1": {"stack_step": 1},
    "mean kept": {"mean_removed": False},
    "width 1/8": {"width": 0.125, "full6": 128, "full7": 64},
    "width 1/2": {"width": 0.5, "full6": 512, "full7": 256},
    "no augmentation": {"augment": NO_VIEWS},
    "Farneback": {"estimator": "farneback"},
    "batch norm on conv1 alone": {"batch_norm": "conv1"},
    "80 epochs": {"encoder_training": {"epochs": 80}, "aggregator_training": {"n_views": 8}},
    "80 epochs at width 1/2": {
        "encoder_training": {"epochs": 80},
        "aggregator_training": {"n_views": 8},
        "width": 0.5,
        "full6": 512,
        "full7": 256,
    },
    "80 epochs at width 1/2 and mean": {
        "encoder_training": {"epochs": 80},
        "aggregator_training": {"n_views": 8},
        "aggregator": {"kind": "mean"},
        "width": 0.5,
        "full6": 512,
        "full7": 256,
    },
}


@dataclass(frozen=True)
class Clip:
    """One row of videos.csv."""

    path: Path
    label: str
    split: str
    group: str


def read_clips(folder: Path) -> list[Clip]:
    with (folder / "videos.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [Clip(folder / row["path"], row["label"], row["split"], row["group"]) for row in rows]


def split_of(clips: Sequence[Clip], split: str) -> dict[str, list[int]]:
    """Indices of the clips in train, val and test; val is held out of the rest by whole groups, as `index` does."""
    if split == "given":
        test = {clip.group for clip in clips if clip.split == "test"}
    else:
        groups = sorted({clip.group for clip in clips})
        test = set(groups[int(split) :: N_FOLDS])
    rest = [clip for clip in clips if clip.group not in test]
    val = held_out_groups(rest, seed=0)
    sides = [
        "test" if clip.group in test else "val" if clip.group in val else "train" for clip in clips
    ]
    return {
        side: [i for i, own in enumerate(sides) if own == side] for side in ("train", "val", "test")
    }


class Footages:
    """Segments of the temporal stream for every clip, by configuration."""

    def __init__(
        self, clips: Sequence[Clip], pool: DecodePool, cache: Cache, preset: dict[str, Any]
    ) -> None:
        self.stream = streams.stream_class("temporal")
        self.preset = preset
        self.sampler = SamplerConfig(**preset["sampler"])
        data = DataConfig(**preset["data"])

        def decode(path: Path, **wanted: Any) -> Any:
            return pool.submit(path, **wanted).result()

        self.videos = [
            Video(clip.path.name, clip.path, content_id(clip.path), decode=decode, cache=cache,
                  view=View(data, self.sampler, sound=False))
            for clip in clips
        ]  # fmt: skip
        labels = sorted({clip.label for clip in clips})
        self.labels = [labels.index(clip.label) for clip in clips]
        self._kept: dict[str, list[Example]] = {}

    def config(self, changes: dict[str, Any]) -> Any:
        settings = dict(self.preset["streams"]["temporal"])
        for layer in (BASE, changes):
            for key, value in layer.items():
                settings[key] = settings[key] | value if isinstance(value, dict) else value
        return self.stream.Config(**settings)

    def bound(self, config: Any) -> Stream:
        return self.stream(config, self.sampler)

    def examples(self, config: Any) -> list[Example]:
        key = f"{config.estimator} {config.stack_length} {config.stack_step}"
        if key not in self._kept:
            examples = []
            for video, label in zip(self.videos, self.labels, strict=True):
                examples.append(Example(video.video_id, self.bound(config).footage(video), label))
                video.forget()
            self._kept[key] = examples
        return self._kept[key]


def measure(
    footages: Footages, parts: dict[str, list[int]], changes: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Train once and return the hits on the test clips: of the softmax layer, the SVM and single stacks.

    "mirrored" is the mean of four opinions: softmax layer and mean of stacks, on the clip and on its mirror image.
    """
    config = footages.config(changes)
    examples, stream = footages.examples(config), footages.bound(config)
    chosen = {part: [examples[i] for i in rows] for part, rows in parts.items()}
    started = time.process_time()
    n_classes = 1 + max(footages.labels)
    with torch.autocast(
        "cpu", torch.bfloat16, cache_enabled=False
    ):  # a cache would keep the first weights
        model = train(
            stream,
            Examples(chosen["train"], chosen["val"], n_classes),
            seed=seed,
            backend=TorchBackend(CPU),
        )
    seconds = time.process_time() - started
    embeddings = {part: embed(stream, model, chosen[part]) for part in chosen}
    labels = {part: np.array([example.label for example in chosen[part]]) for part in chosen}
    svm = fit_svm(embeddings["train"][0], labels["train"])
    mirror = embed(stream, model, [mirrored(example) for example in chosen["test"]])
    opinions = embeddings["test"][1] + embeddings["test"][2] + mirror[1] + mirror[2]
    return {
        "test": parts["test"],
        "softmax": hits(embeddings["test"][1], labels["test"]),
        "svm": (svm.predict(embeddings["test"][0]) == labels["test"]).astype(int).tolist(),
        "stacks": hits(embeddings["test"][2], labels["test"]),
        "mirrored": hits(opinions, labels["test"]),
        "val": float(np.mean(hits(embeddings["val"][1], labels["val"]))),
        "cpu_seconds": round(seconds, 1),
    }


def hits(probabilities: np.ndarray, labels: np.ndarray) -> list[int]:
    """Return 1 where the most probable class is correct."""
    return (probabilities.argmax(axis=1) == labels).astype(int).tolist()


def mirrored(example: Example) -> Example:
    """Return the mirrored clip: fields flipped, x negated."""
    assert example.footage is not None
    array = example.footage.array[..., ::-1].copy()
    array[:, 0] *= -1
    return replace(example, footage=replace(example.footage, array=array))


@torch.inference_mode()
def embed(
    stream: Stream, model: StreamModel, examples: Sequence[Example]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Video embeddings, probabilities of the softmax layer, and those of the mean of the stacks' own logits."""
    vectors, ordered, means = [], [], []
    for example in examples:
        segments = stream.cut(example.cuttable)
        embedding = encode(
            model.encoder,
            segments,
            batch_size=stream.config.encode_batch_size,
            backend=TorchBackend(CPU),
        )
        sequence, length = pad([embedding])
        vectors.append(model.aggregate(sequence, length)[0].numpy())
        ordered.append(model.classify(sequence, length)[0].softmax(0).numpy())
        logits = model.encoder.classifier(torch.from_numpy(embedding))  # type: ignore[attr-defined]
        means.append(logits.mean(0).softmax(0).numpy())
    return np.stack(vectors).astype(np.float64), np.stack(ordered), np.stack(means)


def wanted(
    rows: Sequence[str], splits: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[str, str, int]]:
    """Yield trainings by priority: a whole row over all splits with one seed, then the next seed."""
    for row in rows:
        for seed in seeds:
            for split in splits:
                yield row, split, seed


def table(lines: Sequence[dict[str, Any]], clips: Sequence[Clip]) -> Table:
    """Mean accuracy over seeds, interval by bootstrap over groups, for every row and split ("folds": all of them)."""
    rows = []
    for name in ROWS:
        for split in ("given", "folds"):
            of_split = [line for line in lines if (line["split"] == "given") == (split == "given")]
            here = [line for line in of_split if line["row"] == name]
            plain = _shares([line for line in of_split if line["row"] == "default"], "stacks")
            if here:
                rows.append(
                    (*_row(name, split, here, clips), *_gain(_shares(here, "stacks"), plain, clips))
                )
    header = ("row", "split", "trainings", "softmax, %", "mean of stacks, %", "SVM, %", "95 % interval",
              "mirrored, %", "95 % interval", "CPU s each", "seeds agree, %", "95 % interval",
              "stacks over default", "95 % interval")  # fmt: skip
    notes = (
        "SVM: the linear SVM of fuse on video embeddings; mirrored: softmax and stacks, on the clip and mirrored; "
        "intervals: bootstrap over groups, seeds averaged; seeds agree: clips that the softmax layers of most seeds "
        "name rightly, of three seeds or more: at least that is right by their vote; stacks over default: the same "
        "clips, points",
    )
    return Table("Temporal stream, one choice changed at a time", header, rows, notes)


def _row(
    name: str, split: str, here: Sequence[dict[str, Any]], clips: Sequence[Clip]
) -> tuple[str | float, ...]:
    shares = {kind: _shares(here, kind) for kind in ("softmax", "stacks", "svm", "mirrored")}
    cells = []
    for kind, values in shares.items():
        cells.append(f"{100 * np.mean(list(values.values())):.1f}" if values else "–")
        if kind in ("svm", "mirrored"):
            cells.append("{:.1f}–{:.1f}".format(*_interval(values, clips)) if values else "–")
    return (name, split, len(here), *cells, float(np.median([line["cpu_seconds"] for line in here])),
            *_agreed(here, shares["softmax"], clips))  # fmt: skip


def _shares(here: Sequence[dict[str, Any]], kind: str) -> dict[int, float]:
    """Return {clip: share of the trainings that classify it correctly}."""
    by_clip: dict[int, list[int]] = {}
    for line in here:
        for clip, hit in zip(line["test"], line.get(kind, []), strict=False):
            by_clip.setdefault(clip, []).append(hit)
    return {clip: float(np.mean(values)) for clip, values in by_clip.items()}


def _gain(
    shares: dict[int, float], plain: dict[int, float], clips: Sequence[Clip]
) -> tuple[str, str]:
    """Mean difference over the clips that both have, in points, and its interval."""
    differences = {clip: share - plain[clip] for clip, share in shares.items() if clip in plain}
    if not any(differences.values()):
        return "–", "–"
    return f"{100 * np.mean(list(differences.values())):+.1f}", "{:+.1f}–{:+.1f}".format(
        *_interval(differences, clips)
    )


def _agreed(
    here: Sequence[dict[str, Any]], shares: dict[int, float], clips: Sequence[Clip]
) -> tuple[str, str]:
    """Return the share of clips that most seeds classify correctly, with its interval."""
    if len({line["seed"] for line in here}) < 3:
        return "–", "–"
    right = {clip: float(share > 0.5) for clip, share in shares.items()}
    return f"{100 * np.mean(list(right.values())):.1f}", "{:.1f}–{:.1f}".format(
        *_interval(right, clips)
    )


def _interval(
    shares: dict[int, float], clips: Sequence[Clip], n_draws: int = 4000
) -> tuple[float, float]:
    groups: dict[str, list[float]] = {}
    for clip, share in shares.items():
        groups.setdefault(clips[clip].group, []).append(share)
    sums = np.array([[sum(values), len(values)] for values in groups.values()])
    picks = np.random.default_rng(0).integers(len(sums), size=(n_draws, len(sums)))
    drawn = sums[picks].sum(axis=1)
    low, high = np.quantile(100 * drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    """Run what is asked for and not done yet, then prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--splits", default="given")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = read_clips(options.data)
    done = (
        [json.loads(line) for line in options.out.read_text().splitlines()]
        if options.out.exists()
        else []
    )
    known = {(line["row"], line["split"], line["seed"]) for line in done}
    preset = tomllib.loads(PRESET.read_text(encoding="utf-8"))
    with DecodePool(1) as pool:
        footages = Footages(clips, pool, Cache(options.cache), preset)
        for row, split, seed in wanted(
            options.rows.split(","), options.splits.split(","), range(options.seeds)
        ):
            if (row, split, seed) in known:
                continue
            found = measure(footages, split_of(clips, split), ROWS[row], seed)
            line = {"row": row, "split": split, "seed": seed, **found}
            done.append(line)
            with options.out.open("a") as out:
                out.write(json.dumps(line) + "\n")
            print(
                row,
                split,
                seed,
                f"svm {np.mean(found['svm']):.3f}, {found['cpu_seconds']} s",
                flush=True,
            )
    result = table(done, clips)
    print("\n".join(" | ".join(cells) for cells in [list(result.header), *result.cells()]))


if __name__ == "__main__":
    main()
