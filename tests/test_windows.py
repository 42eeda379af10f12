from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from tristream import streams
from tristream.errors import UsageError
from tristream.flow import estimators
from tristream.media.decode import DecodedVideo
from tristream.media.reasons import Rejected
from tristream.store.cache import Cache
from tristream.streams.config import DataConfig, SamplerConfig
from tristream.streams.encoding import encode
from tristream.streams.extraction import make_fillers
from tristream.streams.model import pad
from tristream.streams.torch_backend import TorchBackend
from tristream.streams.video import FlowSource, Video, View, squash
from tristream.streams.window_cutter import WindowCutter
from tristream.streams.window_embeddings import extract_windows
from tristream.streams.window_rows import BLOCK, aggregate, embed_now
from tristream.streams.windows import Region, Ring, WindowPlan

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TORCH = TorchBackend(DEVICE)
PLAN = WindowPlan(seconds=1.2, hop_seconds=0.5)


def pieces_of(video: DecodedVideo, seconds: float) -> list[DecodedVideo]:
    """Return a decoded video in pieces of this length, as a decode process yields it."""
    end = max(video.samples_stop_seconds, *video.stop_seconds, 0.0)
    found = []
    for k in range(int(np.ceil(end / seconds))):
        low, high = k * seconds, (k + 1) * seconds
        rows = (video.start_seconds >= low) & (video.start_seconds < high)
        first, last = (round((t - video.samples_start_seconds) * 16000) for t in (low, high))
        samples = None if video.samples is None else video.samples[max(0, first) : max(0, last)]
        samples = samples if samples is not None and len(samples) else None
        begins = video.samples_start_seconds + max(0, first) / 16000 if samples is not None else 0.0
        found.append(
            dataclasses.replace(
                video,
                frames=None if video.frames is None or not rows.any() else video.frames[rows],
                start_seconds=video.start_seconds[rows],
                stop_seconds=video.stop_seconds[rows],
                suspect=video.suspect[rows],
                samples=samples,
                samples_start_seconds=begins,
                samples_stop_seconds=begins + (0 if samples is None else len(samples)) / 16000,
                known_seconds=high if high < end else np.inf,
            )
        )
    return found


@dataclasses.dataclass
class Source:
    """Video in memory that records its readers."""

    video_id: str
    found: DecodedVideo | Exception
    piece_seconds: float = 0.3
    path: Path = Path("/data/a.mp4")
    read: list[str] = dataclasses.field(default_factory=list)

    @property
    def content_id(self) -> str:
        return f"content of {self.video_id}"

    def pieces(self):
        self.read.append(self.video_id)
        if isinstance(self.found, Exception):
            raise self.found
        yield from pieces_of(self.found, self.piece_seconds)


@pytest.fixture(scope="module")
def trained(untrained):
    made = [untrained(name) for name in streams.names()]
    return [t.rebound(config=t.config.model_copy(update={"encode_batch_size": 8})) for t in made]


def embed(sources, trained, plan, cache, *, n_threads=1, flow_from=None):
    """Return rows of the windows of every source, as for `fuse` and `detect`."""
    cutter = WindowCutter.for_streams(trained, plan, backend=TORCH, flow_from=flow_from)
    return list(extract_windows(sources, cutter, cache=cache, n_threads=n_threads))


def live_rows(cutter, video: DecodedVideo, piece_seconds: float = 0.2, video_id: str = ""):
    """Yield rows of a source that arrives in pieces, as for `detect --follow`."""
    feed = cutter.begin(video_id)
    for piece in pieces_of(video, piece_seconds):
        yield from itertools.chain.from_iterable(feed.add(piece))
    yield from itertools.chain.from_iterable(feed.finish())


def windows_of(video: DecodedVideo, seconds: float, plan: WindowPlan = PLAN):
    ring = Ring(plan)
    for piece in pieces_of(video, seconds):
        yield from ring.add(piece)
    yield from ring.finish()


def test_windows_lie_on_the_hop_and_the_last_one_ends_with_the_video(toy_video) -> None:
    found = [(w.start_seconds, w.stop_seconds) for w in windows_of(toy_video(70), 0.3)]  # 2.8 s
    assert found == [
        pytest.approx(pair) for pair in [(0, 1.2), (0.5, 1.7), (1.0, 2.2), (1.5, 2.7)]
    ]  # what is left, 0.1 s, is less than half a hop
    found = [(w.start_seconds, w.stop_seconds) for w in windows_of(toy_video(78), 0.3)]  # 3.12 s
    assert found[-1] == pytest.approx((1.92, 3.12))


def test_a_video_shorter_than_a_window_is_one_window(toy_video) -> None:
    [window] = windows_of(toy_video(20), 0.3)
    assert (window.start_seconds, window.stop_seconds) == pytest.approx((0, 0.8))
    assert len(window.decoded.frames) == 20
    assert len(window.decoded.samples) == 12800


@pytest.mark.parametrize("piece_seconds", [0.11, 0.5, 1.7, 100.0])
def test_windows_of_the_stream_are_windows_cut_from_the_whole_bit_for_bit(
    toy_video, piece_seconds: float
) -> None:
    video = toy_video(93, sound_starts=0.25)
    whole = estimators.load("dis_ultrafast")(squash(video.frames, 48, 40))
    n = 0
    for window in windows_of(video, piece_seconds):
        rows = np.flatnonzero(
            (video.start_seconds >= window.start_seconds - 1e-6)
            & (video.start_seconds < window.stop_seconds - 1e-6)
        )
        decoded = window.decoded
        assert np.array_equal(decoded.frames, video.frames[rows])
        assert np.array_equal(decoded.start_seconds, video.start_seconds[rows])
        first, last = (
            round((t - 0.25) * 16000) for t in (window.start_seconds, window.stop_seconds)
        )
        assert np.array_equal(decoded.samples, video.samples[max(0, first) : last])
        assert decoded.samples_start_seconds == pytest.approx(max(0.25, window.start_seconds))
        at = window.first_frame
        flow = window.ring.flow("dis_ultrafast", (48, 40), Region(), at, at + len(rows) - 1)
        assert np.array_equal(flow, whole[rows[0] : rows[-1]])  # across the borders of pieces too
        n += 1
    assert n == 7


def test_windows_of_a_cropped_video_are_those_of_the_part_alone(toy_video) -> None:
    video, crop = toy_video(40), (0.25, 0.5, 0.75, 1.0)
    part = dataclasses.replace(video, frames=video.frames[:, 16:48, 32:].copy())
    ring, alone = Ring(PLAN, crop), Ring(PLAN)
    data, sampler = DataConfig(max_side_px=64, crop=crop), PLAN.sampler(SamplerConfig())
    pairs = zip(
        [*ring.add(video), *ring.finish()], [*alone.add(part), *alone.finish()], strict=True
    )
    for cropped, expected in pairs:
        seen, right = (
            w.video("v", Path("v"), Region(), data=data, sampler=sampler)
            for w in (cropped, expected)
        )
        assert np.array_equal(seen.frames(), right.frames())
        assert seen.frames().shape[1:3] == (32, 32)
    assert np.array_equal(cropped.decoded.samples, expected.decoded.samples)


def test_a_ring_holds_no_more_than_a_window_and_a_piece(toy_video) -> None:
    ring, most = Ring(PLAN), 0
    for piece in pieces_of(toy_video(500), 0.3):
        for window in ring.add(piece):
            window.ring.flow(
                "dis_ultrafast", (32, 32), Region(), window.first_frame, window.first_frame + 3
            )
        most = max(most, len(ring._frames), len(ring._samples) // 640)
        assert sum(map(len, ring._flows.values())) <= 40
    assert most <= 25 * (1.2 + 0.5 + 2 * 0.3)


def test_a_hole_in_time_gives_no_empty_window(toy_video) -> None:
    video = toy_video(100, silent=True)
    later = np.where(np.arange(100) >= 50, 7.0, 0.0)
    video = dataclasses.replace(
        video,
        start_seconds=video.start_seconds + later,
        stop_seconds=video.stop_seconds + later,
    )
    found = list(windows_of(video, 0.5))
    assert all(len(window.decoded.frames) for window in found)
    assert not [w for w in found if w.start_seconds >= 2.0 and w.stop_seconds <= 9.0]
    assert found[-1].stop_seconds == pytest.approx(11, abs=0.3)


def test_regions_overlap_by_half_and_cover_the_frame(toy_video) -> None:
    plan = WindowPlan(1.0, 1.0, regions=(2, 3))
    cells = plan.cells()
    assert len(cells) == 3 * 5
    seen = np.zeros((64, 64), int)
    for cell in cells:
        seen[cell.of((64, 64))] += 1
    assert seen.min() == 1
    assert cells[0].name == "#xywh=percent:0,0,33.3333,50"
    assert Region().name == ""
    assert WindowPlan(1.0, 1.0).cells() == [Region()]


def test_the_flow_of_a_region_is_that_part_of_the_frame_s_flow(toy_video) -> None:
    video = toy_video(30)
    [window] = windows_of(video, 0.4, WindowPlan(1.2, 1.2))
    whole = estimators.load("dis_ultrafast")(video.frames)
    region = Region(0.25, 0.5, 0.5, 0.25)
    flow = window.ring.flow(
        "dis_ultrafast", (32, 16), region, 0, 29
    )  # 32 of 64 rows, 16 of 64 columns
    assert np.array_equal(flow, whole[:, :, 16:48, 32:48])
    twice = window.ring.flow(
        "dis_ultrafast", (64, 32), region, 0, 29
    )  # never estimated larger than the picture is
    assert twice.shape == (29, 2, 64, 32)
    assert np.abs(twice).mean() == pytest.approx(2 * np.abs(flow).mean(), rel=0.05)


def never(*_: object, **__: object) -> None:
    raise AssertionError("it was decoded")


def by_hand(video: DecodedVideo, trained, settings, plan: WindowPlan, flow=None):
    """Return embeddings of all windows, each cut from the whole video and encoded alone.

    Args:
        flow: precomputed, of the whole video; None: it is estimated.
    """
    found = {stream.name: [] for stream in trained}
    for window in windows_of(video, 1000.0, plan):
        first, n_frames = window.first_frame, len(window.decoded.start_seconds)
        given = None if flow is None else (lambda f=first, n=n_frames: flow[f : f + n - 1])
        for stream in trained:
            sampler = plan.sampler(stream.sampler)
            single = Video(
                "w", Path("w"), "w", decode=never, cache=None, view=View(settings.data, sampler),
                flow_source=FlowSource(given=given),
            )  # fmt: skip
            single.decoded = window.decoded
            bound = stream.rebound(sampler=sampler).stream
            segments = bound.cut(bound.footage(single))
            rows = encode(stream.model.encoder, segments, batch_size=8, backend=TORCH)
            with torch.inference_mode():
                sequence, length = pad([rows])
                found[stream.name].append(
                    stream.model.to(DEVICE).aggregate(sequence.to(DEVICE), length)[0].cpu().numpy()
                )
    return {name: np.stack(rows) for name, rows in found.items()}


@pytest.mark.parametrize("n_threads", [1, 3])
def test_embeddings_of_windows_are_those_of_small_videos_for_any_pieces(
    toy_video, trained, tmp_path: Path, workshop_settings, n_threads: int
) -> None:
    videos = {
        "a.mp4": toy_video(75, seed=1),
        "b.mp4": toy_video(33, seed=2),
        "c.mp4": toy_video(60, seed=3),
    }
    plan = WindowPlan(1.2, 0.6)
    results = {}
    for piece_seconds in (0.25, 50.0):
        sources = [Source(name, video, piece_seconds) for name, video in videos.items()]
        cache = Cache(tmp_path / str(piece_seconds))
        results[piece_seconds] = list(embed(sources, trained, plan, cache, n_threads=n_threads))
        assert [rows.source.video_id for rows in results[piece_seconds]] == list(videos)
    for rows, other in zip(*results.values(), strict=True):
        expected = by_hand(videos[rows.source.video_id], trained, workshop_settings, plan)
        for stream in trained:
            assert np.array_equal(rows.embeddings[stream.name], other.embeddings[stream.name])
            assert np.array_equal(rows.embeddings[stream.name], expected[stream.name])
        assert np.array_equal(rows.peak_motion, other.peak_motion)
        assert (rows.peak_motion > 0).all()


def test_a_second_time_everything_is_read_from_the_cache(
    toy_video, trained, tmp_path: Path
) -> None:
    plan, cache = WindowPlan(0.4, 0.04), Cache(tmp_path)  # more rows than one entry holds
    source = Source("a.mp4", toy_video(BLOCK + 40, reasons=("decode_errors",)))
    [first] = embed([source], trained, plan, cache)
    assert len(first.region) > BLOCK
    again = Source("a.mp4", AssertionError("it was decoded"))
    [second] = embed([again], trained, plan, cache)
    assert again.read == []
    assert second.reasons == first.reasons == ("decode_errors",)
    assert second.absent == first.absent
    for name in first.embeddings:
        assert np.array_equal(first.embeddings[name], second.embeddings[name], equal_nan=True)
    assert np.array_equal(first.start_seconds, second.start_seconds)
    # A part that is lost is computed again, and joins what is there without a seam.
    entries = [path for _, path in cache.entries()]
    entries[0].unlink()
    [third] = embed([source], trained, plan, cache)
    for name in first.embeddings:
        assert np.array_equal(first.embeddings[name], third.embeddings[name], equal_nan=True)


def test_rows_encoded_at_once_are_those_of_full_batches(toy_video, trained, tmp_path: Path) -> None:
    plan, video, fillers = WindowPlan(1.2, 0.6), toy_video(75), make_fillers(trained, TORCH)
    [rows] = embed([Source("a", video)], trained, plan, Cache(tmp_path))
    live = []
    for row in live_rows(WindowCutter.for_streams(trained, plan, backend=TORCH), video):
        live.append(row)
        embed_now([row], fillers)
    for stream in trained:
        assert np.array_equal(aggregate(live, stream, DEVICE), rows.embeddings[stream.name])


def embedded(rows, trained):
    embed_now(rows, make_fillers(trained, TORCH))
    return {stream.name: aggregate(rows, stream, DEVICE) for stream in trained}


@pytest.mark.parametrize("crop", [None, (0.25, 0.5, 0.75, 1.0)])
@pytest.mark.parametrize("regions", [(1, 1), (1, 2)])
def test_a_live_source_gets_the_embeddings_of_the_file_with_its_bytes(
    toy_video, trained, tmp_path: Path, crop, regions
) -> None:
    """Fault A04; also after a connection was lost and a new one begun."""
    cropped = [
        dataclasses.replace(t, data=t.data.model_copy(update={"crop": crop})) for t in trained
    ]
    plan, video = WindowPlan(1.2, 0.6, regions), toy_video(50)
    [file] = embed([Source("a", video)], cropped, plan, Cache(tmp_path))
    cutter = WindowCutter.for_streams(cropped, plan, backend=TORCH)
    for _ in range(2):
        rows = list(live_rows(cutter, video))
        assert [row.peak_motion for row in rows] == file.peak_motion.tolist()
        for name, embeddings in embedded(rows, cropped).items():
            assert np.array_equal(embeddings, file.embeddings[name])


def test_a_crop_changes_the_windows_of_streams_that_see(toy_video, trained, tmp_path: Path) -> None:
    crop = (0.25, 0.5, 0.75, 1.0)
    cropped = [
        dataclasses.replace(t, data=t.data.model_copy(update={"crop": crop})) for t in trained
    ]
    [whole], [part] = (
        embed([Source("a", toy_video(40))], made, PLAN, Cache(tmp_path))
        for made in (trained, cropped)
    )
    for one in trained:
        is_equal = np.array_equal(whole.embeddings[one.name], part.embeddings[one.name])
        assert is_equal == (not one.stream.needs_pictures)


@pytest.mark.slow  # RAFT takes 11 s
def test_windows_measure_motion_with_the_streams_own_learned_estimator(
    toy_video, trained, tmp_path: Path
) -> None:
    """`Ring(plan)` alone had no weights: a live source could not be watched with learned flow."""
    learned = {"estimator": "raft_small", "weights_seed": 0}
    seeing = [
        t.rebound(sampler=t.sampler.model_copy(update=learned))
        for t in trained
        if t.stream.needs_pictures
    ][:1]
    plan, video = WindowPlan(0.2, 0.2), toy_video(5, side=128)
    [file] = embed([Source("a", video)], seeing, plan, Cache(tmp_path))
    cutter = WindowCutter.for_streams(seeing, plan, backend=TORCH)
    assert [row.peak_motion for row in live_rows(cutter, video)] == file.peak_motion.tolist()
    assert (file.peak_motion > 0).all()


@pytest.fixture
def stored_flow(tmp_path: Path):
    """Folder with precomputed flow of `a.mp4`, 74 fields of 24 x 20 px, and the fields."""
    from safetensors.numpy import save_file

    flow = np.random.default_rng(0).normal(0, 2, (74, 2, 24, 20)).astype(np.float16)
    (tmp_path / "flow").mkdir()
    save_file({"flow": flow}, tmp_path / "flow" / "a.safetensors")
    return tmp_path / "flow", flow.astype(np.float32)


def test_windows_take_their_part_of_precomputed_flow(
    toy_video, trained, tmp_path: Path, workshop_settings, stored_flow
) -> None:
    folder, flow = stored_flow
    video, plan, cache = toy_video(75, seed=1), WindowPlan(1.2, 0.6), Cache(tmp_path / "cache")
    [estimated] = embed([Source("a.mp4", video)], trained, plan, cache)
    [rows] = embed([Source("a.mp4", video)], trained, plan, cache, flow_from=folder)
    expected = by_hand(video, trained, workshop_settings, plan, flow)
    for stream in trained:
        assert np.array_equal(rows.embeddings[stream.name], expected[stream.name])
    assert np.array_equal(rows.peak_motion, estimated.peak_motion), "motion is always measured"
    assert any(
        not np.array_equal(rows.embeddings[t.name], estimated.embeddings[t.name]) for t in trained
    )
    again = Source("a.mp4", AssertionError("it was decoded"))
    [cached] = embed([again], trained, plan, cache, flow_from=folder)
    for name in rows.embeddings:
        assert np.array_equal(cached.embeddings[name], rows.embeddings[name])


def test_a_region_of_precomputed_flow_is_magnified_to_the_whole_field(toy_video) -> None:
    """As the region of a frame is magnified before its flow is estimated."""
    flow = np.random.default_rng(0).normal(0, 2, (39, 2, 24, 20)).astype(np.float32)
    ring = Ring(WindowPlan(1.2, 0.6), precomputed=lambda first, last: flow[first:last])
    part = ring.given_flow(Region(0.5, 0.0, 0.5, 0.25), 3, 7)
    assert part.shape == (4, 2, 24, 20)
    quarter = flow[3:7, :, 12:, :5]
    assert part[:, 0].mean() == pytest.approx(4 * quarter[:, 0].mean(), abs=0.3)
    assert part[:, 1].mean() == pytest.approx(2 * quarter[:, 1].mean(), abs=0.3)
    assert np.array_equal(ring.given_flow(Region(), 3, 7), flow[3:7])


def test_streams_that_read_videos_differently_do_not_share_windows(trained) -> None:
    """Fault B8: all were read with the first one's crop and size."""
    other = dataclasses.replace(
        trained[-1], data=trained[-1].data.model_copy(update={"max_side_px": 48})
    )
    names = f"'{trained[0].name}' and '{other.name}' were trained with different"
    with pytest.raises(UsageError, match=names):
        WindowCutter.for_streams([*trained[:-1], other], PLAN, backend=TORCH)


def slow(toy_video, n_frames: int, fps: float) -> DecodedVideo:
    return toy_video(n_frames, fps=fps, silent=True)


def test_every_window_of_a_slow_video_holds_the_frames_that_are_shown_in_it(toy_video) -> None:
    """Fault A06: ten frames of 2 s each; 19 of 39 windows held a frame that begins in them."""
    video, plan = slow(toy_video, 10, 0.5), WindowPlan(1.0, 0.5)
    windows = list(windows_of(video, 1.0, plan))
    assert [w.start_seconds for w in windows] == pytest.approx(np.arange(39) / 2)
    for window in windows:
        shown = np.flatnonzero(
            (video.start_seconds < window.stop_seconds)
            & (video.stop_seconds > window.start_seconds)
        )
        assert np.array_equal(window.decoded.frames, video.frames[shown])
        assert window.first_frame == shown[0]
    assert {len(w.decoded.frames) for w in windows} == {1, 2}


@pytest.mark.parametrize("piece_seconds", [0.5, 3.0, 1000.0])
def test_windows_of_a_slow_video_do_not_depend_on_its_pieces(toy_video, piece_seconds) -> None:
    video, plan = slow(toy_video, 12, 0.7), WindowPlan(1.0, 0.5)
    whole, pieces = list(windows_of(video, 1e6, plan)), list(windows_of(video, piece_seconds, plan))
    assert [w.start_seconds for w in pieces] == [w.start_seconds for w in whole]
    for one, other in zip(pieces, whole, strict=True):
        assert np.array_equal(one.decoded.frames, other.decoded.frames)


@pytest.mark.parametrize("fps", [4.0, 5.0, 12.0, 25.0, 29.97])
def test_with_two_frames_in_a_hop_a_window_holds_the_frames_that_begin_in_it(
    toy_video, fps: float
) -> None:
    video, plan = slow(toy_video, 60, fps), WindowPlan(1.0, 0.5)
    for window in windows_of(video, 0.7, plan):
        begun = (video.start_seconds >= window.start_seconds - 1e-6) & (
            video.start_seconds < window.stop_seconds - 1e-6
        )
        assert np.array_equal(window.decoded.frames, video.frames[begun])


def test_a_hole_in_a_slow_video_gives_no_window(toy_video) -> None:
    video = slow(toy_video, 10, 0.5)
    later = np.where(np.arange(10) >= 5, 30.0, 0.0)  # frames end one step after they begin
    video = dataclasses.replace(
        video,
        start_seconds=video.start_seconds + later,
        stop_seconds=video.stop_seconds + later,
    )
    windows = list(windows_of(video, 1.0, WindowPlan(1.0, 0.5)))
    assert not [w for w in windows if w.start_seconds >= 10.0 and w.stop_seconds <= 40.0]
    assert len(windows) == 2 * (19 + 1)


def test_a_stream_that_a_window_lacks_is_absent_there_and_a_bad_video_is_rejected(
    toy_video, trained, tmp_path: Path
) -> None:
    sources = [
        Source("silent.mp4", toy_video(40, silent=True)),
        Source("bad.mp4", Rejected("not_a_video", Path("bad.mp4"), "is no video")),
        Source("good.mp4", toy_video(40)),
    ]
    silent, bad, good = embed(sources, trained, PLAN, Cache(tmp_path), n_threads=2)
    for stream in trained:
        if stream.stream.needs_sound:
            assert set(silent.absent[stream.name]) == {"no_audio"}
            assert not silent.present(stream.name).any()
            assert np.isnan(silent.embeddings[stream.name]).all()
        assert good.present(stream.name).all()
    assert (bad.rejected, bad.rejected_reason) == ("bad.mp4 is no video", "not_a_video")
    assert len(bad.region) == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"a window of -1 s; its length must be above 0"):
        WindowPlan(-1.0, 1.0)
    with pytest.raises(ValueError, match=r"a hop of 3 s with windows of 2 s"):
        WindowPlan(2.0, 3.0)
    with pytest.raises(ValueError, match=r"0x4 regions"):
        WindowPlan(2.0, 1.0, regions=(0, 4))
    with pytest.raises(ValueError, match=r"the plan says whole videos"):
        Ring(WindowPlan())
