"""Accuracy of plain features and a linear SVM on a labelled set: baselines for the streams.

    python -m tristream.bench.baseline_features --data DIR                        sound
    python -m tristream.bench.baseline_features --data DIR --crop .66,.34,.86,.54  all of them, of the crop

Splits as `tristream index` reads them; where the list has folds, every fold is the test split once. Nothing is trained
but the SVM of `fusion.action.svm`, and nothing is chosen on the test videos.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from tristream.bench.table import Table
from tristream.dataset.listing import ListedVideo, index_csv, index_folder
from tristream.errors import TristreamError
from tristream.fusion.action.svm import fit_svm
from tristream.fusion.intervals import mean_interval
from tristream.media.sandbox.pool import DecodePool
from tristream.streams.config import Crop, DataConfig

if TYPE_CHECKING:
    from tristream.streams.small_cnn import SegmentClassifier

N_SLICES = 24  # of the time of a video
PICTURE = (16, 20)  # px that pictures and flow of a crop are reduced to; flow to half of it
ESTIMATOR = "dis_ultrafast"
TOGETHER = ["log-mel, slices", "crop, slices", "flow of the crop, slices"]
YAMNET_HOP = 48  # rows of 10 ms, YAMNet's own

Blocks = dict[str, Float[np.ndarray, "F"]]


def run(rows: Sequence[ListedVideo], *, crop: Crop | None, yamnet: Path | None) -> Table:
    """Test accuracy of each plain feature, and of sound, pictures and flow together where there is a crop."""
    with DecodePool(1) as pool:
        features = [_features(pool, row.path, crop, yamnet) for row in rows]
    labels, groups = (np.array([getattr(row, name) for row in rows]) for name in ("label", "group"))
    ways = {name: ([name], False) for name in features[0]}
    if crop is not None:
        for names in (TOGETHER[1:], TOGETHER):
            ways[" + ".join(names)] = (names, False)
            ways[" + ".join(names) + ", mean of margins"] = (names, True)
    table = []
    for name, (parts, late) in ways.items():
        hits, per_fold = _hits(
            [{part: blocks[part] for part in parts} for blocks in features], labels, rows, late=late
        )
        tested = ~np.isnan(hits)
        estimate = mean_interval(hits[tested], groups[tested])
        spread = f"{min(per_fold):.1f}–{max(per_fold):.1f}" if len(per_fold) > 1 else "–"
        table.append(
            (
                name,
                f"{100 * estimate.value:.1f}",
                f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}",
                spread,
            )
        )
    n_tested = int(tested.sum())
    return Table(
        "plain features, linear SVM",
        ["features", "test accuracy, %", "95 % interval", "least and best fold"],
        table,
        [
            f"{len(rows)} videos, {n_tested} tested, {len(set(labels))} classes; intervals by bootstrap over groups"
        ],
    )


def _hits(
    features: Sequence[Blocks], labels: np.ndarray, rows: Sequence[ListedVideo], *, late: bool
) -> tuple[Float[np.ndarray, "n"], list[float]]:
    """Return 1 for correctly classified test videos, NaN for untested ones; and the accuracy of each fold, %.

    Args:
        late: an SVM for each block, and the mean of their margins; else one SVM on all of them side by side.
    """
    columns, start = {}, 0
    for name, values in features[0].items():
        columns[name] = slice(start, start + len(values))
        start += len(values)
    X = np.stack([np.concatenate(list(blocks.values())) for blocks in features])
    folds = sorted({row.fold for row in rows}) if rows[0].fold else [""]
    hits, per_fold = np.full(len(rows), np.nan), []
    for fold in folds:
        test = np.array([row.fold == fold if fold else row.split == "test" for row in rows])
        margins = []
        for blocks in [[name] for name in columns] if late else [list(columns)]:
            parts = np.concatenate(
                [np.arange(columns[name].start, columns[name].stop) for name in blocks]
            )
            svm = fit_svm(X[~test][:, parts], labels[~test], columns=_tiled(columns, blocks))
            margins.append(svm.decision_function(X[test][:, parts]))
        hits[test] = svm.classes_[np.mean(margins, axis=0).argmax(axis=1)] == labels[test]
        per_fold.append(100 * hits[test].mean())
    return hits, per_fold


def _tiled(columns: Mapping[str, slice], names: Sequence[str]) -> dict[str, slice]:
    """The blocks of these names, one after the other."""
    tiled, start = {}, 0
    for name in names:
        width = columns[name].stop - columns[name].start
        tiled[name] = slice(start, start + width)
        start += width
    return tiled


def _features(pool: DecodePool, path: Path, crop: Crop | None, yamnet: Path | None) -> Blocks:
    from tristream.streams.audio.logmel import SAMPLE_RATE, log_mel

    decoded = pool.submit(path, pictures=crop is not None).result()
    if decoded.samples is None or (crop is not None and decoded.frames is None):
        raise TristreamError(
            f"{path} has {' and '.join(decoded.reasons)}; every file must have what is compared"
        )
    rows = log_mel(decoded.samples, SAMPLE_RATE)
    features = {
        "log-mel, mean and deviation": np.concatenate([rows.mean(axis=0), rows.std(axis=0)]),
        "log-mel, slices": _slices(rows),
    }
    if yamnet is not None:
        segments = _yamnet(decoded.samples, yamnet)
        features |= {"YAMNet, mean": segments.mean(axis=0), "YAMNet, maximum": segments.max(axis=0)}
    if crop is not None and decoded.frames is not None:
        features |= _looks(decoded.frames, crop)
    return features


def _looks(frames: np.ndarray, crop: Crop) -> Blocks:
    """Grey pictures of the crop, each video's mean picture removed; and its flow, each field's mean removed."""
    from tristream.flow import estimators
    from tristream.streams.video import part, reduce_flow, squash

    rows, columns = part(frames.shape[1:3], crop)
    seen = np.ascontiguousarray(frames[:, rows, columns])
    grey = squash(seen, *PICTURE).mean(axis=3) / seen.mean()
    fields = estimators.load(ESTIMATOR)(seen)
    fields = reduce_flow(
        fields - fields.mean(axis=(2, 3), keepdims=True), PICTURE[0] // 2, PICTURE[1] // 2
    )
    return {
        "crop, slices": _slices((grey - grey.mean(axis=0)).reshape(len(grey), -1)),
        "flow of the crop, slices": _slices(fields.reshape(len(fields), -1)),
    }


def _slices(steps: Float[np.ndarray, "T F"]) -> Float[np.ndarray, "F"]:
    """Mean of each of `N_SLICES` stretches of time, one after the other."""
    edges = np.linspace(0, len(steps), N_SLICES + 1).round().astype(int)
    return np.concatenate(
        [steps[a : max(b, a + 1)].mean(axis=0) for a, b in itertools.pairwise(edges)]
    )


def _yamnet(samples: np.ndarray, weights: Path) -> Float[np.ndarray, "S D"]:
    import torch

    from tristream.streams.audio.logmel import SAMPLE_RATE, examples, log_mel
    from tristream.streams.audio.yamnet import LOG_OFFSET

    rows = log_mel(samples, SAMPLE_RATE, log_offset=LOG_OFFSET)
    with torch.inference_mode():
        return (
            _yamnet_encoder(weights)
            .embed(torch.from_numpy(examples(rows, hop_frames=YAMNET_HOP)))
            .numpy()
        )


@functools.cache
def _yamnet_encoder(weights: Path) -> SegmentClassifier:
    from tristream.streams.audio.encoder import build_encoder

    encoder = build_encoder("yamnet", 2, weights=weights)
    encoder.eval()
    return encoder


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    from rich.console import Console
    from rich.table import Table as Screen

    from tristream.store import weights

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with videos.csv, or with class folders"
    )
    parser.add_argument("--crop", help="top,left,bottom,right in parts of the picture")
    parser.add_argument("--weights-dir", type=Path, help="where yamnet.tflite is")
    given = parser.parse_args(arguments)
    list_file = given.data / "videos.csv"
    rows = index_csv(list_file, given.data) if list_file.exists() else index_folder(given.data)
    crop = DataConfig.model_validate({"crop": given.crop.split(",")}).crop if given.crop else None
    try:
        yamnet = weights.get("yamnet", where=weights.places(given.weights_dir), say=print)
    except weights.Missing as missing:
        print(f"without YAMNet: {missing}")
        yamnet = None
    table = run(rows, crop=crop, yamnet=yamnet)
    screen = Screen(*table.header, title=table.title, caption="; ".join(table.notes))
    for cells in table.cells():
        screen.add_row(*cells)
    Console().print(screen)


if __name__ == "__main__":
    main()
