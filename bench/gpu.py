"""On a GPU: the streams' networks with and without the way there, FlowNet2, training, and whole extractions.

Nothing where there is no GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.bench import paper_streams
from tristream.bench.inputs import Subject
from tristream.bench.networks import gflop, networks
from tristream.bench.table import Table
from tristream.bench.timing import in_turns

if TYPE_CHECKING:
    import torch

    from tristream.streams.backend import Precision
    from tristream.streams.model import TrainedStream

BATCHES = (8, 32, 128)
N_BATCHES = 4  # that follow one another, so that sending and computing may overlap
PAIR_SIZE = (240, 320)
N_STEPS = 8  # of training
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")


def run(subject: Subject) -> list[Table]:
    """Wall milliseconds, medians of turns."""
    import torch

    if not torch.cuda.is_available():
        return []
    device = torch.device("cuda")
    name = torch.cuda.get_device_name(device)
    return [_networks(subject, device, name), *_flow(subject, device, name), _training(subject, device, name),
            _whole(subject, device, name)]  # fmt: skip


def _networks(subject: Subject, device: torch.device, name: str) -> Table:
    import torch

    from tristream.streams.torch_backend import TorchBackend, autocast

    backend = TorchBackend(device)
    rows: list[tuple[str | float | int | None, ...]] = []
    for network_name, module, example in networks(subject):
        operations = gflop(module.cpu(), example) / len(example)
        expected = (
            TorchBackend(torch.device("cpu")).compile(module, example).submit(example).result()
        )
        for size in BATCHES:
            batch = np.concatenate([example] * (size // len(example)))
            resident = torch.from_numpy(batch).to(device)
            work: dict[str, Callable[[], object]] = {}
            errors = {}
            for precision in PRECISIONS:
                running = backend.compile(module, batch, precision=precision)

                def sent(running: Any = running, batch: np.ndarray = batch) -> None:
                    for future in [running.submit(batch) for _ in range(N_BATCHES)]:
                        future.result()

                def alone(
                    precision: Precision = precision, module: Any = module, resident: Any = resident
                ) -> None:
                    with torch.inference_mode(), autocast(device, precision):
                        for _ in range(N_BATCHES):
                            module(resident)
                    torch.cuda.synchronize()

                work |= {f"{precision} sent": sent, f"{precision} alone": alone}
                found = running.submit(batch).result()[: len(example)]
                errors[precision] = float(
                    np.linalg.norm(found - expected) / np.linalg.norm(expected)
                )
            each = {
                key: 1000 * s / N_BATCHES / size
                for key, s in in_turns(work, subject.repeats).items()
            }
            rows.append(
                (network_name, size, *each.values(), operations / each["float32 alone"], errors["float32"],
                 errors["bf16"])
            )  # fmt: skip
    return Table(
        f"networks on {name}, one item",
        ["network", "batch", "float32, ms", "float32 alone, ms", "bf16, ms", "bf16 alone, ms", "TFLOP/s, float32",
         "error", "error, bf16"],
        rows,
        [f"from arrays in memory to arrays in memory, {N_BATCHES} batches in a row, and the network alone on what is "
         "there already; error: relative to torch's float32 on the CPU; random weights where a network's own are not "
         "there"],
    )  # fmt: skip


def _flow(subject: Subject, device: torch.device, name: str) -> list[Table]:
    import torch

    if importlib.util.find_spec("ptlflow") is None:
        return []
    from tristream.flow import estimators
    from tristream.flow.estimators import flownet
    from tristream.streams.backend import as_function
    from tristream.streams.flow_estimators import PAIRS_ON_A_GPU
    from tristream.streams.torch_backend import TorchBackend

    n_pairs = 2 * PAIRS_ON_A_GPU
    noise = np.random.default_rng(subject.seed).integers(
        0, 256, (n_pairs + 1, 30, 40, 3), dtype=np.uint8
    )
    frames = noise.repeat(8, axis=1).repeat(8, axis=2)
    with torch.random.fork_rng():
        torch.manual_seed(subject.seed)
        stock = flownet.stock("flownet2").eval().to(device)
    backend = TorchBackend(device)

    def in_bf16(module: Any, example: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        network = backend.compile(module, example, precision="bf16")
        return lambda pairs: network.submit(pairs).result()

    def run_stock() -> np.ndarray:
        pictures = (
            torch.from_numpy(frames[..., ::-1].copy()).to(device).permute(0, 3, 1, 2).float() / 255
        )
        pairs = torch.stack([pictures[:-1], pictures[1:]], dim=1)
        with torch.inference_mode():
            return np.concatenate(
                [stock({"images": pair[None]})["flows"][0].cpu().numpy() for pair in pairs]
            )

    load = functools.partial(estimators.load, "flownet2", weights=subject.seed)
    ours = {
        "float32, a pair at a time": load(compile=as_function(backend)),
        f"float32, {PAIRS_ON_A_GPU} pairs at once": load(
            compile=as_function(backend), batch_size=PAIRS_ON_A_GPU
        ),
        f"bf16, {PAIRS_ON_A_GPU} pairs at once": load(compile=in_bf16, batch_size=PAIRS_ON_A_GPU),
    }
    expected = run_stock()
    errors = {
        key: float(np.linalg.norm(estimate(frames) - expected) / np.linalg.norm(expected))
        for key, estimate in ours.items()
    }
    work = {key: functools.partial(estimate, frames) for key, estimate in ours.items()}
    seconds = in_turns({"stock ptlflow": run_stock, **work}, subject.repeats)
    stock_seconds = seconds["stock ptlflow"]
    return [
        Table(
            f"FlowNet2 on {name}, a pair of {PAIR_SIZE[1]}x{PAIR_SIZE[0]}",
            ["engine", "ms", "times as fast as stock", "error"],
            [
                (key, 1000 * s / n_pairs, stock_seconds / s, errors.get(key))
                for key, s in seconds.items()
            ],
            [
                "stock: ptlflow's network in float32 as set here (no TF32), one pair at a time; error: to stock"
            ],
        )
    ]


def _training(subject: Subject, device: torch.device, name: str) -> Table:
    from tristream import streams
    from tristream.streams.segments import Footage

    looking = [part for part in streams.names() if streams.stream_class(part).needs_pictures]
    rows: list[tuple[str | float | int | None, ...]] = []
    for one in (paper_streams.stream(part, subject) for part in looking):
        size = one.config.encoder_training.batch_size
        generator = np.random.default_rng(subject.seed)
        config: Any = one.config
        height, width = config.input_size
        footages = []
        for _ in range(size):
            array: np.ndarray = generator.integers(0, 256, (8, height, width, 3), dtype=np.uint8)
            if hasattr(one.config, "stack_length"):
                array = generator.normal(size=(40, 2, height, width)).astype(np.float16)
            none = np.zeros(len(array))
            footages.append(Footage(array, none, none, np.arange(8)))
        for precision in PRECISIONS:
            rows.append(
                (
                    one.name,
                    size,
                    precision,
                    *_step(one, footages, device, precision, subject.repeats),
                )
            )
    return Table(
        f"a training step on {name}",
        ["stream", "batch", "precision", "batch made, ms", "step alone, ms", "together, ms", "segments/s"],
        rows,
        [f"the paper's networks; together: {N_STEPS} steps in a row as training takes them, the next batch made while "
         "one is learned"],
    )  # fmt: skip


def _step(
    one: TrainedStream,
    footages: list[Any],
    device: torch.device,
    precision: Precision,
    repeats: int,
) -> tuple[float, float, float, float]:
    import torch
    from torch import nn

    from tristream.streams.batches import Batch, made_ahead
    from tristream.streams.torch_backend import autocast, to_device

    module: nn.Module = one.model.encoder.to(device).train()  # type: ignore[attr-defined]
    optimizer = torch.optim.SGD(
        [weight for weight in module.parameters() if weight.requires_grad], 1e-3
    )
    labels, generator = (
        torch.arange(len(footages)) % paper_streams.N_CLASSES,
        np.random.default_rng(0),
    )

    def made() -> torch.Tensor:
        batch = one.stream.training_segments(footages, generator, device)
        torch.cuda.synchronize()
        return batch

    ready = made()

    def learn(segments: torch.Tensor) -> None:
        with autocast(device, precision):
            logits = module(to_device(segments, device))
        loss = nn.functional.cross_entropy(logits.float(), labels.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    def together() -> None:
        batches = (
            Batch((one.stream.training_segments(footages, generator, device),), labels, [])
            for _ in range(N_STEPS)
        )
        for batch in made_ahead(batches):
            learn(batch.inputs[0])

    seconds = in_turns({"made": made, "step": lambda: learn(ready), "together": together}, repeats)
    whole = seconds["together"] / N_STEPS
    return 1000 * seconds["made"], 1000 * seconds["step"], 1000 * whole, len(footages) / whole


def _whole(subject: Subject, device: torch.device, name: str) -> Table:
    from tristream import streams
    from tristream.media.machine import n_cores
    from tristream.store.cache import Cache
    from tristream.streams.backend import Kept
    from tristream.streams.extraction import extract
    from tristream.streams.timings import STAGES, Stages
    from tristream.streams.torch_backend import TorchBackend

    backend = Kept(TorchBackend(device))
    rows: list[tuple[str | float | int | None, ...]] = []
    trained = [paper_streams.stream(part, subject) for part in streams.names()]
    for chosen in [[one] for one in trained] + [trained]:
        label = chosen[0].name if len(chosen) == 1 else "all"
        with paper_streams.decoding() as pool:
            for turn in ("first", "again"):  # the first one also prepares the networks
                stages, cache = Stages(), Cache(subject.scratch / f"gpu-{label}-{turn}")
                begun = time.perf_counter()
                videos = paper_streams.videos(subject.videos, chosen, pool, cache, stages=stages)
                n = len(list(extract(videos, chosen, cache=cache, backend=backend, n_threads=n_cores() + 1,
                                     stages=stages)))  # fmt: skip
                seconds = time.perf_counter() - begun
        rows.append((label, n, seconds, n / seconds, *(stages.seconds[stage] for stage in STAGES)))
    return Table(
        f"whole extractions on {name}",
        ["streams", "videos", "s", "videos/s", *STAGES],
        rows,
        [f"{paper_streams.said(subject, *trained)}; {n_cores()} cores beside it; DIS flow on them; parts are summed "
         "over all threads and overlap"],
    )  # fmt: skip
