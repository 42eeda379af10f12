"""Decisions of a fused run on embeddings: action and anomaly score, without any file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.decision_files import load_decision
from tristream.embeddings import Embeddings, fuse_tables
from tristream.errors import UsageError
from tristream.results import Choice, Detection, Prediction
from tristream.stored_detector import StoredDetector
from tristream.workspace import HasWorkspace, Workspace

if TYPE_CHECKING:
    from tristream.fusion.action.classifier import CalibratedSVM

Blocks = Mapping[str, "np.ndarray | None"]


class Decision:
    """Classifier and anomaly detector of a run, applied to embeddings.

    Args:
        run: a run, or its folder.

    Nothing is loaded before it is used. `predict` and `detect` take `Embeddings` of any number of
    videos, or {stream: embedding (D,) or None} of one.
    """

    def __init__(self, run: str | Path | Workspace | HasWorkspace) -> None:
        self.workspace = Workspace.of(run)

    @cached_property
    def _svm(self) -> tuple[CalibratedSVM, dict[str, str]]:
        from tristream.fusion.action.classifier import CalibratedSVM

        arrays, config = load_decision(self.workspace.fusion_dir / "svm", self.workspace.folder)
        return CalibratedSVM.from_arrays(arrays, config), config["spaces"]

    @property
    def classifier(self) -> CalibratedSVM:
        """Calibrated SVM of the run.

        Raises:
            UsageError: `fuse` has not fitted one.
        """
        return self._svm[0]

    @cached_property
    def detector(self) -> StoredDetector:
        """Anomaly detector of the run.

        Raises:
            UsageError: `fuse` has not fitted one.
        """
        return StoredDetector.load(self.workspace)

    @property
    def streams(self) -> list[str]:
        """Streams of the classifier, in column order."""
        return list(self.classifier.svm.standardiser.columns)

    @property
    def classifier_spaces(self) -> dict[str, str]:
        """{stream: space_id} that the classifier was fitted in."""
        return self._svm[1]

    @property
    def classes(self) -> list[str]:
        """Labels of the classifier."""
        return [str(label) for label in self.classifier.svm.classes_]

    def predict(
        self,
        embeddings: Embeddings | Blocks,
        *,
        top: int = 5,
        max_error: float | None = None,
        streams: Sequence[str] | None = None,
    ) -> list[Prediction]:
        """Return the action in each video.

        Args:
            embeddings: of videos, or of one video as {stream: array or None}.
            top: number of classes to list.
            max_error: answer "not sure" so that at most this share of the named is wrong on val.
            streams: streams to use; None: all that a video has.

        Raises:
            UsageError: another embedding space, an unknown stream, or a limit that val cannot
                support.
        """
        X, masks, names = self._matrix(embeddings, self.classifier.svm.standardiser.columns)
        self._check_spaces(embeddings, self.classifier_spaces)
        if max_error is not None:
            self.classifier.rejection(max_error)  # raises if no limit can keep it
        masks = self.usable(masks, streams)
        if not len(X):
            return []
        margins = self.classifier.svm.decision_function(X, masks=masks)
        return [
            self._prediction(name, margin, mask, top=top, max_error=max_error)
            for name, margin, mask in zip(names, margins, masks, strict=True)
        ]

    def usable(self, masks: np.ndarray, streams: Sequence[str] | None) -> np.ndarray:
        """Return the masks without the streams that the classifier does not know or that are off.

        Raises:
            UsageError: a stream that the classifier does not have.
        """
        if streams and set(streams) - set(self.streams):
            unknown = sorted(set(streams) - set(self.streams))[0]
            raise UsageError(f"the SVM does not know '{unknown}'; it has {', '.join(self.streams)}")
        masks = masks & self.classifier.svm.standardiser.known
        return masks & [name in streams for name in self.streams] if streams else masks

    def _prediction(
        self,
        path: str,
        margin: np.ndarray,
        mask: np.ndarray,
        *,
        top: int,
        max_error: float | None,
    ) -> Prediction:
        machine = self.classifier
        sure = machine.probabilities(margin[None], mask[None])[0] if machine.whole else None
        best = np.argsort(-margin, kind="stable")[:top]
        choices = tuple(
            Choice(
                str(machine.svm.classes_[k]),
                round(float(margin[k]), 6),
                None if sure is None else round(float(sure[k]), 6),
            )
            for k in best
        )
        not_sure = False
        if max_error is not None and sure is not None:
            not_sure = bool(sure[best[0]] < machine.limit(max_error, mask))
        used = tuple(name for name, there in zip(self.streams, mask, strict=True) if there)
        masked = tuple(name for name in self.streams if name not in used)
        label = choices[0].label if mask.any() and not not_sure else None
        calibrated_for = None if sure is None else machine.pattern(mask)
        return Prediction(
            path, label, not_sure, choices, used, masked, calibrated_for=calibrated_for
        )

    def detect(
        self, embeddings: Embeddings | Blocks, *, threshold: float | None = None
    ) -> list[Detection]:
        """Return the anomaly score of each video.

        Args:
            embeddings: of videos, or of one video as {stream: array or None}.
            threshold: score at which an alarm starts; None: the stored one.

        Raises:
            UsageError: another embedding space, or a detector that scores windows.
        """
        stored = self.detector
        if stored.plan.seconds:
            raise UsageError(
                f"the run's detector scores windows of {stored.plan.seconds:g} s, not video "
                "embeddings; detect files, or run tristream fuse --window 0"
            )
        self._check_spaces(embeddings, stored.spaces)
        columns = stored.neighbours.standardiser_.columns
        X, masks, names = self._matrix(embeddings, columns)
        if not len(X):
            return []
        limit = stored.detector.threshold_.value if threshold is None else threshold
        scores = stored.scores(X, np.zeros(len(X), np.int64))
        shares = stored.detector.attribution(X)
        nearest = stored.nearest(X, np.zeros(len(X), np.int64))
        return [
            Detection(
                path=names[n],
                anomaly_score=round(float(scores[n]), 6),
                threshold=round(float(limit), 6),
                abnormal=bool(scores[n] >= limit),
                shares={
                    name: round(float(part), 4)
                    for name, part in zip(columns, shares[n], strict=True)
                },
                masked=tuple(
                    name for name, there in zip(columns, masks[n], strict=True) if not there
                ),
                nearest=tuple(nearest[n]),
            )
            for n in range(len(X))
        ]

    @staticmethod
    def _matrix(
        embeddings: Embeddings | Blocks, columns: Mapping[str, slice]
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return X, masks and names of the videos, in the columns of a decision."""
        if isinstance(embeddings, Embeddings):
            if not len(embeddings):
                return np.zeros((0, 0)), np.zeros((0, len(columns)), bool), []
            X, masks, _ = fuse_tables({name: embeddings.tables[name] for name in columns})
            return X, masks, embeddings.video_ids
        unknown = sorted(set(embeddings) - set(columns))
        if unknown:
            raise UsageError(
                f"unknown stream '{unknown[0]}'; the run was fused on {', '.join(columns)}"
            )
        width = max(block.stop for block in columns.values())
        X = np.full((1, width), np.nan)
        masks = np.zeros((1, len(columns)), bool)
        for n, (name, block) in enumerate(columns.items()):
            values = embeddings.get(name)
            if values is None:
                continue
            values = np.asarray(values, np.float64).reshape(-1)
            if len(values) != block.stop - block.start:
                raise UsageError(
                    f"the embedding of '{name}' has {len(values)} numbers; the run's has "
                    f"{block.stop - block.start}"
                )
            X[0, block], masks[0, n] = values, True
        return X, masks, [""]

    def _check_spaces(self, embeddings: Any, spaces: Mapping[str, str]) -> None:
        if not isinstance(embeddings, Embeddings):
            return
        given = embeddings.spaces
        if missing := [name for name in spaces if name not in given]:
            raise UsageError(f"there are no embeddings of '{missing[0]}'; the run was fused on it")
        for name, space in spaces.items():
            if given[name] != space:
                raise UsageError(
                    f"stream '{name}' is in space {given[name]}, but the decision was fitted in "
                    f"{space}; run tristream embed and tristream fuse with "
                    f"--run {self.workspace.folder}"
                )
