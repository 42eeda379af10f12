from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from tristream import streams
from tristream.store.cache import Cache
from tristream.store.checkpoint import ArtifactError
from tristream.streams import model
from tristream.streams.config import AggregatorConfig, SamplerConfig

EVERY_STREAM = pytest.mark.parametrize("name", streams.names())


def retrained(trained, seed):
    """Return the same stream after another training."""
    torch.manual_seed(seed)
    network = model.build_model(trained.stream, len(trained.classes)).eval()
    return with_model(trained, network)


def with_model(trained, network):
    return dataclasses.replace(
        trained,
        model=network,
        checksums=model.Checksums.of(network),
    )


@pytest.fixture
def segments_of(make_videos, toy_video, tmp_path):
    """(trained) → segments of two videos, one after the other, and their lengths."""

    def make(trained):
        videos, _ = make_videos(
            {"a": toy_video(60, seed=1), "b": toy_video(40, seed=2)}, Cache(tmp_path / "cache")
        )
        cuts = []
        for video in videos:
            footage = trained.stream.footage(video)
            cuts.append(torch.from_numpy(np.ascontiguousarray(trained.stream.cut(footage).array)))
        return torch.cat(cuts), torch.tensor([len(cut) for cut in cuts])

    return make


@EVERY_STREAM
def test_a_saved_stream_gives_the_same_bits_when_it_is_loaded(
    name, untrained, segments_of, tmp_path
):
    trained = untrained(name, seed=3)
    model.save(tmp_path / name, trained)
    loaded = model.load(tmp_path / name)
    segments, lengths = segments_of(trained)
    with torch.inference_mode():
        for make in (
            lambda network: network.encoder.embed(segments),
            lambda network: network(segments, lengths),
        ):
            assert torch.equal(make(trained.model), make(loaded.model))
    assert model.weights_sha256(loaded.model) == loaded.checksums.model == trained.checksums.model
    assert model.weights_sha256(loaded.model.encoder) == loaded.checksums.encoder
    assert loaded.space_id == trained.space_id
    for field in ("config", "sampler", "data", "classes", "lineage"):
        assert getattr(loaded, field) == getattr(trained, field), field
    assert not loaded.model.training


@EVERY_STREAM
def test_a_trained_batch_norm_is_saved_with_its_statistics(name, untrained, segments_of, tmp_path):
    trained = untrained(name)
    segments, _ = segments_of(trained)
    trained.model.encoder.train()
    trained.model.encoder(segments)
    trained = with_model(trained, trained.model.eval())
    model.save(tmp_path / name, trained)
    with torch.inference_mode():
        first = trained.model.encoder.embed(segments)
        assert torch.equal(first, model.load(tmp_path / name).model.encoder.embed(segments))


def test_a_checkpoint_is_two_files_that_hold_no_code(untrained, tmp_path):
    name = streams.names()[0]
    model.save(tmp_path, untrained(name))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
    ]
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["classes"] == ["a", "b", "c"]
    assert torch.__version__.startswith(stored["versions"]["torch"])


def test_logits_of_whole_videos_do_not_depend_on_their_mates_padding(untrained, segments_of):
    for name in streams.names():
        trained = untrained(name)
        segments, lengths = segments_of(trained)
        with torch.inference_mode():
            together = trained.model(segments, lengths)
            for index, own in enumerate(segments.split(lengths.tolist())):
                alone = trained.model(own, lengths[index : index + 1])[0]
                assert torch.allclose(alone, together[index], rtol=1e-4, atol=1e-6)


def test_retraining_one_stream_changes_the_space_of_that_stream_alone(untrained):
    before = {name: untrained(name) for name in streams.names()}
    for name in streams.names():
        after = {**before, name: retrained(before[name], seed=99)}
        stale = [other for other in before if before[other].space_id != after[other].space_id]
        assert stale == [name]


@EVERY_STREAM
def test_a_space_knows_the_aggregator_and_the_segments_do_not(name, untrained):
    trained = untrained(name)
    network = retrained(trained, seed=5).model
    network.encoder.load_state_dict(trained.model.encoder.state_dict())
    other = with_model(trained, network)
    assert other.space_id != trained.space_id
    assert other.segment_identity() == trained.segment_identity()


@EVERY_STREAM
def test_another_sampler_is_another_space(name, untrained):
    trained = untrained(name)
    for change in (
        {"n_samples": 11},
        {"method": "uniform"},
        {"max_seconds": 12.0},
        {"n_segments": 3},
    ):
        sampler = SamplerConfig.model_validate({**trained.sampler.model_dump(), **change})
        assert trained.rebound(sampler=sampler).space_id != trained.space_id, change


@EVERY_STREAM
def test_another_reading_of_videos_is_another_space(name, untrained):
    trained = untrained(name)
    for change in ({"max_side_px": 48}, {"crop": (0.0, 0.0, 0.5, 0.5)}):
        data = trained.data.model_copy(update=change)
        assert dataclasses.replace(trained, data=data).space_id != trained.space_id, change


@EVERY_STREAM
def test_a_raised_schema_number_is_another_space(name, untrained, monkeypatch):
    trained = untrained(name)
    before = trained.space_id
    with monkeypatch.context() as patch:
        patch.setattr(model, "SCHEMA", model.SCHEMA + 1)
        assert trained.space_id != before
    monkeypatch.setattr(trained.stream, "schema", trained.stream.schema + 1, raising=False)
    assert trained.space_id != before


def test_two_streams_are_never_one_space(untrained):
    spaces = [untrained(name).space_id for name in streams.names()]
    assert len(set(spaces)) == len(spaces)


@EVERY_STREAM
def test_settings_that_cannot_reach_an_embedding_do_not_change_its_space(
    name, untrained, monkeypatch
):
    trained = untrained(name)
    before = trained.space_id
    monkeypatch.setattr(
        "tristream.store.lineage.importlib.metadata.version", lambda library: "99.0"
    )
    monkeypatch.setattr("tristream.store.lineage.platform.python_version", lambda: "9.9")
    assert trained.space_id == before, "another version of a library"
    torch_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(torch_threads + 1)
        assert trained.space_id == before, "another number of threads"
    finally:
        torch.set_num_threads(torch_threads)
    config = trained.config.model_copy(update={"encode_batch_size": 64})
    assert trained.rebound(config=config).space_id == before, "another batch size"
    assert dataclasses.replace(trained, lineage={"host": "other"}).space_id == before
    assert dataclasses.replace(trained, classes=("x", "y", "z")).space_id == before


@EVERY_STREAM
def test_versions_threads_and_batch_size_are_in_the_key_of_cached_segments(
    name, untrained, monkeypatch
):
    from tristream.streams.extraction import key_parts
    from tristream.streams.torch_backend import TorchBackend

    trained, cpu = untrained(name), TorchBackend(torch.device("cpu"))
    before = key_parts(trained, cpu)
    assert before == key_parts(trained, cpu)
    assert before != key_parts(trained, TorchBackend(torch.device("cuda")))
    config = trained.config.model_copy(update={"encode_batch_size": 64})
    assert before != key_parts(trained.rebound(config=config), cpu)
    assert before == key_parts(dataclasses.replace(trained, lineage={"other": 1}), cpu)
    monkeypatch.setattr(
        "tristream.store.lineage.importlib.metadata.version", lambda library: "99.0"
    )
    assert before != key_parts(trained, cpu)


def test_the_folder_of_pretrained_weights_is_not_part_of_a_space(untrained):
    """Two machines keep the same file in different folders."""
    from pathlib import Path

    having = [
        name
        for name in streams.names()
        if "encoder_weights" in streams.stream_class(name).Config.model_fields
    ]
    for name in having:
        trained = untrained(name)
        spaces = {
            trained.rebound(
                config=trained.config.model_copy(
                    update={"encoder_weights": Path(folder) / "w.safetensors"}
                ),
            ).space_id
            for folder in ("/home/a", "/mnt/b")
        }
        assert len(spaces) == 1


@pytest.mark.parametrize("part", ["encoder", "aggregator", "classifier"])
def test_the_checksum_of_weights_covers_every_part_and_every_bit(untrained, part):
    trained = untrained(streams.names()[0])
    before = model.weights_sha256(trained.model)
    name, weight = list(getattr(trained.model, part).named_parameters())[-1]
    with torch.no_grad():
        weight.view(-1)[-1] = torch.nextafter(weight.view(-1)[-1], torch.tensor(9.0))
    assert model.weights_sha256(trained.model) != before, name


def test_a_damaged_checkpoint_is_refused(untrained, tmp_path):
    model.save(tmp_path, untrained(streams.names()[0]))
    file = tmp_path / "checkpoint.safetensors"
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"checkpoint\.safetensors is corrupt"):
        model.load(tmp_path)


def test_a_checkpoint_of_a_stream_that_is_not_installed_is_refused(
    untrained, tmp_path, monkeypatch
):
    name = streams.names()[0]
    model.save(tmp_path, untrained(name))
    monkeypatch.setattr(streams, "names", lambda: ["smell"])
    with pytest.raises(ValueError, match=f"unknown stream '{name}'; available: smell"):
        model.load(tmp_path)


@pytest.mark.parametrize("kind", ["gru", "lstm", "mean", "mean_deviation", "max"])
def test_every_aggregator_of_the_configuration_is_built(
    untrained, workshop_settings, kind, tmp_path
):
    name = streams.names()[0]
    parts = AggregatorConfig(kind=kind, hidden_dim=6, n_layers=1, bidirectional=False)
    config = workshop_settings.streams[name].model_copy(update={"aggregator": parts})
    trained = untrained(name, config=config)
    model.save(tmp_path, trained)
    loaded = model.load(tmp_path)
    rows = torch.randn(2, 5, trained.model.encoder.embedding_dim)
    with torch.inference_mode():
        first, again = (t.model.aggregate(rows, torch.tensor([5, 3])) for t in (trained, loaded))
    assert torch.equal(first, again)
    assert first.shape == (2, trained.model.aggregator.embedding_dim)


def test_padding_is_zeros_at_the_end():
    padded, lengths = model.pad([np.ones((2, 3), np.float32), np.full((1, 3), 2, np.float32)])
    assert lengths.tolist() == [2, 1]
    assert padded.tolist() == [[[1, 1, 1], [1, 1, 1]], [[2, 2, 2], [0, 0, 0]]]
