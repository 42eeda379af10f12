"""Action in video files, by the classifier of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tristream.decision import Decision
from tristream.embed import note_states
from tristream.embeddings import Embeddings, embeddings_of, fuse_tables
from tristream.errors import UsageError
from tristream.extract import extract_rows
from tristream.fused import stored_readout
from tristream.results import Choice, Prediction, Results
from tristream.videos import expand_paths, given_rows
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.fusion.action.calibration import Rejection


@dataclass(frozen=True)
class PredictOptions:
    """Choices of a prediction.

    Attributes:
        top: number of classes to list.
        max_error: answer "not sure" so that at most this share of the named is wrong on val.
        streams: streams to use; the others are masked. None: all.
        more_runs: runs whose probabilities are averaged with those of the first.
        segments: add the labels of the segments, by the first run's streams whose softmax layer reads segments.
    """

    top: int = 5
    max_error: float | None = None
    streams: Sequence[str] | None = None
    more_runs: Sequence[Workspace] = field(default_factory=tuple)
    segments: bool = False


def predict(
    workspace: Workspace, paths: Sequence[str | Path], options: PredictOptions | None = None
) -> Results[Prediction]:
    """Return the action in each video file that can be used.

    Args:
        workspace: of the fused run.
        paths: files, folders or patterns.
        options: number of classes, rejection, streams, ensemble.

    Raises:
        UsageError: no classifier, a stream trained since, runs with different classes, segments without a stream
            that reads them.
        TristreamError: a rejection limit that the validation videos cannot support.
    """
    options = options or PredictOptions()
    files = expand_paths(paths)
    decisions = [Decision(run) for run in (workspace, *options.more_runs)]
    for decision in decisions:
        decision.usable(np.ones((1, len(decision.streams)), bool), options.streams)
    if options.more_runs:
        _check_ensemble(decisions, options.max_error)
    if options.segments:
        _check_segments(decisions[0])
    limit = rejection(decisions[0], options.max_error)
    embedded = [embed_new(d.workspace, files, d.classifier_spaces) for d in decisions]
    failures: dict[str, str] = {}
    for one in embedded:
        failures |= one.failures
    note_numbers(decisions, options.max_error, limit)
    seen = _seen_in_training(decisions, embedded)
    if not options.more_runs:
        predictions = decisions[0].predict(
            embedded[0], top=options.top, max_error=options.max_error, streams=options.streams
        )
        note_patterns(decisions[0], predictions)
    else:
        predictions = _averaged(decisions, embedded, options)
    labels = embedded[0].segments
    marked = [
        replace(
            each,
            seen_in_training=each.path in seen,
            segments=labels.get(each.path, {}) if options.segments else None,
        )
        for each in predictions
    ]
    return Results(marked, failures)


def _check_segments(decision: Decision) -> None:
    """Check that a stream's softmax layer reads segments.

    Raises:
        UsageError: none does.
    """
    readouts = {name: stored_readout(decision.workspace, name) for name in decision.streams}
    if set(readouts.values()) == {"embedding"}:
        raise UsageError(
            f"--segments: the softmax layers of {', '.join(readouts)} read whole videos "
            "(aggregator.readout = embedding); train a stream with readout = mean_prob or another of steps"
        )


def _seen_in_training(decisions: Sequence[Decision], embedded: Sequence[Embeddings]) -> set[str]:
    """Return the paths whose bytes are those of a training video of a run."""
    paths: set[str] = set()
    for decision, embeddings in zip(decisions, embedded, strict=True):
        if not len(embeddings) or not decision.workspace.manifest_path.exists():
            continue
        rows = decision.workspace.manifest().rows
        trained = {row.content_id for row in rows if row.split == "train" and row.content_id}
        table = next(iter(embeddings.tables.values()))
        contents = zip(table.video_id, table.content_id, strict=True)
        paths |= {path for path, content in contents if content in trained}
    return paths


def embed_new(workspace: Workspace, files: Sequence[Path], spaces: dict[str, str]) -> Embeddings:
    """Embed files in the spaces that a decision was fitted in; video_ids are the paths as given.

    Raises:
        UsageError: a stream was trained again since.
    """
    trained = workspace.load_streams(list(spaces))
    for stream in trained:
        if stream.space_id != spaces[stream.name]:
            raise UsageError(
                f"stream '{stream.name}' is in space {stream.space_id}, but the decision was "
                f"fitted in {spaces[stream.name]}; run tristream embed and tristream fuse with "
                f"--run {workspace.folder}"
            )
    root = workspace.data_root()
    rows = given_rows(files, root)
    results = list(extract_rows(workspace.reading_from(root), rows, trained))
    note_states(workspace, results)
    embeddings = embeddings_of(trained, results)
    typed = {row.video_id: str(path) for row, path in zip(rows, files, strict=True)}
    tables = {
        name: replace(table, video_id=[typed[video] for video in table.video_id])
        for name, table in embeddings.tables.items()
    }
    failures = {typed[video]: reason for video, reason in embeddings.failures.items()}
    sentences = {typed[video]: words for video, words in embeddings.sentences.items()}
    segments = {typed[video]: labels for video, labels in embeddings.segments.items()}
    return Embeddings(tables, failures, sentences, segments)


def rejection(decision: Decision, max_error: float | None) -> Rejection | None:
    """Return the rejection rule; None without one.

    Raises:
        TristreamError: the classifier is not calibrated, or no limit keeps the error.
    """
    return None if max_error is None else decision.classifier.rejection(max_error)


def _check_ensemble(decisions: Sequence[Decision], max_error: float | None) -> None:
    if max_error is not None:
        raise UsageError(
            "--max-error and --with exclude each other: no validation video has seen the ensemble"
        )
    first = decisions[0]
    for decision in decisions:
        run = decision.workspace.folder
        if decision.classifier.calibration is None:
            raise UsageError(
                f"{run} has no calibrated probabilities to average: fuse had no validation videos"
            )
        if decision.classes != first.classes:
            odd = sorted(set(decision.classes) ^ set(first.classes))[0]
            raise UsageError(
                f"{run} and {first.workspace.folder} do not know the same classes (only one has "
                f"'{odd}'); an ensemble is of one task"
            )


def _averaged(
    decisions: Sequence[Decision], embedded: Sequence[Embeddings], options: PredictOptions
) -> list[Prediction]:
    """Return the mean of the probabilities of the runs that have a usable stream of a video."""
    from tristream.fusion.action.score_fusion import mean_scores

    probabilities: dict[str, list[np.ndarray]] = {}
    used: dict[str, set[str]] = {}
    for decision, embeddings in zip(decisions, embedded, strict=True):
        if not len(embeddings):
            continue
        X, masks, _ = fuse_tables({name: embeddings.tables[name] for name in decision.streams})
        masks = decision.usable(masks, options.streams)
        margins = decision.classifier.svm.decision_function(X, masks=masks)
        for path, margin, mask in zip(embeddings.video_ids, margins, masks, strict=True):
            probabilities.setdefault(path, [])
            used.setdefault(path, set())
            if mask.any():
                vote = decision.classifier.probabilities(margin[None], mask[None])
                probabilities[path].append(vote)
                names = zip(decision.streams, mask, strict=True)
                used[path] |= {name for name, there in names if there}
    every = {name for decision in decisions for name in decision.streams}
    predictions = []
    for path, votes in probabilities.items():
        choices: tuple[Choice, ...] = ()
        if votes:
            p = mean_scores(votes)[0]
            best = np.argsort(-p, kind="stable")[: options.top]
            values = [round(float(p[k]), 6) for k in best]
            labels = [decisions[0].classes[k] for k in best]
            choices = tuple(Choice(*c) for c in zip(labels, values, values, strict=True))
        predictions.append(
            Prediction(
                path=path,
                label=choices[0].label if choices else None,
                not_sure=False,
                top=choices,
                streams=tuple(sorted(used[path])),
                masked=tuple(sorted(every - used[path])),
                n_runs=len(votes),
            )
        )
    return predictions


def note_numbers(
    decisions: Sequence[Decision], max_error: float | None, limit: Rejection | None
) -> None:
    """Report what the numbers of a prediction are."""
    machine, progress = decisions[0].classifier, decisions[0].workspace.progress
    if len(decisions) > 1:
        progress.note(
            f"the numbers are the mean of the calibrated probabilities of {len(decisions)} runs"
        )
        return
    if machine.calibration is None:
        progress.note(
            "the numbers are margins of the SVM, not probabilities: fuse had no validation videos"
        )
        return
    n_val = len(machine.hits)
    progress.note(f"the numbers are probabilities, calibrated on {n_val} validation videos")
    if max_error is not None and limit is not None:
        is_named = machine.confidence >= limit.confidence
        n_named, n_wrong = int(is_named.sum()), int((is_named & ~machine.hits).sum())
        progress.note(
            f"not sure below {limit.confidence:.2f}: of the {n_val} validation videos {n_named} "
            f"reach it, of which {n_wrong} are wrong; in other videos the share is below "
            f"{100 * limit.upper:.1f} % (95 % sure), at most {100 * max_error:g} % was asked; "
            "videos that lack streams have limits of their own"
        )


def note_patterns(decision: Decision, predictions: Sequence[Prediction]) -> None:
    """Report the sets of streams that probabilities were calibrated for, and those that were not."""
    machine, progress = decision.classifier, decision.workspace.progress
    if machine.whole is None or not machine.patterns:
        return
    for streams in sorted({p.streams for p in predictions if p.streams}):
        name = "+".join(streams)
        n_videos = sum(p.streams == streams for p in predictions)
        if name in machine.patterns:
            n_val = len(machine.patterns[name].hits)
            progress.note(
                f"{n_videos} of {len(predictions)} videos: calibrated for {name} on {n_val} "
                "validation videos"
            )
        else:
            progress.warn(
                f"{n_videos} of {len(predictions)} videos: no validation video has {name}; their "
                "probabilities are not calibrated for it"
            )
