"""The classifier's half of `fuse`: fits the SVM, measures it in every way that could flatter it, says what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.errors import TristreamError
from tristream.fused import Fused
from tristream.settings import Settings
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.fusion.action.ablation import Ablation
    from tristream.fusion.action.classifier import CalibratedSVM
    from tristream.fusion.action.late_fusion import LateFusion
    from tristream.fusion.action.stream_views import StreamViews
    from tristream.fusion.intervals import Estimate

MAX_ERRORS = (0.05, 0.1, 0.2)  # at which the reject option is shown
N_HARDEST = 20


def classify(
    workspace: Workspace,
    fused: Fused,
    chosen: Settings,
    seed: int,
) -> dict[str, Any] | None:
    """Fit, store and measure the SVM; return the report, or None with fewer than two classes."""
    from tristream.fusion.action.ablation import SVMOptions, ablate
    from tristream.fusion.action.classifier import calibrate
    from tristream.fusion.action.rows import FusedRows
    from tristream.fusion.action.softmax_head import fit_softmax
    from tristream.fusion.action.stream_views import stream_views
    from tristream.store.checkpoint import save_artifact

    labels, splits, groups = fused.of("label"), fused.of("split"), fused.of("group")
    n_classes = len(
        {label for label, split in zip(labels, splits, strict=True) if split == "train" and label}
    )
    n_test = sum(
        split == "test" and label != "" for label, split in zip(labels, splits, strict=True)
    )
    if n_classes < 2 or not n_test:
        workspace.progress.note(
            f"no classifier: {n_classes} class(es) in train, {n_test} labelled videos in test"
        )
        return None
    rows = FusedRows(fused.X, fused.masks, fused.columns, labels, splits, groups)
    parts = chosen.fusion
    options = SVMOptions(parts.l2, parts.reading, parts.select, parts.stream_dropout)
    ablation = ablate(rows, options, seed=seed)
    val = (splits == "val") & (labels != "")
    machine = calibrate(
        ablation.svm,
        fused.X[val],
        labels[val],
        masks=fused.masks[val],
        groups=groups[val],
        method=parts.calibration,
    )
    arrays, config = machine.to_arrays()
    config |= {"spaces": fused.spaces, "settings": chosen.to_json()["fusion"]}
    save_artifact(workspace.fusion_dir / "svm", arrays, config)
    views = stream_views(ablation.svm, rows, seed=seed)
    train = (splits == "train") & (labels != "") & fused.masks.any(axis=1)
    softmax = fit_softmax(fused.X[train], labels[train], l2=ablation.svm.l2, columns=fused.columns,
                          masks=fused.masks[train])  # fmt: skip
    softmax_named = softmax.predict(
        fused.X[ablation.test_rows], masks=fused.masks[ablation.test_rows]
    )
    late, without_late = _late(fused, ablation)
    report = {
        **_subsets(ablation),
        **_views(views),
        **_classes(fused, ablation, seed),
        **_probabilities(fused, ablation, machine, parts.calibration),
        **_rivals(fused, ablation, late, softmax_named, seed),
        "segments": _segments(fused, ablation),
    }
    report["warnings"] = [*ablation.words, *without_late, *report.pop("unsure")]
    return report


def _late(fused: Fused, found: Ablation) -> tuple[LateFusion | None, list[str]]:
    """Late fusion of the streams' own softmax layers, or the sentence that says why there is none."""
    from tristream.fusion.action.late_fusion import late_fusion

    classes = tuple(found.svm.classes_.tolist())
    for name, head in fused.heads.items():
        if head.classes != classes:
            return None, [
                f"no late fusion: '{name}' was trained to tell {len(head.classes)} classes apart (first: "
                f"{head.classes[0]}), which are not the {len(classes)} of this run's training videos"
            ]
    if len(fused.heads) < 2:
        return None, []
    logits = {name: head.logits for name, head in fused.heads.items()}
    labels, splits = fused.of("label"), fused.of("split")
    return late_fusion(
        logits, classes=found.svm.classes_, labels=labels, splits=splits, l2=found.svm.l2
    ), []


def _subsets(found: Ablation) -> dict[str, Any]:
    return {
        "C": found.svm.C_,
        "duality_gap": found.svm.duality_gap_,
        "l2": found.svm.l2,
        "reading": found.svm.reading,
        "classes": found.svm.classes_.tolist(),
        "subsets": {
            "+".join(r.streams): {
                "train_top1": r.train_top1,
                "test_top1": plain(r.test_top1),
                "test_top5": plain(r.test_top5),
                "mean_class": r.mean_class,
                "l2": r.l2,
                "n_train": r.n_train,
            }
            for r in found.subsets
        },
        "differences": [
            {"more": "+".join(d.more), "less": "+".join(d.less), **plain(d.gain)}
            for d in found.differences
        ],
        "gains": {
            g.stream: {"retrained": plain(g.retrained), "withheld": plain(g.withheld)}
            for g in found.gains
        },
        "complete": plain(found.complete),
        "presence": {
            "accuracy": plain(found.presence.accuracy),
            "commonest": found.presence.majority,
            "words": found.presence.words,
        },
        "words": list(found.words),
    }


def _views(views: list[StreamViews]) -> dict[str, Any]:
    """(a) all test videos, (b) those that have the stream, (c) the stream withheld, (d) its presence alone."""
    return {
        "views": {
            v.stream: {
                "n_train_without": v.n_train_without,
                "n_test_without": v.n_test_without,
                "a": plain(v.everything),
                "b": plain(v.having),
                "c": plain(v.withheld),
                "d": plain(v.presence.accuracy) if v.presence else None,
                "words": v.presence.words if v.presence else f"every video has '{v.stream}'",
            }
            for v in views
        }
    }


def _classes(fused: Fused, found: Ablation, seed: int) -> dict[str, Any]:
    """Figures of each class, what it is taken for, and the videos it is hardest on."""
    from tristream.fusion import evaluate

    rows, whole = found.test_rows, found.subsets[-1].streams
    labels, groups, predicted = fused.of("label")[rows], fused.of("group")[rows], found.named[whole]
    classes = sorted({*found.svm.classes_.tolist(), *labels.tolist()})
    matrix = evaluate.confusion(labels, predicted, classes=classes)
    totals = matrix.sum(axis=1, keepdims=True)
    alone = {
        "+".join(streams): evaluate.per_class_accuracy(labels, names)
        for streams, names in found.named.items()
        if len(streams) == 1
    }
    ids = fused.of("video_id")[rows].tolist()
    hardest = evaluate.hardest_videos(
        ids, labels, found.scores, classes=found.svm.classes_, n_videos=N_HARDEST
    )
    place = {video: row for row, video in enumerate(ids)}
    return {
        "per_class": {
            c.label: {"n": c.n, "accuracy": plain(c.accuracy), "precision": c.precision,
                      "alone": {name: by[c.label] for name, by in alone.items()}}
            for c in evaluate.class_figures(labels, predicted, groups, seed=seed)
        },
        "confusion": {
            "classes": classes,
            "matrix": matrix.tolist(),
            "normalised": np.round(matrix / np.maximum(totals, 1), 4).tolist(),
        },
        "hardest": [
            {"video_id": v.video_id, "label": v.label, "predicted": v.named,
             "margin": v.margin if np.isfinite(v.margin) else None,
             "top": top_labels(found.svm.classes_, found.scores[place[v.video_id]], 5)}
            for v in hardest
        ],
    }  # fmt: skip


def _probabilities(
    fused: Fused, found: Ablation, machine: CalibratedSVM, method: str
) -> dict[str, Any]:
    """Calibration and reject option as they fare on the test videos, and what each of these is called."""
    from tristream.fusion.action.classifier import calibration_figures, class_index

    rows, classes = found.test_rows, found.svm.classes_
    labels, predicted = fused.of("label")[rows], found.named[found.subsets[-1].streams]
    unsure: list[str] = []
    calibration, rejections, sure = None, [], None
    if machine.calibration is None:
        unsure.append(
            "no labelled validation video: margins stay margins, and predict cannot say 'not sure'"
        )
    else:
        used = fused.masks[rows] & found.svm.standardiser.known
        sure = machine.probabilities(found.scores, used)
        figures = calibration_figures(found.scores, class_index(labels, classes), sure)
        calibration = {"method": method, "n_val": len(machine.hits), **(vars(figures) if figures else {}),
                       "temperature": getattr(machine.calibration, "temperature", None)}  # fmt: skip
        best = sure[np.arange(len(predicted)), found.scores.argmax(axis=1)]
        rejections = [
            _rejected(machine, max_error, best, predicted == labels, used)
            for max_error in MAX_ERRORS
        ]
    cells = []
    for i, row in enumerate(rows):
        cell = {"video_id": fused.rows[row].video_id, "label": labels[i].item(), "predicted": predicted[i].item(),
                "streams": [name for name, there in zip(fused.columns, fused.masks[row], strict=True) if there],
                "scores": np.round(found.scores[i], 4).tolist()}  # fmt: skip
        if sure is not None:
            cell["probabilities"] = np.round(sure[i], 4).tolist()
        cells.append(cell)
    return {
        "calibration": calibration,
        "rejection": rejections,
        "predictions": cells,
        "unsure": unsure,
    }


def _rejected(
    machine: CalibratedSVM,
    max_error: float,
    confidence: np.ndarray,
    hits: np.ndarray,
    masks: np.ndarray,
) -> dict[str, Any]:
    """Return a rejection rule and its effect on test videos, each by the limit of its own streams."""
    try:
        rule = machine.rejection(max_error)
    except TristreamError as error:
        return {"max_error": max_error, "confidence": None, "words": str(error)}
    is_named = confidence >= [machine.limit(max_error, mask) for mask in masks]
    return {
        "max_error": max_error,
        "confidence": rule.confidence,
        "val_error": rule.error,
        "val_kept": rule.kept,
        "val_upper": rule.upper,
        "test_error": float((~hits[is_named]).mean()) if is_named.any() else None,
        "test_kept": float(is_named.mean()),
    }


def _rivals(
    fused: Fused, found: Ablation, late: LateFusion | None, softmax_named: np.ndarray, seed: int
) -> dict[str, Any]:
    """Other ways to decide on the same test videos: a softmax head, each stream's own, and late fusion."""
    from tristream.fusion.intervals import mean_interval, paired_difference

    rows = found.test_rows
    labels, groups = fused.of("label")[rows], fused.of("group")[rows]
    svm_hits = found.named[found.subsets[-1].streams] == labels
    rivals = {"softmax": softmax_named}
    rivals |= {
        name: predictions[rows] for name, predictions in (late.named if late else {}).items()
    }
    result = {
        "late": {},
        "late_weights": dict(late.weights) if late else {},
        "heads": {
            name: plain(mean_interval(predictions[rows] == labels, groups, seed=seed))
            for name, predictions in (late.heads if late else {}).items()
        },
        "minus_svm": {
            name: plain(paired_difference(predictions == labels, svm_hits, groups, seed=seed))
            for name, predictions in rivals.items()
        },
    }
    figures = {
        name: plain(mean_interval(predictions == labels, groups, seed=seed))
        for name, predictions in rivals.items()
    }
    return result | {"softmax": figures.pop("softmax"), "late": figures}


def _segments(fused: Fused, found: Ablation) -> dict[str, Any]:
    """Share of the segments of all test videos that are labelled like their video (torch-lrcn's "detection")."""
    labels, shares = fused.of("label"), {}
    for name, head in fused.heads.items():
        if head.segment_labels is None:
            continue
        hits = [
            head.classes[segment] == labels[row]
            for row in found.test_rows
            for segment in head.segment_labels[row]
        ]
        if hits:
            shares[name] = {"value": float(np.mean(hits)), "n": len(hits)}
    return shares


def top_labels(classes: np.ndarray, scores: np.ndarray, n: int) -> list[dict[str, Any]]:
    """The n classes of highest score; of equals the first in the alphabet."""
    best = np.argsort(-scores, kind="stable")[:n]
    return [{"label": str(classes[k]), "score": round(float(scores[k]), 6)} for k in best]


def plain(estimate: Estimate | None) -> Any:
    """An estimate for JSON, which knows no NaN."""
    if estimate is None:
        return None
    return {
        k: None if isinstance(v, float) and not np.isfinite(v) else v
        for k, v in vars(estimate).items()
    }
