"""Flow estimators that streams need, read from their configurations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tristream.errors import TristreamError
from tristream.flow.estimators import is_learned
from tristream.streams.flow_estimators import Estimators

if TYPE_CHECKING:
    from tristream.store.weights.library import Places
    from tristream.streams.stream import Stream


def names_of(stream: Stream) -> list[str]:
    """Return the estimators whose flow reaches a stream that reads frames, sorted."""
    own = getattr(stream.config, "estimator", None)
    return sorted({stream.sampler.estimator, *([own] if own is not None else [])})


def seeds_of(stream: Stream) -> dict[str, int]:
    """Return {learned estimator: seed} of those that a stream runs with random weights."""
    seeds = {}
    for part in (stream.sampler, stream.config):
        name, seed = getattr(part, "estimator", None), getattr(part, "weights_seed", None)
        if name is not None and seed is not None and is_learned(name):
            seeds[name] = seed
    return seeds


def needed(streams: Iterable[Stream], *, precomputed_flow: bool = False) -> set[str]:
    """Return the estimators that run when some streams read videos.

    Args:
        streams: any; those that read no frames need none.
        precomputed_flow: flow is read from files; only motion is still measured.
    """
    reading = [stream for stream in streams if stream.needs_pictures]
    names = {stream.sampler.estimator for stream in reading}
    if not precomputed_flow:
        names |= {name for stream in reading for name in names_of(stream)}
    return names


def estimators_for(streams: Iterable[Stream], *, where: Places | None = None) -> Estimators:
    """Return new estimators for some streams, with the random weights that their configurations name.

    Raises:
        TristreamError: two streams ran one estimator with different random weights.
    """
    seeds: dict[str, int] = {}
    for stream in streams:
        for name, seed in seeds_of(stream).items():
            if seeds.setdefault(name, seed) != seed:
                raise TristreamError(
                    f"the streams ran '{name}' with random weights of seed {seeds[name]} and of "
                    f"seed {seed}; train them with one --random-weights"
                )
    return Estimators(seeds, where=where)
