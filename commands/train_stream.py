"""tristream train-stream: one stream learns, and nothing else does."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tristream import streams
from tristream.commands import options, pretrained, screen, settings
from tristream.commands.curves import Curves
from tristream.commands.workspace import (
    Workspace,
    choose_device,
    contents,
    decode_pool,
    decoder,
    make_video,
    say_links,
    write_json,
)
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.dataset.manifest import Manifest, VideoRow
    from tristream.store.weights.library import Places
    from tristream.streams.model import TrainedStream
    from tristream.streams.stream import Stream
    from tristream.streams.training import Example
    from tristream.streams.video import Video


@screen.command
def run(
    name: Annotated[
        str, typer.Argument(metavar="STREAM", help=f"One of: {', '.join(streams.names())}.")
    ],
    data: options.Data = None,
    run: options.Run = options.RUN,
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="RUN", help="Take the trained stream of another run instead."
        ),
    ] = None,
    flow_from: options.FlowFrom = None,
    no_flow_cache: options.NoFlowCache = False,
    follow_links: options.FollowLinks = False,
    cache: options.CacheDir = options.CACHE,
    preset: options.Preset = "light",
    config: options.ConfigFile = None,
    assignments: options.Set = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    backend: options.Backend = "auto",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="Of the training: float32, or bf16 (weights and losses stay float32).",
        ),
    ] = "float32",
    workers: options.Workers = options.WORKERS,
    weights_dir: options.WeightsDir = None,
    random_weights: options.RandomWeights = None,
    deterministic: options.Deterministic = False,
    as_json: options.Json = False,
    force: options.Force = False,
) -> int:
    """Train one stream, and nothing else: first its CNN, then its stacked BiGRU, each on the training split.

    The epoch of the lowest validation loss is kept. A run that is killed goes on where it was when it is started again,
    and ends with the same weights. A stream that is trained already is left alone (--force: train anew).
    """
    if name not in streams.names():
        raise UsageError(f"unknown stream '{name}'; available: {', '.join(streams.names())}")
    if precision not in ("float32", "bf16"):
        raise UsageError(f"--precision {precision} is unknown; available: float32, bf16")
    workspace = Workspace(run, cache, keeps_flow=not no_flow_cache)
    workspace.check_writable()
    if from_run is not None:
        return _take(name, Workspace(from_run, cache), workspace, as_json)
    manifest = workspace.manifest(data)
    say_links(manifest.root, follow_links)
    rows = [row for row in manifest.rows if row.split in ("train", "val") and row.label]
    classes = _classes(name, rows)
    where = pretrained.places(weights_dir, cache)
    chosen = settings.load(
        preset, config, assignments or (), stream_names=[name], where=where, random_weights=random_weights,
        precomputed_flow=flow_from is not None,
    )  # fmt: skip
    return _Training(name, workspace, manifest, rows, classes, chosen, seed=seed, device=device, backend=backend,
                     precision=precision, workers=workers, deterministic=deterministic, as_json=as_json, force=force,
                     flow_from=flow_from, follow_links=follow_links, where=where).run()  # fmt: skip


def _classes(name: str, rows: Sequence[VideoRow]) -> list[str]:
    """Sorted labels of the training split.

    Raises:
        UsageError: nothing to learn, or nothing to choose the best epoch by.
    """
    classes = sorted({row.label for row in rows if row.split == "train"})
    if len(classes) < 2:
        what = f"one class only ('{classes[0]}')" if classes else "no labelled video"
        raise UsageError(
            f"the training split has {what}; a classifier needs two. Take a trained stream from another run: "
            f"tristream train-stream {name} --from RUN"
        )
    if not any(row.split == "val" for row in rows):
        raise UsageError(
            "no labelled video is in the val split; the best epoch is chosen by it. Run tristream index"
        )
    unknown = sorted({row.label for row in rows if row.split == "val"} - set(classes))
    if unknown:
        raise UsageError(
            f"class '{unknown[0]}' is in the val split only; put some of its videos into train"
        )
    return classes


class _Training:
    """Everything one call needs, in one place."""

    def __init__(
        self, name: str, workspace: Workspace, manifest: Manifest, rows: Sequence[VideoRow], classes: list[str],
        chosen: settings.Settings, *, seed: int, device: str, backend: str, precision: str, workers: int,
        deterministic: bool, as_json: bool, force: bool, flow_from: Path | None, follow_links: bool, where: Places,
    ) -> None:  # fmt: skip
        from tristream.streams import compute, parallel

        self.config: Any = chosen.streams[name]
        self.stream: Stream = streams.load(name, self.config, chosen.sampler)
        self.workspace, self.manifest, self.rows, self.classes, self.chosen = (
            workspace,
            manifest,
            rows,
            classes,
            chosen,
        )
        self.seed, self.workers, self.as_json, self.force = seed, workers, as_json, force
        self.precision: Any = precision
        self.ranks, self.device = parallel.join(choose_device(device, deterministic=deterministic))
        screen.people.quiet = self.ranks.index > 0  # one of them speaks
        self.backend = compute.choose(backend, device=self.device, cache=workspace.cache())
        self.folder = workspace.stream_dir(name)
        self.flow_from, self.follow_links, self.where = flow_from, follow_links, where

    def run(self) -> int:
        from tristream.store.lineage import digest
        from tristream.streams import model

        started = time.monotonic()
        content = contents(self.rows, self.manifest.root, follow_links=self.follow_links)
        labelled = [[content[row.video_id], row.label, row.split] for row in self.rows]
        described = self.chosen.to_json()
        also = [] if self.precision == "float32" else [self.precision]
        trained_on = digest([described["data"], described["sampler"], described["streams"], labelled, self.seed,
                             str(self.flow_from), *also])  # fmt: skip
        if (self.folder / "config.json").exists() and not self.force:
            try:
                old = model.load(self.folder)
            except ValueError as error:
                screen.warn(f"{error}")
            else:
                if old.lineage.get("trained_on") == trained_on:
                    screen.note(
                        f"{self.stream.name} is trained already, on these videos and settings; nothing to do"
                    )
                    screen.emit({"stream": self.stream.name, "space_id": old.space_id, "trained": False},
                                as_json=self.as_json)  # fmt: skip
                    return screen.OK
                screen.note(f"videos or settings of {self.stream.name} have changed: training anew")
        _say_light(self.chosen.source)
        weights = self.chosen.weights.get(self.stream.name, {})
        self._check_encoder(weights)
        train_examples, val_examples, n_rejected = self._examples(content)
        if not train_examples or not val_examples:
            return self._nothing_to_learn(bool(train_examples))
        present = {example.label for example in train_examples}
        without = [label for index, label in enumerate(self.classes) if index not in present]
        if without:
            screen.warn(
                f"no training video of class '{without[0]}' has this stream; it cannot be learned by it"
            )
        learned = self._learn(train_examples, val_examples, trained_on)
        if self.ranks.index > 0:
            self.ranks.wait()
            return screen.OK
        lineage = {
            "trained_on": trained_on,
            "training_precision": self.precision,
            "videos": digest(labelled),
            "seed": self.seed,
            "n_train": len(train_examples),
            "n_val": len(val_examples),
            "settings": described,
            "weights": weights,
            "random_weights": self._seed_of_random_weights(),
            "flow_from": str(self.flow_from)
            if self.flow_from and self.stream.needs_pictures
            else None,
            "seconds": round(time.monotonic() - started, 1),
        }
        trained = model.TrainedStream(
            stream=self.stream,
            data=self.chosen.data,
            classes=tuple(self.classes),
            model=learned,
            checksums=model.Checksums.of(learned),
            lineage=lineage,
        )
        model.save(self.folder, trained)
        for state in self.folder.glob("state-*"):
            state.unlink()
        self.ranks.wait()
        screen.note(
            f"{self.stream.name}: trained in {time.monotonic() - started:.0f} s, wrote {self.folder}"
        )
        screen.emit({"stream": self.stream.name, "space_id": trained.space_id, "trained": True, **lineage},
                    as_json=self.as_json)  # fmt: skip
        return screen.SOME_REJECTED if n_rejected else screen.OK

    def _seed_of_random_weights(self) -> int | None:
        """Of the encoder, or of the flow that reaches the stream; None where nothing pretrained was replaced."""
        seeds = [getattr(self.config, pretrained.SEED, None)]
        if self.stream.needs_pictures:
            seeds.append(self.chosen.sampler.weights_seed)
        return next((seed for seed in seeds if seed is not None), None)

    def _check_encoder(self, weights: Mapping[str, Any]) -> None:
        """Finds out before any video is read whether the encoder can be built, and says whose weights it has.

        Raises:
            TristreamError: an unknown network, weights that do not fit it, blocks it does not have.
        """
        self.stream.build_encoder(len(self.classes))
        if (seed := self._seed_of_random_weights()) is not None:
            screen.warn(f"{self.stream.name}: {pretrained.random_sentence(seed)}")
        for field, about in weights.items():
            name = about.get("name") or getattr(self.config, field)
            screen.note(
                f"{self.stream.name}: weights {name}, licence {about.get('licence', 'not known')}"
            )

    def _examples(self, content: dict[str, str]) -> tuple[list[Example], list[Example], int]:
        """What the stream keeps of every training and validation video that has it."""
        from tristream.media.reasons import Rejected
        from tristream.streams.extraction import encode_videos, gather_footage
        from tristream.streams.flow_needs import estimators_for
        from tristream.streams.segments import Absent, Footage
        from tristream.streams.spool import Spool
        from tristream.streams.training import Example

        cache = self.workspace.cache()
        flow = estimators_for([self.stream], where=self.where)
        flow.backend = self.backend
        rows = {row.video_id: row for row in self.rows}
        train_examples: list[Example] = []
        val_examples: list[Example] = []
        absent: list[str] = []
        n_rejected = 0
        limits, title = self.chosen.limits.to_limits(), f"{self.stream.name}: reading"
        with decode_pool(self.workers, limits) as pool, screen.progress(title, len(rows)) as move:
            decode = decoder(pool, self.manifest.root, follow_links=self.follow_links)
            videos: list[Video] = [
                make_video(row, content[row.video_id], decode=decode, cache=cache, data=self.chosen.data,
                           sampler=self.chosen.sampler, stream_names=[self.stream.name], flow_from=self.flow_from,
                           estimators=flow)
                for row in self.rows
            ]  # fmt: skip
            n_threads = self.workers + 1
            found: Iterator[tuple[Video, Any]]
            if self._is_finished():
                found = encode_videos(
                    videos,
                    self._untrained(),
                    cache=cache,
                    backend=self.backend,
                    n_threads=n_threads,
                )
            else:
                found = gather_footage(videos, self.stream, n_threads=n_threads)
            spool = Spool(min_bytes=SPOOL_BYTES)
            for video, kept in found:
                move()
                row = rows[video.video_id]
                label = self.classes.index(row.label)
                if isinstance(kept, Rejected | str):
                    screen.warn(f"rejected: {kept}")
                    n_rejected += 1
                elif isinstance(kept, Absent):
                    absent.append(kept.reason)
                else:
                    if isinstance(kept, Footage):
                        footage = dataclasses.replace(kept, array=spool.keep(kept.array))
                        example = Example(video.video_id, footage, label)
                    else:
                        example = Example(video.video_id, None, label, spool.keep(kept))
                    (train_examples if row.split == "train" else val_examples).append(example)
        for reason in sorted(set(absent)):
            screen.note(
                f"{self.stream.name}: {absent.count(reason)} of {len(rows)} videos are left out ({reason})"
            )
        return train_examples, val_examples, n_rejected

    def _is_finished(self) -> bool:
        """Whether nothing of the encoder is learned, and every video is seen as it is: once through it is enough."""
        return (
            self.config.encoder_training.mode == "frozen"
            and self.config.aggregator_training.n_views == 1
        )

    def _untrained(self) -> TrainedStream:
        """The stream with the encoder it will have in the end; what it makes of a video is cached for `embed` too."""
        from tristream.streams import model, training

        network = training.new_model(self.stream, len(self.classes), seed=self.seed).eval()
        return model.TrainedStream(
            stream=self.stream, data=self.chosen.data, classes=tuple(self.classes), model=network, lineage={},
            checksums=model.Checksums.of_encoder(network),
        )  # fmt: skip

    def _nothing_to_learn(self, has_train: bool) -> int:
        split = "val" if has_train else "training"
        screen.warn(
            f"no {split} video has the stream '{self.stream.name}': there is nothing to learn from. The other streams "
            "work without it; it stays masked for every video"
        )
        screen.emit({"stream": self.stream.name, "trained": False, "reason": f"absent from every {split} video"},
                    as_json=self.as_json)  # fmt: skip
        return screen.OK

    def _learn(
        self, train_examples: list[Example], val_examples: list[Example], trained_on: str
    ) -> Any:
        from tristream.streams import training
        from tristream.streams.training_loop import State

        totals = {"encoder": self.config.encoder_training.epochs, "end_to_end": self.config.encoder_training.epochs,
                  "aggregator": self.config.aggregator_training.epochs}  # fmt: skip
        current, move = "", None
        with (
            Curves(self.folder, is_writing=self.ranks.index == 0) as curves,
            contextlib.ExitStack() as bars,
        ):

            def on_epoch(phase: str, metrics: dict[str, float]) -> None:
                nonlocal current, move
                if phase != current:
                    bars.close()
                    current = phase
                    kind = phase.removeprefix(f"{self.stream.name}-")
                    move = bars.enter_context(
                        screen.progress(f"{self.stream.name}: {kind}, epochs", totals[kind])
                    )
                assert move is not None
                curves.add(phase, metrics)
                move(note=f"loss {metrics['loss']:.3f}  val loss {metrics['val_loss']:.3f}  "
                          f"val accuracy {metrics['val_accuracy']:.3f}")  # fmt: skip

            return training.train(
                self.stream,
                training.Examples(train_examples, val_examples, len(self.classes)),
                seed=self.seed,
                backend=self.backend,
                precision=self.precision,
                ranks=self.ranks,
                state=State(self.folder, trained_on),
                on_epoch=on_epoch,
            )


def _take(name: str, source: Workspace, target: Workspace, as_json: bool) -> int:
    """Copies a trained stream from another run; its lineage comes with it."""
    [trained] = source.load_streams([name])
    target.stream_dir(name).mkdir(parents=True, exist_ok=True)
    for file in ("checkpoint.safetensors", "config.json"):
        shutil.copyfile(source.stream_dir(name) / file, target.stream_dir(name) / file)
    write_json(
        target.stream_dir(name) / "origin.json",
        {"run": str(source.run), "space_id": trained.space_id},
    )
    screen.note(f"{name}: taken from {source.run}")
    screen.emit({"stream": name, "space_id": trained.space_id, "trained": False, "from": str(source.run)},
                as_json=as_json)  # fmt: skip
    return screen.OK


SPOOL_BYTES = 1 << 16  # smaller arrays of all videos of a large set fit into any machine's memory


def _say_light(source: str) -> None:
    if source == "preset light":
        screen.note(
            "preset light: small encoders, trained from scratch on your videos, no download. Encoders pretrained on "
            "large sets usually do better on small ones: --preset standard, or streams.spatial.encoder and "
            "encoder_weights, any CNN of timm (tristream weights list)."
        )
