"""Table of models: every encoder of the presets, aggregator, flow estimator and detector, by name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream import streams
from tristream.settings import PRESETS, merge_all, validate

if TYPE_CHECKING:
    import torch

    from tristream.media.decode import DecodedVideo
    from tristream.streams.segments import Segments
    from tristream.streams.stream import Stream

N_CLASSES = 10
AGGREGATOR_INPUT = (32, 512)  # segments and width for which aggregators are counted
_SECONDS = 12.0  # of the made-up video that segments are cut from


@dataclass(frozen=True)
class ModelRow:
    """One model.

    Attributes:
        kind: "encoder", "aggregator", "flow estimator" or "detector".
        name: as in the setting that chooses it.
        stream: of an encoder; else "".
        presets: that use it.
        input: shape of one segment of an encoder, of one video of an aggregator.
        width: of its output; None where that is not fixed.
        parameters: number of them; None where they follow from the data.
        gflop: 10⁹ operations for one input; a multiplication and an addition are two.
        milliseconds: of wall time for one input on this machine, median of 5; None: not measured.
        weights: name of the pretrained weights; "" if trained from scratch.
        source: library of the weights, or ours.
        licence: of the weights.
    """

    kind: str
    name: str
    stream: str = ""
    presets: tuple[str, ...] = ()
    input: tuple[int, ...] = ()
    width: int | None = None
    parameters: int | None = None
    gflop: float | None = None
    milliseconds: float | None = None
    weights: str = ""
    source: str = "tristream"
    licence: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON."""
        return asdict(self) | {"presets": list(self.presets), "input": list(self.input)}


def rows(*, measure: bool = False) -> list[ModelRow]:
    """Return all models; networks are built with random weights.

    Args:
        measure: time one input of each network here.
    """
    return [
        *_encoders(measure),
        *_aggregators(measure),
        *_estimators(),
        *_detectors(),
    ]


def _encoders(measure: bool) -> Iterator[ModelRow]:
    """Yield the encoder of each stream and preset; one row for equal networks."""
    found: dict[tuple[Any, ...], ModelRow] = {}
    video = _made_up_video()
    for path in sorted(PRESETS.glob("*.toml")):
        merged, _ = merge_all(path.stem, None, (), ())
        for name in streams.names():
            section = merged.get("streams", {}).get(name)
            if section is None:
                continue
            row = _encoder(name, section, video, measure)
            key = (row.stream, row.name, row.input, row.width, row.parameters)
            known = found.get(key)
            presets = (path.stem,) if known is None else (*known.presets, path.stem)
            weights = row.weights or (known.weights if known else "")
            found[key] = replace(known or row, presets=presets, **_weights_facts(weights))
    yield from sorted(found.values(), key=lambda row: (row.stream, row.parameters or 0, row.name))


def _encoder(name: str, section: Mapping[str, Any], video: DecodedVideo, measure: bool) -> ModelRow:
    import torch

    from tristream.streams.backend import Embedding
    from tristream.streams.config import SamplerConfig

    kind = streams.stream_class(name)
    weights = str(section.get("encoder_weights", "") or "")
    own = {key: value for key, value in section.items() if not key.endswith("_weights")}
    if "estimator" in own:  # any flow has the shape of a learned one's
        own["estimator"] = "dis_ultrafast"
    config = validate(kind.Config, own, f"streams.{name}")
    stream = streams.load(name, config, SamplerConfig(n_samples=2, estimator="dis_ultrafast"))
    segment = _segments(stream, video).read(0, 1)
    # Without a measurement the network has shapes alone: no memory, no time.
    with torch.device("cpu" if measure else "meta"):
        encoder: Any = stream.build_encoder(N_CLASSES)
    module = Embedding(encoder).eval()
    example = torch.from_numpy(np.ascontiguousarray(segment)).to("cpu" if measure else "meta")
    return ModelRow(
        "encoder",
        str(getattr(config, "encoder", name)),
        stream=name,
        input=tuple(segment.shape[1:]),
        width=int(encoder.embedding_dim),
        parameters=sum(p.numel() for p in encoder.parameters()),
        gflop=_gflop(module, example),
        milliseconds=_milliseconds(module, example) if measure else None,
        weights=weights,
    )


def _aggregators(measure: bool) -> Iterator[ModelRow]:
    import torch

    from tristream.streams import aggregator

    n_segments, dim = AGGREGATOR_INPUT
    lengths = torch.tensor([n_segments])
    for kind in aggregator.KINDS:
        module = aggregator.build(kind, dim).eval()
        segments = torch.zeros(1, n_segments, dim)
        yield ModelRow(
            "aggregator",
            kind,
            input=AGGREGATOR_INPUT,
            width=int(module.embedding_dim),  # type: ignore[arg-type]
            parameters=sum(p.numel() for p in module.parameters()),
            milliseconds=_milliseconds(module, segments, lengths) if measure else None,
        )


def _estimators() -> Iterator[ModelRow]:
    from tristream.flow import estimators

    for name in estimators.names():
        if estimators.is_learned(name):
            weights = estimators.weights_name(name)
            yield ModelRow("flow estimator", name, **_weights_facts(weights))
        else:
            yield ModelRow("flow estimator", name, source="OpenCV")


def _detectors() -> Iterator[ModelRow]:
    from tristream.fusion.anomaly.detectors import KINDS

    for name in KINDS:
        is_outside = name.startswith("pyod.")
        yield ModelRow("detector", name, source="PyOD" if is_outside else "tristream")


def _weights_facts(name: str) -> dict[str, Any]:
    """Return the source and licence of pretrained weights; nothing is downloaded."""
    from tristream.store.weights import catalogue

    if not name:
        return {}
    weight = catalogue.describe(name, quick=True)
    return {
        "weights": name,
        "source": weight.library or ("its publisher" if weight.address else "timm"),
        "licence": weight.licence,
    }


def _made_up_video() -> DecodedVideo:
    """Return drifting noise with a tone, in memory: segments of every stream can be cut from it."""
    from tristream.media.decode import DecodedVideo

    generator = np.random.default_rng(0)
    texture = np.kron(generator.integers(0, 255, (15, 20, 3)), np.ones((16, 16, 1)))
    n_frames, fps = round(_SECONDS * 10), 10.0
    frames = np.stack([np.roll(texture, 2 * t, 1) for t in range(n_frames)]).astype(np.uint8)
    times = np.arange(n_frames + 1) / fps
    samples = np.sin(np.arange(round(16_000 * _SECONDS)) * 0.2).astype(np.float32)
    return DecodedVideo(
        frames=frames,
        start_seconds=times[:-1],
        stop_seconds=times[1:],
        suspect=np.zeros(n_frames, bool),
        samples=samples,
        samples_start_seconds=0.0,
        samples_stop_seconds=_SECONDS,
        reasons=(),
        source_height=frames.shape[1],
        source_width=frames.shape[2],
        source_fps=fps,
        n_declared_frames=n_frames,
        n_decoded_frames=n_frames,
        n_decode_errors=0,
    )


def _segments(stream: Stream, decoded: DecodedVideo) -> Segments:
    import tempfile

    from tristream.store.cache import Cache
    from tristream.streams.config import DataConfig
    from tristream.streams.video import Video, View

    with tempfile.TemporaryDirectory() as folder:
        video = Video(
            "made-up",
            Path("made-up"),
            "made-up",
            decode=lambda *_, **__: decoded,
            cache=Cache(Path(folder), written=()),
            view=View(DataConfig(), stream.sampler),
        )
        return stream.cut(stream.footage(video))


def _gflop(module: torch.nn.Module, *example: torch.Tensor) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*example)
    return counter.get_total_flops() / 1e9


def _milliseconds(module: torch.nn.Module, *example: torch.Tensor) -> float:
    import torch

    seconds = []
    with torch.inference_mode():
        for _ in range(6):
            start = time.perf_counter()
            module(*example)
            seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[1:]))


def markdown() -> str:
    """Return docs/models.md: the models as tables, without timings."""
    lines = [_HEAD.rstrip()]
    kind = ""
    for row in rows():
        if row.kind != kind:
            kind = row.kind
            lines += ["", f"## {kind.capitalize()}s", "", _HEADER, "|---" * 8 + "|"]
        cells = (
            f"`{row.name}`",
            row.stream,
            " × ".join(map(str, row.input)),
            "" if row.width is None else str(row.width),
            "" if row.parameters is None else f"{row.parameters:,}",
            "" if row.gflop is None else f"{row.gflop:.3g}",
            f"{row.weights or '–'}, {row.source}" + (f" ({row.licence})" if row.licence else ""),
            ", ".join(row.presets),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_HEADER = (
    "| name | stream | input | width | parameters | GFLOP | weights, source (licence) | presets |"
)
_HEAD = """# Models

Generated by `tristream models --markdown`; do not edit. `tristream models` also measures milliseconds on this machine.

Encoders are those of the presets; any other name of timm works too
(`--set streams.spatial.encoder=NAME`). An encoder's input is one segment: a frame (height, width,
RGB), a stack of flow (channels, height, width) or log-mel rows. Parameters count the softmax layer
for 10 classes. Aggregators are counted for 32 segments of width 512 at the paper's sizes.
"""
