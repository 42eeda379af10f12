"""Every network on every engine: time of an item, and error against torch in float32."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.bench import flow_engines, paper_streams
from tristream.bench.inputs import Subject
from tristream.bench.table import Table
from tristream.bench.timing import in_turns

if TYPE_CHECKING:
    from torch import nn

    from tristream.streams.backend import Network

ROWS = 8
OTHER_NETWORKS = ("resnet50", "mobilenetv2_100")  # of timm, beside the paper's, at 224 x 224


def run(subject: Subject) -> list[Table]:
    """Processor milliseconds per item, medians of turns; errors on real pictures or on noise of the same size."""
    import importlib.util

    import torch

    from tristream.media.machine import n_cores
    from tristream.store.cache import Cache
    from tristream.streams.compute import choose
    from tristream.streams.torch_backend import TorchBackend

    cpu = torch.device("cpu")
    engines: dict[str, Any] = {"torch": TorchBackend(cpu)}
    if importlib.util.find_spec("openvino"):
        engines["openvino"] = choose(
            "openvino", device=cpu, cache=Cache(subject.scratch / "networks")
        )
    rows, errors = [], []
    peak = {precision: matrix_product_gflops(precision) for precision in ("float32", "bf16")}
    for name, module, example in networks(subject):
        running: dict[str, Network] = {}
        for engine, backend in engines.items():
            for precision in ("float32", "bf16"):
                running[f"{engine} {precision}"] = backend.compile(
                    module, example, precision=precision
                )
        n_batches = 2 * n_cores()
        work = {
            key: functools.partial(_all, network, example, n_batches)
            for key, network in running.items()
        }
        seconds = in_turns(work, subject.repeats, clock=time.process_time)
        outputs = {key: network.submit(example).result() for key, network in running.items()}
        each = {key: 1000 * s / n_batches / ROWS for key, s in seconds.items()}
        rows.append(_speed(name, each, gflop(module, example) / ROWS, peak))
        errors.append(_errors(name, outputs))
    header = ["network", "GFLOP", "torch, ms", "torch bf16", "openvino", "openvino bf16", "openvino / torch",
              "torch, % of product", "openvino, %", "openvino bf16, %"]  # fmt: skip
    notes = [
        f"milliseconds of processor time for one item, batches of {ROWS}, {n_cores()} cores; {subject.repeats} turns",
        "openvino / torch: how many times as fast, float32; target: InceptionResNetV2 at least 1.9",
        f"product: torch's own of two large matrices on one core, {peak['float32']:.0f} GFLOP/s in float32 and "
        f"{peak['bf16']:.0f} in bf16: where torch convolves as fast as that, nothing is likely to be twice as fast",
        f"random weights (seed {subject.seed}) where a network's own are not there",
    ]
    return [
        Table("networks, one item", header, rows, notes),
        Table(
            "networks, errors",
            [
                "network",
                "error of openvino",
                "error of its bf16",
                "cosine of its bf16",
                "error of torch bf16",
            ],
            errors,
            [
                "relative to the size of torch's float32 output; target: InceptionResNetV2 at most 1e-5"
            ],
        ),
        *flow_engines.run(subject),
    ]


def matrix_product_gflops(precision: str, side: int = 2048) -> float:
    """10⁹ floating-point operations a second of one core in torch's product of two large matrices."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.ones(side, side, dtype=dtype) for _ in range(2))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = in_turns({"product": lambda: torch.mm(a, b)}, 5, clock=time.process_time)[
            "product"
        ]
    finally:
        torch.set_num_threads(n_threads)
    return 2 * side**3 / seconds / 1e9


def gflop(module: nn.Module, example: np.ndarray) -> float:
    """10⁹ operations of products and convolutions in one forward pass; a multiplication and an addition are two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(torch.from_numpy(example))
    return counter.get_total_flops() / 1e9


def networks(subject: Subject) -> list[tuple[str, nn.Module, np.ndarray]]:
    """(name, encoder, a batch) of the streams' networks as the paper has them, and of two of timm's."""
    import torch

    from tristream import streams
    from tristream.streams.backend import Embedding
    from tristream.streams.video import squash

    generator = np.random.default_rng(subject.seed)
    frames = subject.pictures()
    entries: list[tuple[str, nn.Module, np.ndarray]] = []
    for name in streams.names():
        trained = paper_streams.stream(name, subject)
        config: Any = trained.config
        pictures = _pictures(frames, getattr(config, "input_size", None), squash)
        encoder = trained.model.encoder
        if getattr(config, "encoder", None) == paper_streams.PICTURE_NETWORK:
            entries.append((paper_streams.PICTURE_NETWORK, Embedding(encoder), pictures))  # type: ignore[arg-type]
            for other in OTHER_NETWORKS:
                small = paper_streams.stream(
                    name, subject, encoder=other, encoder_weights=None, input_size=(224, 224)
                )
                entries.append(
                    (other, Embedding(small.model.encoder), _pictures(frames, (224, 224), squash))  # type: ignore[arg-type]
                )
        elif hasattr(config, "stack_length"):
            shape = (ROWS, 2 * config.stack_length, *config.input_size)
            stacks = generator.normal(size=shape).astype(np.float32)
            entries.append(("motion CNN", Embedding(encoder), stacks))  # type: ignore[arg-type]
        elif hasattr(config, "n_frames"):
            shape = (ROWS, config.n_frames, 64)
            examples = generator.normal(size=shape).astype(np.float32)
            entries.append((config.encoder, Embedding(encoder), examples))  # type: ignore[arg-type]
    for _, module, _ in entries:
        module.to(memory_format=torch.channels_last).eval()
    return entries


def _pictures(frames: np.ndarray | None, size: tuple[int, int] | None, squash: Any) -> np.ndarray:
    if frames is None or size is None:
        return np.zeros((ROWS, 1, 1, 3), np.uint8)
    return squash(frames[np.linspace(0, len(frames) - 1, ROWS).round().astype(int)], *size)


def _all(network: Network, batch: np.ndarray, n_batches: int) -> None:
    for future in [network.submit(batch) for _ in range(n_batches)]:
        future.result()


def _speed(
    name: str, ms: dict[str, float], gflop: float, peak: dict[str, float]
) -> list[str | float | int | None]:
    def share(key: str, precision: str) -> float | None:
        return 100 * gflop / (ms[key] / 1000) / peak[precision] if key in ms else None

    speedup = ms["torch float32"] / ms["openvino float32"] if "openvino float32" in ms else None
    return [
        name, gflop, ms["torch float32"], ms["torch bf16"], ms.get("openvino float32"), ms.get("openvino bf16"),
        speedup, share("torch float32", "float32"), share("openvino float32", "float32"),
        share("openvino bf16", "bf16"),
    ]  # fmt: skip


def _errors(name: str, outputs: dict[str, np.ndarray]) -> list[str | float | int | None]:
    expected = outputs["torch float32"]

    def error(key: str) -> float | None:
        if key not in outputs:
            return None
        return float(np.linalg.norm(outputs[key] - expected)) / max(
            float(np.linalg.norm(expected)), 1e-30
        )

    half = outputs.get("openvino bf16")
    cosine = None
    if half is not None:
        lengths = float(np.linalg.norm(half)) * float(np.linalg.norm(expected))
        cosine = float((half * expected).sum()) / max(lengths, 1e-30)
    return [name, error("openvino float32"), error("openvino bf16"), cosine, error("torch bf16")]
