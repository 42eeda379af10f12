"""Training of every stream that the files of a run have, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream import streams
from tristream.errors import UsageError
from tristream.train_stream import TrainOptions, TrainResult, take_stream, train_stream
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow

FAST_EPOCHS = 10
PHASES = ("encoder_training", "aggregator_training")


@dataclass(frozen=True)
class AllTrained:
    """Result of training every stream.

    Attributes:
        results: {stream: its result}, without the skipped ones.
        skipped: {stream: reason} of the others.
    """

    results: dict[str, TrainResult]
    skipped: dict[str, str]

    @property
    def n_rejected(self) -> int:
        """Videos that one stream at least could not use: the largest count of a stream."""
        return max((result.n_rejected for result in self.results.values()), default=0)

    @property
    def rank(self) -> int:
        """Rank of this process among those that train together."""
        return max((result.rank for result in self.results.values()), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON."""
        trained = {name: result.to_json() for name, result in self.results.items()}
        return {"streams": trained, "skipped": self.skipped}


def train_all(
    workspace: Workspace,
    options: TrainOptions | None = None,
    *,
    epochs: int | None = None,
    from_run: Workspace | None = None,
    data: Path | None = None,
) -> AllTrained:
    """Train every stream that the files have; one that is trained already is not trained again.

    Args:
        workspace: of the run.
        options: settings of every training; those of one stream reach that stream alone.
        epochs: of every phase; None: as the settings have it.
        from_run: run whose trained streams are taken; None: they are trained here.
        data: folder the paths of videos are relative to; None: the one that was indexed.

    Raises:
        UsageError: no stream can be used, with the reason of each.
    """
    options = options or TrainOptions()
    manifest = workspace.manifest(data)
    wanted, skipped = streams_of(manifest.rows)
    results: dict[str, TrainResult] = {}
    for number, name in enumerate(wanted, 1):
        workspace.progress.note(f"stream {number} of {len(wanted)}: {name}")
        if from_run is not None:
            if name in from_run.trained_names():
                results[name] = take_stream(workspace, name, from_run)
            else:
                skipped[name] = f"not trained in {from_run.folder}"
            continue
        result = train_stream(workspace, name, training_of(name, options, epochs), data=data)
        if result.space_id is None and not result.trained:
            skipped[name] = str(result.facts.get("reason", "there is nothing to learn"))
        else:
            results[name] = result
    if not results:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise UsageError(f"no stream of {manifest.root} can be used: {reasons}")
    for name, reason in skipped.items():
        workspace.progress.note(f"{name} is left out: {reason}")
    return AllTrained(results, skipped)


def streams_of(rows: Sequence[VideoRow]) -> tuple[list[str], dict[str, str]]:
    """Return the streams that the files have, by their headers, and why the others are left out."""
    has_sound = any(row.has_audio is not False for row in rows)
    has_frames = any(row.height is not None or row.has_audio is None for row in rows)
    wanted, skipped = [], {}
    for name in streams.names():
        kind = streams.stream_class(name)
        if kind.needs_sound and not has_sound:
            skipped[name] = "no file has audio"
        elif kind.needs_pictures and not has_frames:
            skipped[name] = "no file has frames"
        else:
            wanted.append(name)
    return wanted, skipped


def training_of(name: str, options: TrainOptions, epochs: int | None = None) -> TrainOptions:
    """Return the training of one stream, without the settings of the other streams and of the decision."""
    other = tuple(f"streams.{each}." for each in streams.names() if each != name)
    own = [
        word
        for word in options.assignments
        if not word.startswith((*other, "fusion.", "detector."))
    ]
    if epochs is not None:
        own += [f"streams.{name}.{phase}.epochs={epochs}" for phase in PHASES]
    return replace(options, assignments=tuple(own))
