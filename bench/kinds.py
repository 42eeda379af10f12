"""AUROC of each kind of anomaly in the workshop's scenes, by each stream alone and by all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tristream.fit_detector import normal_rows
from tristream.fused import Fused, fused_embeddings
from tristream.fusion.anomaly.autoencoder import AutoencoderDetector
from tristream.fusion.evaluate import auroc
from tristream.settings import Settings
from tristream.settings import load as load_settings
from tristream.workshop.dataset import read_kinds
from tristream.workspace import Workspace


def kinds(
    workspace: Workspace, scenes: Path, *, preset: str, seed: int
) -> dict[str, dict[str, float]]:
    """Return {kind: {stream or "all": AUROC}} against normal test videos of the same classes.

    Args:
        workspace: of a run on the scenes, embedded.
        scenes: folder of the rendered scenes.
        preset: settings of the autoencoder.
        seed: random seed.
    """
    fused = fused_embeddings(workspace, workspace.manifest().rows, None)
    known = read_kinds(scenes)
    kind = np.array([known[row.video_id] for row in fused.rows])
    test, label = fused.of("split") == "test", fused.of("label")
    settings = load_settings(preset)
    scores = {name: _scores(fused.only([name]), settings, seed) for name in fused.columns}
    scores["all"] = _scores(fused, settings, seed)
    table: dict[str, dict[str, float]] = {}
    for abnormal in sorted(set(kind) - {"normal"}):
        is_abnormal = test & (kind == abnormal)
        rows = is_abnormal | (test & (kind == "normal") & np.isin(label, label[is_abnormal]))
        table[abnormal] = {
            name: auroc(is_abnormal[rows], score[rows]) for name, score in scores.items()
        }
    return table


def _scores(fused: Fused, settings: Settings, seed: int) -> np.ndarray:
    train, val = (normal_rows(fused.rows, None, split)[0] for split in ("train", "val"))
    detector = AutoencoderDetector(
        columns=fused.columns, random_state=seed, **settings.detector.autoencoder()
    )
    return detector.fit(fused.X[train], X_val=fused.X[val]).anomaly_score(fused.X)
