"""The anomaly half of tristream fuse: fits the detector on normal videos, stores it, measures it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from commands import screen, settings

if TYPE_CHECKING:
    from commands.fuse import Fused
    from commands.workspace import Workspace
    from fusion.autoencoder import AutoencoderDetector


def normal_rows(fused: Fused, normal: str | None, split: str) -> tuple[np.ndarray, str]:
    """Which videos of a split count as normal, and the sentence that says by what.

    Raises:
        Mistake: a label that no training video has.
    """
    in_split = fused.of("split") == split
    if normal is not None:
        labels = [label.strip() for label in normal.split(",") if label.strip()]
        known = sorted({row.label for row in fused.rows if row.label})
        for label in labels:
            if label not in known:
                raise screen.Mistake(f"--normal: no video has the label '{label}'; there are {', '.join(known)}")
        return np.flatnonzero(in_split & np.isin(fused.of("label"), labels)), f"labels {', '.join(labels)}"
    said = np.array([row.anomaly is not None for row in fused.rows])
    if said[fused.of("split") == "train"].any():
        is_normal = np.array([row.anomaly == 0 for row in fused.rows])
        return np.flatnonzero(in_split & is_normal), "videos with anomaly = 0"
    return np.flatnonzero(in_split), f"all {split} videos (no --normal, no column anomaly)"


def fit(fused: Fused, chosen: settings.Settings, normal: str | None, seed: int) -> AutoencoderDetector | None:
    """The autoencoder on normal training videos, its threshold from normal validation videos; or None."""
    from fusion.autoencoder import AutoencoderDetector

    train, by_what = normal_rows(fused, normal, "train")
    val, _ = normal_rows(fused, normal, "val")
    train, val = (rows[fused.masks[rows].any(axis=1)] for rows in (train, val))
    if len(train) < 2:
        screen.note(f"no anomaly detector: {len(train)} normal training videos ({by_what}); it needs 2 or more")
        return None
    detector = AutoencoderDetector(columns=fused.columns, random_state=seed, **chosen.detector.model_dump())
    detector.fit(fused.X[train], X_val=fused.X[val] if len(val) else None)
    screen.note(
        f"anomaly detector: normal are {by_what}, {len(train)} in train, {len(val)} in val; bottleneck "
        f"{detector.bottleneck_}, threshold {detector.threshold_.value:.3f} "
        f"(quantile {chosen.detector.quantile:g} of val)"
    )
    for remark in detector.remarks_:
        screen.warn(remark)
    return detector


def detect(
    workspace: Workspace, fused: Fused, chosen: settings.Settings, normal: str | None, seed: int
) -> dict[str, Any] | None:
    """Fits and stores the detector; measures it where the test videos say what is abnormal."""
    from fusion import evaluate
    from store.checkpoint import save_artifact

    detector = fit(fused, chosen, normal, seed)
    if detector is None:
        return None
    arrays, config = detector.to_arrays()
    save_artifact(workspace.fusion_dir / "detector", arrays, {**config, "spaces": fused.spaces})
    found: dict[str, Any] = {"bottleneck": detector.bottleneck_, "threshold": detector.threshold_.value}
    test = np.array([row.split == "test" and row.anomaly is not None for row in fused.rows]) & fused.masks.any(axis=1)
    abnormal = np.array([row.anomaly == 1 for row in fused.rows])[test]
    if not 0 < abnormal.sum() < test.sum():
        return found
    scores = detector.anomaly_score(fused.X[test])
    alarms = scores >= detector.threshold_.value
    found |= {
        "auroc": evaluate.auroc(abnormal, scores),
        "average_precision": evaluate.average_precision(abnormal, scores),
        "prevalence": float(abnormal.mean()),
        "equal_error_rate": evaluate.equal_error_rate(abnormal, scores),
        "hits": float(alarms[abnormal].mean()),
        "false_alarms": float(alarms[~abnormal].mean()),
    }
    screen.note(
        f"on {int(test.sum())} test videos ({int(abnormal.sum())} abnormal): AUROC {found['auroc']:.3f}, average "
        f"precision {found['average_precision']:.3f}, equal error rate {found['equal_error_rate']:.3f} (ROC "
        f"interpolation); at the threshold {100 * found['hits']:.0f} % of the abnormal and "
        f"{100 * found['false_alarms']:.0f} % of the normal alarm"
    )
    return found
