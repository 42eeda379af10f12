"""Cross-validation: every labelled video of a run is tested once, by streams that have not seen its group."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tristream.dataset.manifest import Manifest, VideoRow, held_out_groups, write_manifest
from tristream.embed import EmbedOptions, embed
from tristream.errors import UsageError
from tristream.files import write_json
from tristream.fit_classifier import plain
from tristream.fuse import FuseOptions, fuse
from tristream.settings import check
from tristream.store.lineage import digest
from tristream.train_stream import TrainOptions, train_stream
from tristream.workspace import Workspace, check_names, stream_names

RESULT = "cross_validation.json"


@dataclass(frozen=True)
class CrossValidateOptions:
    """Choices of a cross-validation.

    Attributes:
        n_folds: number of folds; groups stay whole and classes are spread evenly.
        by_fold: use the column `fold` of videos.csv instead.
        streams: streams to train; None: all.
        train: settings, seed and precision of every fold.
    """

    n_folds: int = 5
    by_fold: bool = False
    streams: Sequence[str] | None = None
    train: TrainOptions = dataclasses.field(default_factory=TrainOptions)


@dataclass(frozen=True)
class Fold:
    """Result of one fold.

    Attributes:
        name: number, or value of the column `fold`.
        n_train, n_val, n_test: labelled videos of each split that could be used.
        accuracy: of all streams on the fold's test videos.
        subsets: {streams joined by +: accuracy}.
        hits: {video_id: True if its class is right}.
        resumed: True if an earlier call had finished the fold.
    """

    name: str
    n_train: int
    n_val: int
    n_test: int
    accuracy: float
    subsets: Mapping[str, float]
    hits: Mapping[str, bool]
    resumed: bool = False

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name != "resumed"}


def cross_validate(
    workspace: Workspace, options: CrossValidateOptions | None = None, *, data: Path | None = None
) -> dict[str, Any]:
    """Train, embed and fuse once per fold in RUN/folds/NAME; return and write the accuracies.

    The test split of a fold is the fold; val is held out from the rest by groups, as `index` does.
    All folds share the cache. Finished folds are not repeated.

    Args:
        workspace: of the run.
        options: folds, streams, settings.
        data: folder the paths of videos are relative to; None: the one that was indexed.

    Returns:
        Content of RUN/cross_validation.json: "folds", "mean" and "standard_deviation" over folds,
        "pooled" (all videos, with a 95 % interval over groups), "subsets".

    Raises:
        UsageError: no run, no column fold, fewer groups than folds, an unknown stream or setting.
    """
    from tristream.fusion.intervals import mean_interval

    options = options or CrossValidateOptions()
    names = check_names(options.streams) or stream_names()
    settings = (options.train.preset, options.train.config, options.train.assignments)
    check(*settings, stream_names=names)
    manifest = workspace.manifest(data)
    rows = [row for row in manifest.rows if row.label]
    fold_of = _by_column(workspace, rows) if options.by_fold else _by_groups(rows, options)
    folds = []
    order = sorted(set(fold_of.values()), key=lambda name: (len(name), name))
    for number, name in enumerate(order, start=1):
        workspace.progress.note(f"fold {name} ({number} of {len(order)})")
        split = _split(manifest.root, rows, fold_of, name, options.train.seed)
        folds.append(_fold(workspace, name, split, names, options))
    groups = {row.video_id: row.group for row in rows}
    hits = {video: hit for fold in folds for video, hit in fold.hits.items()}
    pooled = mean_interval(
        list(map(float, hits.values())), [groups[v] for v in hits], seed=options.train.seed
    )
    subsets = {
        subset: _spread([fold.subsets[subset] for fold in folds if subset in fold.subsets])
        for subset in folds[0].subsets
    }
    result = {
        "by": "fold" if options.by_fold else "groups",
        "streams": names,
        "folds": [fold.to_json() for fold in folds],
        **_spread([fold.accuracy for fold in folds]),
        "pooled": plain(pooled),
        "subsets": subsets,
    }
    write_json(workspace.folder / RESULT, result)
    return result


def _by_column(workspace: Workspace, rows: Sequence[VideoRow]) -> dict[str, str]:
    """Return {video_id: fold} from the column `fold`."""
    missing = [row.video_id for row in rows if not row.fold]
    values = {row.fold for row in rows if row.fold}
    if missing or len(values) < 2:
        what = (
            f"{len(missing)} of {len(rows)} labelled videos have no fold" if missing else "one fold"
        )
        raise UsageError(
            f"{workspace.manifest_path}: {what}; --by fold needs at least two folds and one for "
            "every labelled video: tristream index --list FILE.csv with a column fold, or --folds N"
        )
    folds: dict[str, set[str]] = {}
    for row in rows:
        folds.setdefault(row.group, set()).add(row.fold)
    spread = [group for group, names in folds.items() if len(names) > 1]
    if spread:
        workspace.progress.warn(
            f"{len(spread)} groups (first: {spread[0]}) are in several folds: their videos are "
            "tested by streams that have seen videos of the same source"
        )
    return {row.video_id: row.fold for row in rows}


def _by_groups(rows: Sequence[VideoRow], options: CrossValidateOptions) -> dict[str, str]:
    """Return {video_id: fold}: groups stay whole, classes are spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    n_groups = len({row.group for row in rows})
    if options.n_folds < 2 or n_groups < options.n_folds:
        raise UsageError(
            f"--folds {options.n_folds}: the {len(rows)} labelled videos have {n_groups} groups; "
            "it must be at least 2 and at most the number of groups"
        )
    splitter = StratifiedGroupKFold(options.n_folds, shuffle=True, random_state=options.train.seed)
    labels, groups = [row.label for row in rows], [row.group for row in rows]
    fold_of: dict[str, str] = {}
    for number, (_, test) in enumerate(splitter.split(rows, labels, groups), start=1):
        fold_of |= {rows[index].video_id: str(number) for index in test}
    return fold_of


def _split(
    root: Path, rows: Sequence[VideoRow], fold_of: Mapping[str, str], name: str, seed: int
) -> Manifest:
    """Return the videos with this fold as test, and val held out from the others by groups."""
    rest = [row for row in rows if fold_of[row.video_id] != name]
    val = held_out_groups(rest, seed=seed)

    def split_of(row: VideoRow) -> str:
        if fold_of[row.video_id] == name:
            return "test"
        return "val" if row.group in val else "train"

    return Manifest(root, tuple(dataclasses.replace(row, split=split_of(row)) for row in rows))


def _fold(
    workspace: Workspace,
    name: str,
    manifest: Manifest,
    names: Sequence[str],
    options: CrossValidateOptions,
) -> Fold:
    """Train, embed and fuse one fold, or return its result if it is finished."""
    folder = workspace.folder / "folds" / _folder_name(name)
    fold = dataclasses.replace(workspace, folder=folder)
    train = options.train
    config = "" if train.config is None else train.config.read_text(encoding="utf-8")
    splits = [[row.video_id, row.content_id, row.label, row.split] for row in manifest.rows]
    chosen = dataclasses.replace(train, force=False, config=None)
    key = digest([splits, list(names), repr(chosen), config])
    finished = _finished(folder / "fold.json", key) if not train.force else None
    if finished is not None:
        workspace.progress.note(f"fold {name} is finished already")
        return finished
    write_manifest(manifest, fold.manifest_path)
    trained = [stream for stream in names if train_stream(fold, stream, train).space_id]
    embed(fold, EmbedOptions(streams=trained))
    fusion = FuseOptions(
        streams=trained,
        preset=train.preset,
        config=train.config,
        assignments=train.assignments,
        seed=train.seed,
        detector=False,
    )
    report = fuse(fold, fusion)["classification"]
    if report is None:
        raise UsageError(
            f"fold {name} has fewer than two classes in train, or no test video that can be used"
        )
    used = {row["video_id"]: row["predicted"] == row["label"] for row in report["predictions"]}
    counts = {part: sum(row.split == part for row in manifest.rows) for part in ("train", "val")}
    subsets = {streams: row["test_top1"]["value"] for streams, row in report["subsets"].items()}
    result = Fold(
        name=name,
        n_train=counts["train"],
        n_val=counts["val"],
        n_test=len(used),
        accuracy=float(np.mean(list(used.values()))),
        subsets=subsets,
        hits=used,
    )
    write_json(folder / "fold.json", {"key": key, **result.to_json()})
    return result


def _finished(path: Path, key: str) -> Fold | None:
    """Return the stored result of a fold with the same videos and settings."""
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    return Fold(**values, resumed=True) if values.pop("key", None) == key else None


def _folder_name(name: str) -> str:
    """Return the name of a fold's folder; characters with a meaning in paths become `_`."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".") or "_"
    return safe if safe == name else f"{safe}-{digest([name])[:8]}"


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and standard deviation over folds; None for one fold."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "standard_deviation": deviation}
