from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tristream import streams
from tristream.store.cache import Cache
from tristream.streams import model, training
from tristream.streams.config import SamplerConfig
from tristream.streams.encoding import encode
from tristream.streams.torch_backend import TorchBackend
from tristream.streams.training_loop import State, run_phase

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TORCH = TorchBackend(DEVICE)
HOME = Path(__file__).parents[1]
EVERY_STREAM = pytest.mark.parametrize("name", streams.names())
N_CLASSES = 2


class Interrupted(Exception):
    """Simulated kill."""


def bound(name, config):
    return streams.load(name, config, SamplerConfig(n_samples=12, n_segments=6, max_side_px=64))


@pytest.fixture
def examples_of(make_videos, toy_video, workshop_settings, tmp_path):
    """(name) → training and validation examples of two classes."""

    def make(name):
        stream = bound(name, workshop_settings.streams[name])
        files = {f"v{index}.mp4": toy_video(32 + 4 * index, seed=index) for index in range(6)}
        videos, _ = make_videos(files, Cache(tmp_path / "cache"))
        made = [
            training.Example(video.video_id, stream.footage(video), index % N_CLASSES)
            for index, video in enumerate(videos)
        ]
        return training.Examples(made[:4], made[4:], N_CLASSES)

    return make


def short(config, mode, epochs=3):
    """Return the configuration with few epochs and everything random switched on."""
    encoder = config.encoder_training.model_copy(
        update={"epochs": epochs, "mode": mode, "batch_size": 8}
    )
    aggregator = config.aggregator_training.model_copy(
        update={"epochs": epochs, "n_views": 2, "batch_size": 4}
    )
    parts = config.aggregator.model_copy(update={"hidden_dim": 5})
    return config.model_copy(
        update={"encoder_training": encoder, "aggregator_training": aggregator, "aggregator": parts}
    )


def train(name, config, examples, *, seed=0, **options):
    return training.train(bound(name, config), examples, seed=seed, backend=TORCH, **options)


@EVERY_STREAM
@pytest.mark.parametrize("mode", ["segments", "end_to_end", "frozen"])
def test_a_stream_killed_in_any_phase_ends_in_the_same_weights(
    name, mode, examples_of, workshop_settings, tmp_path
):
    examples, config = examples_of(name), short(workshop_settings.streams[name], mode)
    heard: list[tuple[str, int]] = []
    undisturbed = train(
        name,
        config,
        examples,
        on_epoch=lambda phase, metrics: heard.append((phase, metrics["epoch"])),
    )
    n_phases = {"segments": 2, "end_to_end": 1, "frozen": 1}[mode]
    assert len({phase for phase, _ in heard}) == n_phases
    assert len(heard) == 3 * n_phases
    for moment in [heard[1], heard[-1]]:

        def stop(phase, metrics, moment=moment):
            if (phase, metrics["epoch"]) == moment:
                raise Interrupted

        torch.manual_seed(77)  # whatever the process drew before must not matter
        with pytest.raises(Interrupted):
            train(
                name, config, examples, state=State(tmp_path / "run", save_seconds=0), on_epoch=stop
            )
        states = [json.loads(file.read_text()) for file in (tmp_path / "run").glob("state-*.json")]
        assert any(state["progress"]["epoch"] for state in states)
    again: list[tuple[str, int]] = []
    resumed = train(
        name, config, examples, state=State(tmp_path / "run", save_seconds=0),
        on_epoch=lambda phase, metrics: again.append((phase, metrics["epoch"])),
    )  # fmt: skip
    assert model.weights_sha256(resumed) == model.weights_sha256(undisturbed)
    assert again == heard, "a resumed run tells the whole story"


@EVERY_STREAM
def test_another_seed_gives_other_weights_and_the_same_seed_the_same(
    name, examples_of, workshop_settings
):
    examples, config = (
        examples_of(name),
        short(workshop_settings.streams[name], "segments", epochs=1),
    )
    first, again, other = (
        model.weights_sha256(train(name, config, examples, seed=seed)) for seed in (0, 0, 1)
    )
    assert first == again != other


@EVERY_STREAM
def test_segment_embeddings_in_place_of_footage_give_the_same_weights(
    name, examples_of, workshop_settings
):
    """Stored segment embeddings of a finished encoder replace the video."""
    examples, config = examples_of(name), short(workshop_settings.streams[name], "frozen")
    config = config.model_copy(
        update={"aggregator_training": config.aggregator_training.model_copy(update={"n_views": 1})}
    )
    stream = bound(name, config)
    encoder = training.new_model(stream, N_CLASSES, seed=0).encoder

    def encoded(example):
        segments = stream.cut(example.footage)
        embedding = encode(encoder, segments, batch_size=config.encode_batch_size, backend=TORCH)
        return training.Example(example.video_id, None, example.label, embedding)

    embedded = training.Examples(
        [encoded(example) for example in examples.train],
        [encoded(example) for example in examples.val],
        N_CLASSES,
    )
    with_footage, without = train(name, config, examples), train(name, config, embedded)
    for key, tensor in with_footage.state_dict().items():
        torch.testing.assert_close(without.state_dict()[key], tensor, rtol=1e-4, atol=1e-5)


@EVERY_STREAM
def test_the_aggregator_phase_leaves_the_encoder_alone(name, examples_of, workshop_settings):
    examples, config = examples_of(name), short(workshop_settings.streams[name], "frozen")
    torch.manual_seed(3)
    network = model.build_model(bound(name, config), N_CLASSES)
    before, aggregator = (
        model.weights_sha256(network.encoder),
        model.weights_sha256(network.aggregator),
    )
    run_phase(training.aggregator_phase(bound(name, config), network, examples, seed=0, backend=TORCH),
              seed=0, device=DEVICE)  # fmt: skip
    assert model.weights_sha256(network.encoder) == before
    assert model.weights_sha256(network.aggregator) != aggregator


@EVERY_STREAM
def test_the_encoder_phase_leaves_the_aggregator_alone(name, examples_of, workshop_settings):
    examples, config = (
        examples_of(name),
        short(workshop_settings.streams[name], "segments", epochs=1),
    )
    network = model.build_model(bound(name, config), N_CLASSES)
    before, encoder = (
        model.weights_sha256(network.aggregator),
        model.weights_sha256(network.encoder),
    )
    run_phase(
        training.encoder_phase(bound(name, config), network, examples),
        seed=0,
        device=DEVICE,
    )
    assert model.weights_sha256(network.aggregator) == before
    assert model.weights_sha256(network.encoder) != encoder


@EVERY_STREAM
def test_the_end_to_end_phase_trains_both(name, examples_of, workshop_settings):
    examples, config = (
        examples_of(name),
        short(workshop_settings.streams[name], "end_to_end", epochs=1),
    )
    network = model.build_model(bound(name, config), N_CLASSES)
    phase = training.end_to_end_phase(bound(name, config), network, examples)
    batch = next(iter(phase.train_batches(np.random.default_rng(0))))
    loss, _ = phase.objective(batch.inputs, batch.labels, 0.0)
    loss.backward()
    for part in (network.encoder, network.aggregator, network.classifier):
        assert any(
            weight.grad is not None and weight.grad.abs().max() > 0 for weight in part.parameters()
        )


@EVERY_STREAM
def test_validation_batches_are_the_same_every_time_and_hold_every_video(
    name, examples_of, workshop_settings
):
    examples, config = examples_of(name), short(workshop_settings.streams[name], "segments")
    network = model.build_model(bound(name, config), N_CLASSES)
    for make in (training.encoder_phase, training.end_to_end_phase):
        phase = make(bound(name, config), network, examples)
        first, again = list(phase.val_batches()), list(phase.val_batches())
        assert {video_id for batch in first for video_id in batch.video_ids} == {"v4.mp4", "v5.mp4"}
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one.inputs[0], other.inputs[0])
            assert one.labels.tolist() == [int(video_id[1]) % 2 for video_id in one.video_ids]


@EVERY_STREAM
def test_an_epoch_of_the_encoder_has_the_configured_number_of_segments_per_video(
    name, examples_of, workshop_settings
):
    examples, config = examples_of(name), short(workshop_settings.streams[name], "segments")
    network = model.build_model(bound(name, config), N_CLASSES)
    phase = training.encoder_phase(bound(name, config), network, examples)
    batches = list(phase.train_batches(np.random.default_rng(0)))
    seen = [video_id for batch in batches for video_id in batch.video_ids]
    assert len(batches) == phase.n_batches
    assert {seen.count(example.video_id) for example in examples.train} == {
        config.encoder_training.segments_per_video
    }
    for batch in batches:
        assert batch.labels.tolist() == [int(video_id[1]) % 2 for video_id in batch.video_ids]


def test_one_class_cannot_be_learned(examples_of, workshop_settings):
    name = streams.names()[0]
    one_class = dataclasses.replace(examples_of(name), n_classes=1)
    with pytest.raises(ValueError, match=r"have 1 class; .* \(--from RUN\)"):
        train(name, workshop_settings.streams[name], one_class)


def test_the_signature_of_a_training_changes_with_its_videos_labels_and_settings(
    examples_of, workshop_settings
):
    name = streams.names()[0]
    stream, examples = bound(name, workshop_settings.streams[name]), examples_of(name)
    first = examples.train[0]
    other_label = training.Example(first.video_id, first.footage, 1 - first.label)
    other = bound(name, short(stream.config, "segments"))
    changed = [
        {"train": examples.train[1:]},
        {"val": examples.val[1:]},
        {"train": [other_label, *examples.train[1:]]},
    ]
    signature = training.training_signature(stream, examples)
    signatures = [
        signature,
        *(
            training.training_signature(stream, dataclasses.replace(examples, **change))
            for change in changed
        ),
        training.training_signature(other, examples),
    ]
    assert len(set(signatures)) == len(signatures)
    again = training.Examples(list(examples.train), list(examples.val), N_CLASSES)
    assert training.training_signature(stream, again) == signature


# The front door, with states saved after every epoch instead of every 10 s.
SAVING = """
import sys
from tristream.streams import training_loop
training_loop.State.__init__.__defaults__ = ("", 0.0)
import orchestrate
orchestrate.main()
"""


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory):
    """Two classes of real files, 3 + 1 + 1 each."""
    from tristream.media.encode import write_video
    from tristream.workshop.clips import FPS, Recipe, make_clip

    folder, rows = tmp_path_factory.mktemp("tiny"), ["path,label,split"]
    for label, recipe in (
        ("drift", Recipe(motions=("drift",))),
        ("spin", Recipe(motions=("spin",))),
    ):
        (folder / label).mkdir()
        for index, split in enumerate(["train", "train", "train", "val", "test"]):
            clip = make_clip(recipe, f"{label}{index}")
            write_video(folder / label / f"{index}.mp4", clip.frames, fps=FPS, samples=clip.samples)
            rows.append(f"{label}/{index}.mp4,{label},{split}")
    (folder / "videos.csv").write_text("\n".join(rows) + "\n")
    return folder


def tristream(
    *arguments: str | Path, start: str = "import orchestrate; orchestrate.main()"
) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", start, *map(str, arguments)], cwd=HOME, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said


def kill_at(process: subprocess.Popen[str], state: Path, epoch: int) -> None:
    """Send SIGKILL once the state holds this epoch, before the process has ended."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if state.exists() and json.loads(state.read_text())["progress"]["epoch"] >= epoch:
            break
        time.sleep(0.002)
    process.kill()
    said, _ = process.communicate()
    assert process.returncode == -9, said


@pytest.mark.slow
def test_train_stream_killed_in_each_phase_ends_in_the_weights_of_an_undisturbed_run(
    tiny_set, tmp_path
):
    name = streams.names()[-1]  # the others are killed in this process, above
    finish(
        tristream("index", "--data", tiny_set, "--run", tmp_path / "undisturbed", "--workers", "1")
    )
    shutil.copytree(tmp_path / "undisturbed", tmp_path / "disturbed")

    def command(run: str) -> list[str | Path]:
        settings = {
            "encoder_training.epochs": 8,
            "encoder_training.mode": "segments",
            "encoder_training.batch_size": 4,
            "aggregator_training.epochs": 30,
            "aggregator.hidden_dim": 8,
        }
        chosen = [f"--set=streams.{name}.{key}={value}" for key, value in settings.items()]
        return ["train-stream", name, "--data", tiny_set, "--run", tmp_path / run, "--cache", tmp_path / "cache",
                "--preset", "workshop", "--device", "cpu", "--deterministic", "--workers", "1", *chosen]  # fmt: skip

    finish(tristream(*command("undisturbed")))
    folder = tmp_path / "disturbed" / "streams" / name
    kill_at(
        tristream(*command("disturbed"), start=SAVING), folder / f"state-{name}-encoder.json", 2
    )
    assert not (folder / "config.json").exists()
    kill_at(
        tristream(*command("disturbed"), start=SAVING), folder / f"state-{name}-aggregator.json", 2
    )
    assert not (folder / "config.json").exists()
    finish(tristream(*command("disturbed")))
    stored = [json.loads((tmp_path / run / "streams" / name / "config.json").read_text())
              for run in ("disturbed", "undisturbed")]  # fmt: skip
    assert stored[0]["model_sha256"] == stored[1]["model_sha256"]
    assert stored[0]["space_id"] == stored[1]["space_id"]
    first, second = (
        [
            json.loads(line)
            for line in (tmp_path / run / "streams" / name / "metrics.jsonl")
            .read_text()
            .splitlines()
        ]
        for run in ("disturbed", "undisturbed")
    )
    assert first == second
    kept = [
        "checkpoint.safetensors",
        "config.json",
        "events.out.tfevents.tristream",
        "metrics.jsonl",
    ]
    assert sorted(file.name for file in folder.iterdir()) == kept
