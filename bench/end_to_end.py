"""From files to embeddings, against the network alone on the same segments: how much of the time is not the network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tristream.bench import paper_streams
from tristream.bench.inputs import Subject
from tristream.bench.table import Table
from tristream.bench.timing import cpu_seconds

if TYPE_CHECKING:
    from tristream.media.sandbox.pool import DecodePool
    from tristream.store.cache import Cache
    from tristream.streams.model import TrainedStream

N_VIDEOS = 2  # of 7 s: 350 pictures through InceptionResNetV2


def run(subject: Subject) -> list[Table]:
    """Wall and processor seconds of whole extractions, and of forward passes and decoding alone, in turns."""
    from tristream import streams

    rows: list[tuple[str | float | int | None, ...]] = []
    shares: list[tuple[str | float | int | None, ...]] = []
    trained = [paper_streams.stream(name, subject) for name in streams.names()]
    for one in trained:
        figures, spent, seconds = _measure(one, subject)
        rows.append(figures)
        shares.append((one.name, seconds, *spent.values()))
    from tristream.streams.timings import STAGES

    return [
        Table(
            f"end to end, {min(N_VIDEOS, len(subject.videos))} videos, float32",
            ["stream", "engine", "segments", "whole, s", "network alone, s", "network / whole",
             "(network + decode) CPU / cores / whole"],
            rows,
            [f"{subject.repeats} turns, medians; {paper_streams.said(subject, *trained)}; network prepared before",
             "targets (spatial, InceptionResNetV2): network / whole at least 0.93, the last at least 0.95"],
        ),
        Table(
            "where a video's time goes, seconds over all threads",
            ["stream", "whole, s", *STAGES],
            shares,
            ["of one whole extraction of one video; parts overlap, so they may sum to more than the clock shows"],
        ),
    ]  # fmt: skip


def _measure(
    one: TrainedStream, subject: Subject
) -> tuple[tuple[str | float | int | None, ...], dict[str, float], float]:
    import torch

    from tristream.media.machine import n_cores
    from tristream.store.cache import Cache
    from tristream.streams.backend import Embedding, Kept
    from tristream.streams.compute import choose
    from tristream.streams.extraction import extract
    from tristream.streams.timings import Stages

    paths = subject.videos[:N_VIDEOS]
    backend = Kept(
        choose("auto", device=torch.device("cpu"), cache=Cache(subject.scratch / "networks"))
    )
    size = backend.batch_size(one.config.encode_batch_size)
    seconds: dict[str, list[float]] = {
        "whole": [],
        "network": [],
        "network CPU": [],
        "decode CPU": [],
    }
    with paper_streams.decoding() as pool:
        rows = segments(one, subject, pool, Cache(subject.scratch / "segments"))
        n_batches = -(-len(rows) // size)
        batches = [
            rows[np.arange(index * size, (index + 1) * size) % len(rows)]
            for index in range(n_batches)
        ]
        network = backend.compile(Embedding(one.model.encoder), batches[0])  # type: ignore[arg-type]

        def whole(turn: int) -> None:
            videos = paper_streams.videos(
                paths, [one], pool, Cache(subject.scratch / f"{one.name}-{turn}")
            )
            list(extract(videos, [one], cache=Cache(subject.scratch / f"{one.name}-{turn}"), backend=backend,
                         n_threads=n_cores() + 1))  # fmt: skip

        def forward(turn: int) -> None:
            for future in [network.submit(batch) for batch in batches]:
                future.result()

        def decode(turn: int) -> None:
            for path in paths:
                pool.submit(
                    path, max_side=one.data.max_side_px, pictures=one.stream.needs_pictures,
                    sound=one.stream.needs_sound,
                ).result()  # fmt: skip

        for turn in range(subject.repeats + 1):
            spent = {"whole": _clock(whole, turn)[0]}
            spent["network"], spent["network CPU"] = _clock(forward, turn)
            spent["decode CPU"] = _children_cpu(pool, decode, turn)
            for name, value in spent.items():
                seconds[name] += [value] if turn else []
        stages = Stages()
        cache = Cache(subject.scratch / f"{one.name}-shares")
        begun = time.perf_counter()
        list(extract(paper_streams.videos(paths[:1], [one], pool, cache, stages=stages), [one], cache=cache,
                     backend=backend, n_threads=n_cores() + 1, stages=stages))  # fmt: skip
        lasted = time.perf_counter() - begun
    median = {name: statistics.median(times) for name, times in seconds.items()}
    busy = (median["network CPU"] + median["decode CPU"]) / n_cores() / median["whole"]
    figures = (one.name, backend.name, len(rows), median["whole"], median["network"],
               median["network"] / median["whole"], busy)  # fmt: skip
    return figures, stages.seconds, lasted


def segments(one: TrainedStream, subject: Subject, pool: DecodePool, cache: Cache) -> np.ndarray:
    """Return all segments of the measured videos, as encoder inputs."""
    pieces = []
    for video in paper_streams.videos(subject.videos[:N_VIDEOS], [one], pool, cache):
        pieces.append(one.stream.cut(one.stream.footage(video)).array)
    return np.concatenate(pieces)


def _clock(work: Callable[[int], None], turn: int) -> tuple[float, float]:
    """Wall and processor seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work(turn)
    return time.perf_counter() - wall, time.process_time() - cpu


def _children_cpu(pool: DecodePool, work: Callable[[int], None], turn: int) -> float:
    """Return CPU seconds of the decode processes and of the transfer to this one."""
    before, own = cpu_seconds(pool.pids()), time.process_time()
    work(turn)
    return cpu_seconds(pool.pids()) - before + time.process_time() - own
