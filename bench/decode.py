"""Cost of decoding: alone, in isolated processes, and of the transfer."""

from __future__ import annotations

from pathlib import Path

from tristream.bench import paper_streams
from tristream.bench.inputs import CLIP_FRAMES, Subject, render_clips
from tristream.bench.table import Table
from tristream.bench.timing import cpu_seconds, in_turns

SIZES = ((240, 320), (720, 1280))


def run(subject: Subject) -> list[Table]:
    """Frames per second of one core, in this process and through a decode process; and one pass against three."""
    return [_speed(subject), _passes(subject)]


def _speed(subject: Subject) -> Table:
    from tristream.media.decode import decode_video

    files = {"the videos": list(subject.videos[:4])}
    for height, width in SIZES:
        files[f"rendered {width}x{height}"] = render_clips(
            subject.scratch / f"{width}", 1, n_frames=CLIP_FRAMES, size=(height, width)
        )
    rows = []
    with paper_streams.decoding() as pool:
        for name, paths in files.items():
            frames = sum(len(decode_video(path, max_side=320).start_seconds) for path in paths)

            def here(paths: list[Path] = paths) -> None:
                for path in paths:
                    decode_video(path, max_side=320)

            def there(paths: list[Path] = paths) -> None:
                for path in paths:
                    pool.submit(path, max_side=320).result()

            seconds = in_turns({"here": here, "there": there}, subject.repeats)
            extra = 1000 * (seconds["there"] - seconds["here"]) / frames
            rows.append((name, frames, frames / seconds["here"], frames / seconds["there"], extra))
    return Table(
        "decoding, pictures of at most 320 px and sound, one after the other",
        [
            "files",
            "frames",
            "frames/s in this process",
            "frames/s through a decode process",
            "the way, ms a frame",
        ],
        rows,
        [f"{subject.repeats} turns; the way: what isolation and handing over cost"],
    )


def _passes(subject: Subject) -> Table:
    """Processor seconds of the decode processes in a pass over one stream, and in one over all of them."""
    import torch

    from tristream import streams
    from tristream.store.cache import Cache
    from tristream.streams.backend import Kept
    from tristream.streams.compute import choose
    from tristream.streams.extraction import extract

    trained = {name: paper_streams.stream(name, subject, n_samples=8) for name in streams.names()}
    pictures = [one for one in trained.values() if one.stream.needs_pictures]
    groups = {"one stream": pictures[:1], "all streams": list(trained.values())}
    spent: dict[str, list[float]] = {name: [] for name in groups}
    backend = Kept(
        choose("auto", device=torch.device("cpu"), cache=Cache(subject.scratch / "networks"))
    )
    with paper_streams.decoding() as pool:
        for turn in range(subject.repeats + 1):
            for name, group in groups.items():
                cache, before = (
                    Cache(subject.scratch / f"passes-{turn}-{name}"),
                    cpu_seconds(pool.pids()),
                )
                videos = paper_streams.videos(subject.videos[:4], group, pool, cache)
                list(extract(videos, group, cache=cache, backend=backend, n_threads=2, force=True))
                if turn:
                    spent[name].append(cpu_seconds(pool.pids()) - before)
    rows = [(name, sorted(videos)[len(videos) // 2]) for name, videos in spent.items()]
    rows.append(("all / one", rows[1][1] / rows[0][1]))
    return Table(
        "decoding in a pass over the videos",
        ["pass", "CPU s of decoding"],
        rows,
        [
            f"{len(subject.videos[:4])} videos; {subject.repeats} turns; in the decode processes; target: at most 1.1"
        ],
    )
