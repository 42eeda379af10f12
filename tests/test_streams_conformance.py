"""Conformance of every folder of `streams/`; no stream is named here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tristream import streams
from tristream.store.cache import Cache
from tristream.streams.config import SamplerConfig, StreamConfig
from tristream.streams.segments import Absent
from tristream.streams.stream import Stream

HOME = Path(__file__).parents[1]
N_CLASSES = 5
EVERY_STREAM = pytest.mark.parametrize("name", streams.names())


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Files of 2.4 s: one complete, one without audio, one without frames."""
    from tristream.media.encode import write_video
    from tristream.workshop.clips import FPS, Recipe, make_clip

    folder = tmp_path_factory.mktemp("clips")
    clip = make_clip(Recipe(motions=("drift",)), "conformance")
    write_video(folder / "whole.mp4", clip.frames, fps=FPS, samples=clip.samples)
    write_video(folder / "silent.mp4", clip.frames, fps=FPS)
    write_video(folder / "blind.mp4", None, fps=FPS, samples=clip.samples)
    return folder


@pytest.fixture(scope="module")
def video(clips, tmp_path_factory, workshop_settings):
    """(file name) → Video, decoded by a process of its own."""
    from tristream.streams.compute import Compute
    from tristream.streams.reading import Reading
    from tristream.streams.video import Video, View
    from tristream.videos import decode_pool, decoder
    from tristream.workspace import Workspace

    cache = Cache(tmp_path_factory.mktemp("cache"))
    workspace = Workspace(clips, compute=Compute(workers=1), reading=Reading(root=clips))
    with decode_pool(workspace) as pool:
        decode = decoder(pool, workspace.reading)
        yield lambda file: Video(
            file, clips / file, file, decode=decode, cache=cache,
            view=View(workshop_settings.data, workshop_settings.sampler),
        )  # fmt: skip


@pytest.fixture(scope="module")
def footage_of(video, stream_of):
    made = {}

    def footage(name):
        if name not in made:
            made[name] = stream_of(name).footage(video("whole.mp4"))
        return made[name]

    return footage


@pytest.fixture(scope="module")
def stream_of(workshop_settings):
    return lambda name: streams.load(
        name, workshop_settings.streams[name], workshop_settings.sampler
    )


def test_the_streams_are_the_folders_in_order():
    folders = [file.parent.name for file in (HOME / "streams").glob("*/__init__.py")]
    assert streams.names() == sorted(folders) != []


def test_asking_for_the_names_imports_no_stream():
    code = "import sys, streams; streams.names(); print([m for m in sys.modules if m == 'numpy' or 'streams.' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_an_unknown_stream_is_refused_with_the_available_ones():
    with pytest.raises(
        ValueError, match=f"^unknown stream 'smell'; available: {', '.join(streams.names())}$"
    ):
        streams.stream_class("smell")


@EVERY_STREAM
def test_a_stream_offers_what_the_protocol_requires(name):
    kind = streams.stream_class(name)
    assert kind.name == name
    assert streams.stream_class(name) is kind
    assert isinstance(kind.schema, int)
    assert kind.needs_pictures or kind.needs_sound
    config = kind.Config()
    assert isinstance(config, StreamConfig)
    assert kind.Config.model_validate(config.model_dump(mode="json")) == config


@EVERY_STREAM
def test_a_loaded_stream_is_bound_to_its_configuration(name):
    config, sampler = streams.stream_class(name).Config(), SamplerConfig(n_samples=7)
    stream = streams.load(name, config, sampler)
    assert isinstance(stream, Stream)
    assert (stream.config, stream.sampler) == (config, sampler)


@EVERY_STREAM
def test_an_unknown_key_of_its_configuration_is_refused(name):
    with pytest.raises(ValueError, match="no_such_key"):
        streams.stream_class(name).Config.model_validate({"no_such_key": 1})


@EVERY_STREAM
def test_footage_is_one_row_per_step_and_a_plan_inside(name, footage_of):
    footage = footage_of(name)
    n = len(footage.array)
    assert len(footage.start_seconds) == len(footage.stop_seconds) == n
    assert (np.diff(footage.plan) > 0).all()
    assert footage.plan[0] >= 0
    assert footage.plan[-1] < n
    assert footage.reasons == ()


@EVERY_STREAM
def test_segments_are_in_the_order_of_time_inside_the_video(name, footage_of, stream_of):
    footage = footage_of(name)
    segments = stream_of(name).cut(footage)
    assert len(segments) == len(footage.plan)
    assert (np.diff(segments.start_seconds) > 0).all()
    assert (segments.start_seconds < segments.stop_seconds).all()
    assert segments.start_seconds[0] >= 0
    assert segments.stop_seconds[-1] <= 2.4 + 0.05  # AAC pads its last frame


@EVERY_STREAM
@pytest.mark.parametrize("augmented", [False, True])
def test_any_stretch_that_is_read_is_that_stretch_of_the_whole(
    name, footage_of, stream_of, augmented
):
    generator = np.random.default_rng(4) if augmented else None
    segments = stream_of(name).cut(footage_of(name), generator)
    whole = segments.array
    assert len(whole) == len(segments)
    assert np.isfinite(whole.astype(float)).all()
    for first in range(len(segments)):
        for last in range(first + 1, len(segments) + 1):
            assert np.array_equal(segments.read(first, last), whole[first:last])


@EVERY_STREAM
def test_cutting_without_a_generator_is_deterministic_and_leaves_the_footage_alone(
    name, footage_of, stream_of
):
    stream, footage = stream_of(name), footage_of(name)
    before = footage.array.copy()
    first = stream.cut(footage).array.copy()
    _ = stream.cut(footage, np.random.default_rng(0)).array
    stream.training_segments([footage], np.random.default_rng(0))
    assert np.array_equal(first, stream.cut(footage).array)
    assert np.array_equal(before, footage.array)


@EVERY_STREAM
def test_augmentation_follows_from_the_generator_and_changes_something(name, footage_of, stream_of):
    stream, footage = stream_of(name), footage_of(name)
    plain = stream.cut(footage)
    views = [stream.cut(footage, np.random.default_rng(seed)) for seed in (1, 1, 2, 3)]
    assert np.array_equal(views[0].array, views[1].array)
    for view in views:
        assert view.array.shape == plain.array.shape
        assert view.array.dtype == plain.array.dtype
        assert (np.diff(view.start_seconds) >= 0).all()
    assert any(not np.array_equal(view.array, plain.array) for view in views)
    assert any(not np.array_equal(view.array, views[0].array) for view in views[2:])


@EVERY_STREAM
def test_training_segments_are_one_segment_of_each_video(name, footage_of, stream_of):
    stream, footage = stream_of(name), footage_of(name)
    segment = torch.from_numpy(np.ascontiguousarray(stream.cut(footage).read(0, 1)))
    first, again, other = (
        stream.training_segments([footage] * 6, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == (6, *segment.shape[1:])
    assert first.dtype == segment.dtype
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({row.numpy().tobytes() for row in first}) > 1, (
        "the same video is not seen alike six times"
    )


@EVERY_STREAM
def test_the_encoder_takes_segments_and_gives_embeddings_and_logits(name, footage_of, stream_of):
    stream = stream_of(name)
    segments = torch.from_numpy(np.ascontiguousarray(stream.cut(footage_of(name)).array))
    encoder = stream.build_encoder(N_CLASSES).eval()
    with torch.inference_mode():
        embeddings, logits = encoder.embed(segments), encoder(segments)
    assert embeddings.shape == (len(segments), encoder.embedding_dim)
    assert logits.shape == (len(segments), N_CLASSES)
    assert embeddings.dtype == logits.dtype == torch.float32
    assert embeddings.isfinite().all()
    assert embeddings.std(dim=0).max() > 0, "segments must not all look alike"


@EVERY_STREAM
def test_every_weight_of_the_encoder_learns(name, footage_of, stream_of):
    stream = stream_of(name)
    encoder = stream.build_encoder(N_CLASSES).train()
    segments = stream.training_segments([footage_of(name)] * 8, np.random.default_rng(0))
    torch.nn.functional.cross_entropy(encoder(segments), torch.arange(8) % N_CLASSES).backward()
    for key, weight in encoder.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.isfinite().all(), key


@EVERY_STREAM
def test_a_row_depends_neither_on_its_mates_nor_on_its_place_in_the_batch(
    name, footage_of, stream_of
):
    stream = stream_of(name)
    size = stream.config.encode_batch_size
    row = torch.from_numpy(np.ascontiguousarray(stream.cut(footage_of(name)).read(0, 1)))
    mates = stream.training_segments([footage_of(name)] * size, np.random.default_rng(0))
    torch.manual_seed(0)
    from tristream.streams.model import build_model

    encoder = build_model(stream, N_CLASSES).encoder.eval()
    with torch.inference_mode():
        alone = encoder.embed(row.repeat(size, *[1] * (row.ndim - 1)))
        assert (alone == alone[0]).all()
        for place in (0, 1, size // 2, size - 1):
            batch = mates.clone()
            batch[place] = row[0]
            assert torch.equal(encoder.embed(batch)[place], alone[0])


@EVERY_STREAM
def test_a_file_without_the_track_is_absent_for_a_stable_reason(name, video, stream_of):
    stream = stream_of(name)
    for file, is_missing, reason in (
        ("silent.mp4", stream.needs_sound, "no_audio"),
        ("blind.mp4", stream.needs_pictures, "no_video"),
    ):
        if is_missing:
            for _ in range(2):
                with pytest.raises(Absent, match=f"^{reason}$") as caught:
                    stream.footage(video(file))
                assert re.fullmatch("[a-z_]+", caught.value.reason)
        else:
            whole = stream.footage(video("whole.mp4"))
            footage = stream.footage(video(file))
            assert np.array_equal(footage.plan, whole.plan)
            assert np.array_equal(footage.array, whole.array)


@EVERY_STREAM
def test_footage_from_the_cache_is_the_footage_that_was_computed(
    name, video, workshop_settings, stream_of, tmp_path, clips
):
    from tristream.streams.video import Video, View

    stream = stream_of(name)
    decode = video("whole.mp4")._decode
    view = View(workshop_settings.data, workshop_settings.sampler)
    parts = {"decode": decode, "view": view}
    first, again = (
        stream.footage(
            Video("x", clips / "whole.mp4", "x", cache=Cache(tmp_path), **parts),
        )
        for _ in range(2)
    )
    for field in ("array", "start_seconds", "stop_seconds", "plan"):
        assert np.array_equal(getattr(first, field), getattr(again, field)), field


@EVERY_STREAM
def test_a_short_video_has_segments_or_a_reason(name, toy_video, make_videos, stream_of, tmp_path):
    stream = stream_of(name)
    for n_frames in range(1, 30, 3):
        [video], _ = make_videos(
            {"short.mp4": toy_video(n_frames)}, Cache(tmp_path / str(n_frames))
        )
        try:
            footage = stream.footage(video)
        except Absent as absent:
            if "short" not in absent.reason:
                raise
            continue
        segments = stream.cut(footage)
        assert len(segments) >= 1
        assert len(segments.array) == len(segments)
        assert (segments.start_seconds < segments.stop_seconds).all()
        assert stream.training_segments([footage], np.random.default_rng(0)).shape[0] == 1
