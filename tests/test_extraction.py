from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tristream import streams
from tristream.media.reasons import Rejected
from tristream.store.cache import Cache
from tristream.streams.encoding import encode
from tristream.streams.extraction import SegmentEmbeddings, extract, gather_footage, in_order
from tristream.streams.model import pad
from tristream.streams.segments import Absent, Footage
from tristream.streams.torch_backend import TorchBackend

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TORCH = TorchBackend(DEVICE)
LENGTHS = {"a.mp4": 40, "b/c.mp4": 60, "d.mp4": 31, "e.mp4": 75, "f.mp4": 45}


@pytest.fixture(scope="module")
def files(toy_video):
    return {name.replace("/", "_"): toy_video(n, seed=n) for name, n in LENGTHS.items()}


@pytest.fixture(scope="module")
def trained(untrained):
    """Every available stream, with batches that do not end where a video does."""
    made = [untrained(name) for name in streams.names()]
    return [t.rebound(config=t.config.model_copy(update={"encode_batch_size": 8})) for t in made]


def by_name(results):
    return {result.video.video_id: result for result in results}


def assert_same_results(first, second):
    assert first.keys() == second.keys()
    for name in first:
        one, other = first[name], second[name]
        assert one.embeddings.keys() == other.embeddings.keys()
        assert (one.status, one.reasons, one.absent) == (
            other.status,
            other.reasons,
            other.absent,
        ), name
        for stream in one.embeddings:
            assert np.array_equal(one.embeddings[stream], other.embeddings[stream]), (name, stream)
            segments = one.segments[stream], other.segments[stream]
            for field in ("embedding", "start_seconds", "stop_seconds"):
                assert np.array_equal(*(getattr(s, field) for s in segments)), (name, stream, field)


def run(make_videos, files, trained, folder, *, n_threads=1, force=False, **options):
    cache = Cache(folder)
    videos, decoded = make_videos(files, cache, **options)
    results = list(
        extract(videos, trained, cache=cache, backend=TORCH, n_threads=n_threads, force=force)
    )
    assert [result.video.video_id for result in results] == list(files)
    return by_name(results), decoded


@pytest.fixture(scope="module")
def alone(files, trained, tmp_path_factory, workshop_settings):
    """Every video through every stream by hand: its segments encoded by itself, no cache, no threads."""
    from tristream.streams.video import Video, View

    found = {}
    for name, decoded in files.items():
        cache = Cache(tmp_path_factory.mktemp("alone"))
        video = Video(
            name, Path("/data") / name, name, decode=lambda path, decoded=decoded, **_: decoded, cache=cache,
            view=View(workshop_settings.data, workshop_settings.sampler),
        )  # fmt: skip
        for stream in trained:
            footage = stream.stream.footage(video)
            segments = stream.stream.cut(footage)
            rows = encode(
                stream.model.encoder,
                segments,
                batch_size=stream.config.encode_batch_size,
                backend=TORCH,
            )
            with torch.inference_mode():
                sequence, length = pad([rows])
                found[name, stream.name] = (
                    stream.model.to(DEVICE).aggregate(sequence.to(DEVICE), length)[0].cpu().numpy()
                )
    return found


@pytest.mark.parametrize("n_threads", [1, 4])
def test_overlapped_extraction_gives_the_bits_of_one_video_at_a_time(
    make_videos, files, trained, alone, tmp_path, n_threads
):
    results, _ = run(make_videos, files, trained, tmp_path, n_threads=n_threads)
    assert all(result.status == "ok" for result in results.values())
    for (name, stream), expected in alone.items():
        assert np.array_equal(results[name].embeddings[stream], expected), (name, stream)


def test_the_order_of_videos_does_not_change_an_embedding(make_videos, files, trained, tmp_path):
    forward, _ = run(make_videos, files, trained, tmp_path / "1")
    backward, _ = run(
        make_videos, dict(reversed(files.items())), trained, tmp_path / "2", n_threads=3
    )
    assert_same_results(forward, {name: backward[name] for name in forward})


def test_a_second_extraction_decodes_nothing_and_is_equal(make_videos, files, trained, tmp_path):
    first, decoded = run(make_videos, files, trained, tmp_path)
    assert sorted(decoded) == sorted(files)
    never = {name: AssertionError(f"{name} was decoded") for name in files}
    again, decoded = run(make_videos, never, trained, tmp_path)
    assert decoded == []
    assert_same_results(first, again)


def test_force_decodes_again(make_videos, files, trained, tmp_path):
    first, _ = run(make_videos, files, trained, tmp_path)
    again, decoded = run(make_videos, files, trained, tmp_path, force=True)
    assert sorted(decoded) == sorted(files)
    assert_same_results(first, again)


def test_a_video_is_decoded_once_for_all_streams(make_videos, files, trained, tmp_path):
    _, decoded = run(make_videos, files, trained, tmp_path, n_threads=4)
    assert sorted(decoded) == sorted(files)


def test_a_rejected_video_is_named_and_leaves_the_others_untouched(
    make_videos, files, trained, tmp_path
):
    broken = Rejected("truncated_no_index", Path("/data/d.mp4"), "has no index; record it again")
    first, _ = run(make_videos, files, trained, tmp_path / "1", n_threads=2)
    second, _ = run(make_videos, {**files, "d.mp4": broken}, trained, tmp_path / "2", n_threads=2)
    rejected = second.pop("d.mp4")
    assert rejected.status == "rejected"
    assert rejected.rejected_reason == "truncated_no_index"
    assert rejected.rejected == "/data/d.mp4 has no index; record it again"
    assert rejected.embeddings == {}
    del first["d.mp4"]
    assert_same_results(first, second)


def test_a_rejected_video_is_tried_again_when_it_is_whole(make_videos, files, trained, tmp_path):
    broken = Rejected("decoder_timeout", Path("/data/d.mp4"), "takes too long")
    run(make_videos, {**files, "d.mp4": broken}, trained, tmp_path)
    again, decoded = run(make_videos, files, trained, tmp_path)
    assert decoded == ["d.mp4"]
    assert again["d.mp4"].status == "ok"


@pytest.mark.parametrize("missing", ["sound", "pictures"])
def test_a_video_without_a_track_is_masked_and_not_zero(
    make_videos, trained, toy_video, tmp_path, missing
):
    kwargs = {"sound": {"silent": True}, "pictures": {"blind": True}}[missing]
    code = {"sound": "no_audio", "pictures": "no_video"}[missing]
    files = {"whole.mp4": toy_video(50, seed=1), "half.mp4": toy_video(50, seed=1, **kwargs)}
    needs = {
        t.name: (t.stream.needs_sound if missing == "sound" else t.stream.needs_pictures)
        for t in trained
    }
    for _ in range(2):  # computed, then from the cache
        results, _ = run(make_videos, files, trained, tmp_path)
        half = results["half.mp4"]
        assert half.absent == {name: code for name, is_needed in needs.items() if is_needed}
        assert half.embeddings.keys() == {
            name for name, is_needed in needs.items() if not is_needed
        }
        assert half.status == (
            "rejected" if all(needs.values()) else "degraded" if any(needs.values()) else "ok"
        )
        for name in half.embeddings:
            assert np.array_equal(half.embeddings[name], results["whole.mp4"].embeddings[name])


def test_a_video_that_no_requested_stream_can_use_is_rejected(
    make_videos, trained, toy_video, tmp_path
):
    sound = [t for t in trained if t.stream.needs_sound and not t.stream.needs_pictures]
    if not sound:
        pytest.skip("no stream that needs sound alone")
    results, _ = run(make_videos, {"mute.mp4": toy_video(silent=True)}, sound, tmp_path)
    assert results["mute.mp4"].status == "rejected"
    assert results["mute.mp4"].rejected_reason == "no_audio"
    assert "mute.mp4 can be used by none of the requested streams" in results["mute.mp4"].rejected
    assert f"{sound[0].name}: no_audio" in results["mute.mp4"].rejected


def test_a_corrupt_cache_entry_is_computed_again_and_equal(make_videos, files, trained, tmp_path):
    first, _ = run(make_videos, files, trained, tmp_path)
    entries = [path for kind, path in Cache(tmp_path).entries() if kind == "segments"]
    assert len(entries) == len(files) * len(trained)
    victim = entries[3]
    data = bytearray(victim.read_bytes())
    data[-5] ^= 4
    victim.write_bytes(data)
    again, decoded = run(make_videos, files, trained, tmp_path)
    assert len(decoded) <= 1  # not at all where the flow was in the cache
    assert_same_results(first, again)
    assert victim.read_bytes() != data


def test_changed_content_under_an_old_name_is_noticed(make_videos, files, trained, tmp_path):
    first, _ = run(make_videos, files, trained, tmp_path)
    changed = {**files, "a.mp4": files["f.mp4"]}
    second, decoded = run(make_videos, changed, trained, tmp_path, content={"a.mp4": "0" * 64})
    assert decoded == ["a.mp4"]
    for stream in trained:
        assert not np.array_equal(
            first["a.mp4"].embeddings[stream.name], second["a.mp4"].embeddings[stream.name]
        )
        assert np.array_equal(
            second["a.mp4"].embeddings[stream.name], second["f.mp4"].embeddings[stream.name]
        )


@pytest.mark.parametrize("name", streams.names())
def test_the_defects_of_a_video_do_not_depend_on_the_cache(
    make_videos, trained, toy_video, tmp_path, name
):
    """A stream whose source was cached by an earlier command still reports the file's defects."""
    stream = next(t for t in trained if t.name == name)
    files = {"torn.mp4": toy_video(50, seed=2, reasons=("decode_errors",))}
    fresh, _ = run(make_videos, files, [stream], tmp_path / "fresh")
    assert fresh["torn.mp4"].reasons == ("decode_errors",)
    cache = Cache(
        tmp_path / "used"
    )  # training has been here, and left motion and flow in the cache
    videos, _ = make_videos(files, cache)
    list(gather_footage(videos, stream.stream, n_threads=1))
    used, _ = run(make_videos, files, [stream], tmp_path / "used")
    assert_same_results(fresh, used)


def test_another_encoder_is_not_served_from_the_cache(
    make_videos, files, trained, untrained, tmp_path
):
    run(make_videos, files, trained, tmp_path)
    name = trained[0].name
    other = untrained(name, seed=1)
    results, _ = run(make_videos, files, [other], tmp_path)
    fresh, _ = run(make_videos, files, [other], tmp_path / "fresh")
    assert_same_results(fresh, results)


def test_another_aggregator_uses_the_segment_embeddings_of_the_cache(
    make_videos, files, trained, tmp_path
):
    from tristream.streams import model

    run(make_videos, files, trained, tmp_path)
    for stream in trained:
        parts = stream.config.aggregator.model_copy(update={"kind": "mean"})
        config = stream.config.model_copy(update={"aggregator": parts})
        again = stream.rebound(config=config)
        network = model.build_model(again.stream, 3).eval()
        network.encoder.load_state_dict(stream.model.encoder.state_dict())
        other = dataclasses.replace(again, model=network, checksums=model.Checksums.of(network))
        never = {name: AssertionError(f"{name} was decoded") for name in files}
        results, _ = run(make_videos, never, [other], tmp_path)
        for result in results.values():
            rows = result.segments[stream.name].embedding
            np.testing.assert_allclose(
                result.embeddings[stream.name], rows.mean(axis=0), rtol=1e-5, atol=1e-6
            )


def test_no_videos_give_no_results(trained, tmp_path):
    assert list(extract([], trained, cache=Cache(tmp_path), backend=TORCH, n_threads=2)) == []


def test_segment_embeddings_survive_their_entry():
    rows = SegmentEmbeddings(
        np.ones((2, 3), np.float32), np.arange(2.0), np.arange(2.0) + 1, "", ("b", "a")
    )
    again = SegmentEmbeddings.from_entry(rows.to_entry())
    assert again.reasons == ("b", "a")
    assert again.absent == ""
    assert np.array_equal(again.embedding, rows.embedding)
    none = SegmentEmbeddings(np.zeros((0, 0), np.float32), np.zeros(0), np.zeros(0), "no_audio")
    assert SegmentEmbeddings.from_entry(none.to_entry()).absent == "no_audio"


def test_in_order_keeps_the_order_with_only_a_few_in_progress():
    started, lock = [], threading.Lock()

    def work(number):
        with lock:
            started.append(number)
        if number % 3 == 0:
            threading.Event().wait(0.01)
        return number * 10

    results = in_order(work, range(30), n_threads=3)
    for index in range(30):
        assert next(results) == index * 10
        assert len(started) <= index + 1 + 4
    assert next(results, None) is None


def test_in_order_passes_errors_on_where_they_belong():
    def work(number):
        if number == 3:
            raise LookupError("thing 3")
        return number

    results = in_order(work, range(10), n_threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="thing 3"):
        next(results)


def test_gathered_footage_has_a_reason_where_there_is_none(
    make_videos, trained, toy_video, tmp_path
):
    broken = Rejected("empty_file", Path("/data/x.mp4"), "has 0 bytes")
    files = {
        "good.mp4": toy_video(),
        "x.mp4": broken,
        "none.mp4": toy_video(silent=True, blind=True),
    }
    for stream in trained:
        videos, _ = make_videos(files, Cache(tmp_path / stream.name))
        good, bad, none = gather_footage(videos, stream.stream, n_threads=2)
        assert isinstance(good[1], Footage)
        assert bad == (videos[1], broken)
        assert isinstance(none[1], Absent)
        assert none[1].reason in ("no_audio", "no_video")
        assert all("decoded" not in vars(video) for video in videos)
