"""The paper's streams, ready to run without having been trained: what a bench measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream.bench.inputs import Subject

if TYPE_CHECKING:
    from tristream.media.sandbox.pool import DecodePool
    from tristream.store.cache import Cache
    from tristream.streams.model import TrainedStream
    from tristream.streams.timings import Stages
    from tristream.streams.video import Video

N_CLASSES = 101
PICTURE_NETWORK = "inception_resnet_v2"


def stream(name: str, subject: Subject, *, n_samples: int = 180, **overrides: Any) -> TrainedStream:
    """A stream with the paper's networks and sizes; the flow is DIS, which is what a CPU can do for every frame."""
    import torch

    from tristream import streams
    from tristream.streams import model
    from tristream.streams.config import DataConfig, SamplerConfig

    part = streams.stream_class(name)
    settings: dict[str, Any] = {}
    fields = part.Config.model_fields
    if (
        "encoder_weights" in fields and "input_size" in fields and "stack_length" not in fields
    ):  # it looks at pictures
        settings = {"encoder": PICTURE_NETWORK, "input_size": (299, 299)}
    own = own_weights(settings.get("encoder", ""), subject)
    if own is not None:
        settings["encoder_weights"] = own
    config = part.Config.model_validate({**settings, **overrides})
    torch.manual_seed(subject.seed)
    bound = part(config, SamplerConfig(n_samples=n_samples))
    network = model.build_model(bound, N_CLASSES).eval()
    return model.TrainedStream(
        stream=bound,
        data=DataConfig(),
        classes=tuple(str(index) for index in range(N_CLASSES)),
        model=network,
        checksums=model.Checksums.of_encoder(network),
        lineage={"random_weights": None if own else subject.seed},
    )


def own_weights(name: str, subject: Subject) -> Path | None:
    """Return the file of a network's own weights if it is on this machine; nothing is downloaded."""
    from tristream.store import weights

    try:
        state, path = weights.state(name, where=weights.places(subject.weights_dir))
    except ValueError:  # not a name that weights are known of
        return None
    return path if state == weights.READY else None


def said(subject: Subject, *made: TrainedStream) -> str:
    """Networks with random weights, for a table's notes."""
    random = [stream.name for stream in made if stream.lineage["random_weights"] is not None]
    return (
        f"random weights (seed {subject.seed}): {', '.join(random)}"
        if random
        else "the networks' own weights"
    )


def videos(
    paths: Sequence[Path],
    made: Sequence[TrainedStream],
    pool: DecodePool,
    cache: Cache,
    *,
    stages: Stages | None = None,
) -> Iterator[Video]:
    """Yield the files as the streams read them."""
    from tristream.dataset.manifest import content_id
    from tristream.streams.video import Video, View

    def decode(
        path: Path, *, pictures: bool, sound: bool, max_side: int, stop_seconds: float
    ) -> Any:
        return pool.submit(
            path, pictures=pictures, sound=sound, max_side=max_side, stop_seconds=stop_seconds
        ).result()

    for path in paths:
        yield Video(
            path.name, path, content_id(path), decode=decode, cache=cache,
            view=View(
                made[0].data, made[0].sampler, pictures=any(one.stream.needs_pictures for one in made),
                sound=any(one.stream.needs_sound for one in made),
            ),
            stages=stages,
        )  # fmt: skip


@contextmanager
def decoding() -> Iterator[DecodePool]:
    """Decode processes, one for each core, and OpenCV on one thread, as the commands have them."""
    import cv2

    from tristream.media.machine import n_cores
    from tristream.media.sandbox.pool import DecodePool

    cv2.setNumThreads(1)
    with DecodePool(n_cores()) as pool:
        yield pool
