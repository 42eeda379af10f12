"""Training of one stream on the labelled videos of a run; the other streams are not touched."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tristream import streams
from tristream.curves import Curves
from tristream.errors import TristreamError, UsageError
from tristream.examples import read_examples, training_classes
from tristream.files import write_json
from tristream.pretrained import SEED, Pretrained, places, random_sentence
from tristream.progress import SILENT, Advance
from tristream.settings import Settings
from tristream.settings import load as load_settings
from tristream.videos import contents, note_links
from tristream.workspace import Workspace, check_names

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.streams.backend import Precision
    from tristream.streams.model import StreamModel, TrainedStream
    from tristream.streams.parallel import Ranks
    from tristream.streams.training import Example

PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class TrainOptions:
    """Choices of one training.

    Attributes:
        preset: name of a shipped preset: light, standard, paper, workshop.
        config: TOML file over the preset.
        assignments: "section.key=value" over both.
        seed: random seed.
        precision: of the training: "float32" or "bf16" (weights and losses stay float32).
        random_weights: seed of random in place of pretrained weights.
        force: train again although nothing has changed.
    """

    preset: str = "light"
    config: Path | None = None
    assignments: Sequence[str] = ()
    seed: int = 0
    precision: str = "float32"
    random_weights: int | None = None
    force: bool = False


@dataclass(frozen=True)
class TrainResult:
    """Result of a call of `train_stream`.

    Attributes:
        stream: name.
        trained: False if nothing had changed, or there was nothing to learn.
        space_id: of the stream's embeddings; None without a trained stream.
        facts: lineage of the training, or the reason why there was none.
        n_rejected: videos that could not be used.
        rank: of this process among those that train together; only rank 0 reports.
    """

    stream: str
    trained: bool
    space_id: str | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    n_rejected: int = 0
    rank: int = 0

    def to_json(self) -> dict[str, Any]:
        space = {} if self.space_id is None else {"space_id": self.space_id}
        return {"stream": self.stream, **space, "trained": self.trained, **self.facts}


def train_stream(
    workspace: Workspace,
    name: str,
    options: TrainOptions | None = None,
    *,
    data: Path | None = None,
) -> TrainResult:
    """Train one stream: first its encoder, then its aggregator, each on the training split.

    The epoch of the lowest validation loss is stored. An interrupted training resumes where it
    stopped and ends with the same weights.

    Args:
        workspace: of the run.
        name: of the stream.
        options: settings, seed, precision.
        data: folder the paths of videos are relative to; None: the one that was indexed.

    Raises:
        UsageError: an unknown stream, setting or device; a split without labels; missing weights.
        TrainingDiverged: the loss is not finite.
    """
    options = options or TrainOptions()
    check_names([name])
    if options.precision not in PRECISIONS:
        raise UsageError(
            f"--precision {options.precision} is unknown; available: {', '.join(PRECISIONS)}"
        )
    workspace.check_writable()
    manifest = workspace.manifest(data)
    note_links(workspace, manifest.root)
    rows = [row for row in manifest.rows if row.split in ("train", "val") and row.label]
    classes = training_classes(name, rows)
    pretrained = Pretrained(
        where=places(workspace.weights_dir, workspace.cache_dir),
        random_weights=options.random_weights,
        precomputed_flow=workspace.reading.flow_from is not None,
        progress=workspace.progress,
    )
    settings = load_settings(
        options.preset,
        options.config,
        options.assignments,
        stream_names=[name],
        pretrained=pretrained,
    )
    reading = replace(workspace.reading, root=manifest.root, limits=settings.limits.to_limits())
    workspace = replace(workspace, reading=reading)
    return _Training(workspace, name, rows, classes, settings, options).run()


def take_stream(workspace: Workspace, name: str, source: Workspace) -> TrainResult:
    """Copy a trained stream from another run, with its lineage.

    Raises:
        UsageError: an unknown stream, or one that the other run has not trained.
    """
    check_names([name])
    workspace.check_writable()
    [trained] = source.load_streams([name])
    workspace.stream_dir(name).mkdir(parents=True, exist_ok=True)
    for file in ("checkpoint.safetensors", "config.json"):
        shutil.copyfile(source.stream_dir(name) / file, workspace.stream_dir(name) / file)
    origin = {"run": str(source.folder), "space_id": trained.space_id}
    write_json(workspace.stream_dir(name) / "origin.json", origin)
    workspace.progress.note(f"{name}: taken from {source.folder}")
    return TrainResult(name, False, trained.space_id, {"from": str(source.folder)})


class _Training:
    """One training of one stream."""

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        rows: Sequence[VideoRow],
        classes: list[str],
        settings: Settings,
        options: TrainOptions,
    ) -> None:
        from tristream.streams import compute, parallel

        self.ranks: Ranks
        self.ranks, self.device = parallel.join(workspace.compute.torch_device())
        if self.ranks.index > 0:  # one process reports
            workspace = replace(workspace, progress=SILENT)
        self.workspace, self.progress = workspace, workspace.progress
        self.backend = compute.choose(
            workspace.compute.backend, device=self.device, cache=workspace.cache()
        )
        self.config = settings.streams[name]
        self.stream = streams.load(name, self.config, settings.sampler)
        self.rows, self.classes = rows, classes
        self.settings, self.options = settings, options
        self.folder = workspace.stream_dir(name)

    def run(self) -> TrainResult:
        started, name = time.monotonic(), self.stream.name
        content = contents(self.rows, self.workspace.reading)
        labelled = [[content[row.video_id], row.label, row.split] for row in self.rows]
        trained_on = self._identity(labelled)
        if (old := self._unchanged(trained_on)) is not None:
            return TrainResult(name, False, old.space_id)
        self._note_preset()
        self._check_encoder()
        examples = read_examples(
            self.workspace, self._untrained(), self.rows, content, backend=self.backend
        )
        train, val = examples.train, examples.val
        if not train or not val:
            return self._nothing_to_learn("val" if train else "training")
        present = {example.label for example in train}
        if missing := [label for k, label in enumerate(self.classes) if k not in present]:
            self.progress.warn(
                f"no training video of class '{missing[0]}' has this stream; "
                "it cannot be learned by it"
            )
        model = self._learn(train, val, trained_on)
        if self.ranks.index > 0:
            self.ranks.wait()
            return TrainResult(name, True, rank=self.ranks.index)
        lineage = self._lineage(trained_on, labelled, len(train), len(val))
        lineage["seconds"] = round(time.monotonic() - started, 1)
        space_id = self._save(model, lineage)
        self.ranks.wait()
        self.progress.note(
            f"{name}: trained in {time.monotonic() - started:.0f} s, wrote {self.folder}"
        )
        return TrainResult(name, True, space_id, lineage, examples.n_rejected)

    def _identity(self, labelled: list[list[str]]) -> str:
        """Digest of everything that decides the weights: settings, videos, labels and seed."""
        from tristream.store.lineage import digest

        described = self.settings.to_json()
        precision = self.options.precision
        also = [] if precision == "float32" else [precision]
        flow_from = str(self.workspace.reading.flow_from)
        parts = [described[key] for key in ("data", "sampler", "streams")]
        return digest([*parts, labelled, self.options.seed, flow_from, *also])

    def _unchanged(self, trained_on: str) -> TrainedStream | None:
        """Return the stored stream if it was trained on the same videos with the same settings."""
        from tristream.streams import model

        if not (self.folder / "config.json").exists() or self.options.force:
            return None
        try:
            old = model.load(self.folder)
        except TristreamError as error:
            self.progress.warn(f"{error}")
            return None
        name = self.stream.name
        if old.lineage.get("trained_on") == trained_on:
            self.progress.note(
                f"{name} is trained already, on these videos and settings; nothing to do"
            )
            return old
        self.progress.note(f"videos or settings of {name} have changed: training it again")
        return None

    def _note_preset(self) -> None:
        if self.settings.source == "preset light":
            self.progress.note(
                "preset light: small encoders, trained from scratch on your videos, no download. "
                "Encoders pretrained on large sets usually do better on small ones: "
                "--preset standard, or streams.spatial.encoder and encoder_weights, any CNN of "
                "timm (tristream weights list)."
            )

    def _seed_of_random_weights(self) -> int | None:
        """Seed of random weights of the encoder, or of the flow that reaches the stream, if any."""
        seeds = [getattr(self.config, SEED, None)]
        if self.stream.needs_pictures:
            seeds.append(self.settings.sampler.weights_seed)
        return next((seed for seed in seeds if seed is not None), None)

    def _check_encoder(self) -> None:
        """Build the encoder before any video is read, and report its weights.

        Raises:
            TristreamError: an unknown network, weights that do not fit, blocks it does not have.
        """
        name = self.stream.name
        self.stream.build_encoder(len(self.classes))
        if (seed := self._seed_of_random_weights()) is not None:
            self.progress.warn(f"{name}: {random_sentence(seed)}")
        for field, facts in self.settings.weights.get(name, {}).items():
            weights = facts.get("name") or getattr(self.config, field)
            licence = facts.get("licence", "not known")
            self.progress.note(f"{name}: weights {weights}, licence {licence}")

    def _untrained(self) -> TrainedStream:
        """Stream with the encoder it starts from; its segment embeddings are cached for `embed`."""
        from tristream.streams import model, training

        n_classes, seed = len(self.classes), self.options.seed
        network = training.new_model(self.stream, n_classes, seed=seed).eval()
        return model.TrainedStream(
            stream=self.stream,
            data=self.settings.data,
            classes=tuple(self.classes),
            model=network,
            checksums=model.Checksums.of_encoder(network),
            lineage={},
        )

    def _nothing_to_learn(self, split: str) -> TrainResult:
        name = self.stream.name
        self.progress.warn(
            f"no {split} video has the stream '{name}': there is nothing to learn from. The other "
            "streams work without it; it stays masked for every video"
        )
        return TrainResult(name, False, None, {"reason": f"absent from every {split} video"})

    def _learn(self, train: list[Example], val: list[Example], trained_on: str) -> StreamModel:
        from tristream.streams import training
        from tristream.streams.training_loop import State

        name, config = self.stream.name, self.config
        totals = {
            "encoder": config.encoder_training.epochs,
            "end_to_end": config.encoder_training.epochs,
            "aggregator": config.aggregator_training.epochs,
        }
        current, move = "", None
        with (
            Curves(self.folder, is_writing=self.ranks.index == 0) as curves,
            contextlib.ExitStack() as bars,
        ):

            def on_epoch(phase: str, metrics: dict[str, float]) -> None:
                nonlocal current, move
                if phase != current:
                    bars.close()
                    current, kind = phase, phase.removeprefix(f"{name}-")
                    bar = self.progress.bar(f"{name}: {kind}, epochs", totals[kind])
                    move = bars.enter_context(bar)
                curves.add(phase, metrics)
                assert move is not None
                _show_epoch(move, metrics)

            return training.train(
                self.stream,
                training.Examples(train, val, len(self.classes)),
                seed=self.options.seed,
                backend=self.backend,
                precision=cast("Precision", self.options.precision),
                ranks=self.ranks,
                state=State(self.folder, trained_on),
                on_epoch=on_epoch,
            )

    def _lineage(
        self, trained_on: str, labelled: list[list[str]], n_train: int, n_val: int
    ) -> dict[str, Any]:
        from tristream.store.lineage import digest

        flow_from = self.workspace.reading.flow_from
        return {
            "trained_on": trained_on,
            "training_precision": self.options.precision,
            "videos": digest(labelled),
            "seed": self.options.seed,
            "n_train": n_train,
            "n_val": n_val,
            "settings": self.settings.to_json(),
            "weights": self.settings.weights.get(self.stream.name, {}),
            "random_weights": self._seed_of_random_weights(),
            "flow_from": str(flow_from) if flow_from and self.stream.needs_pictures else None,
        }

    def _save(self, learned: StreamModel, lineage: dict[str, Any]) -> str:
        """Write the checkpoint, remove the states of the training, return the space_id."""
        from tristream.streams import model

        trained = model.TrainedStream(
            stream=self.stream,
            data=self.settings.data,
            classes=tuple(self.classes),
            model=learned,
            checksums=model.Checksums.of(learned),
            lineage=lineage,
        )
        model.save(self.folder, trained)
        for state in self.folder.glob("state-*"):
            state.unlink()
        return trained.space_id


def _show_epoch(move: Advance, metrics: Mapping[str, float]) -> None:
    move(
        note=f"loss {metrics['loss']:.3f}  val loss {metrics['val_loss']:.3f}  "
        f"val accuracy {metrics['val_accuracy']:.3f}"
    )
