"""FlowNet2 on every engine against stock ptlflow, on the same pair and weights; and what its process takes."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
import time
from typing import Any

import numpy as np

from tristream.bench.inputs import Subject
from tristream.bench.table import Table
from tristream.bench.timing import Ran, in_turns, run_child

SIZE = (240, 320)


def run(subject: Subject) -> list[Table]:
    """Return the tables; none without ptlflow or OpenVINO."""
    if not all(importlib.util.find_spec(name) for name in ("ptlflow", "openvino")):
        return []
    cache = str(subject.scratch / "networks-flow")
    _child(cache=cache, seed=subject.seed, repeats=0)
    ran = _child(cache=cache, seed=subject.seed, repeats=0)
    figures = json.loads(
        _child(cache=cache, seed=subject.seed, repeats=subject.repeats).stdout.splitlines()[-1]
    )
    stock = figures["seconds"]["stock ptlflow"]
    rows: list[tuple[str | float | int | None, ...]] = [
        (name, 1000 * seconds, stock / seconds, figures["errors"].get(name))
        for name, seconds in figures["seconds"].items()
    ]
    return [
        Table(
            f"FlowNet2, a pair of {SIZE[1]}x{SIZE[0]}, one core",
            ["engine", "ms", "times as fast as stock", "error"],
            rows,
            [f"processor time; {subject.repeats} turns; random weights (seed {subject.seed}); error: relative to stock",
             "targets: float32 at least 4.5 times, error at most 1e-5; bf16 at least 8 times"],
        ),
        Table(
            "FlowNet2: what its process and its flow take",
            ["what", "here"],
            [("peak memory, MB", ran.peak_bytes / 1e6), ("codec, both ways, ms a pair", 1000 * figures["codec"]),
             ("codec / float32 pair", figures["codec"] / figures["seconds"]["openvino float32"])],
            ["memory: a process that runs it on OpenVINO, converted before; targets: at most 1500 MB, 0.02"],
        ),
    ]  # fmt: skip


def _child(**arguments: Any) -> Ran:
    return run_child(["-m", "tristream.bench.flow_engines", json.dumps(arguments)])


def measure(cache: str, seed: int, repeats: int) -> dict[str, Any]:
    """Seconds of a pair on each engine, one thread; with no repeats only one pair on OpenVINO, for its memory."""
    from pathlib import Path

    import torch

    from tristream.flow import estimators, storage
    from tristream.flow.estimators import flownet
    from tristream.store.cache import Cache
    from tristream.streams.backend import as_function
    from tristream.streams.openvino_backend import OpenVinoBackend
    from tristream.streams.torch_backend import TorchBackend

    torch.set_num_threads(1)
    engine = OpenVinoBackend(cache=Cache(Path(cache)), n_streams=1)
    noise = np.random.default_rng(seed).integers(
        0, 256, (2, SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8
    )
    frames = noise.repeat(8, axis=1).repeat(8, axis=2)

    def in_bf16(backend: Any) -> Any:
        return lambda module, example: _waiting(backend.compile(module, example, precision="bf16"))

    fast = estimators.load("flownet2", weights=seed, compile=as_function(engine))
    if not repeats:
        fast(frames)
        return {}
    cpu = TorchBackend(torch.device("cpu"))
    ours = {
        "torch float32": estimators.load("flownet2", weights=seed, compile=as_function(cpu)),
        "torch bf16": estimators.load("flownet2", weights=seed, compile=in_bf16(cpu)),
        "openvino float32": fast,
        "openvino bf16": estimators.load("flownet2", weights=seed, compile=in_bf16(engine)),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stock = flownet.stock("flownet2").eval()
    pictures = torch.from_numpy(frames[..., ::-1].copy()).permute(0, 3, 1, 2)[None].float() / 255

    def run_stock() -> np.ndarray:
        with torch.inference_mode():
            return stock({"images": pictures})["flows"][0].numpy()

    expected = run_stock()
    errors = {
        name: float(np.linalg.norm(estimate(frames) - expected) / np.linalg.norm(expected))
        for name, estimate in ours.items()
    }
    work = {name: functools.partial(estimate, frames) for name, estimate in ours.items()}
    seconds = in_turns({"stock ptlflow": run_stock, **work}, repeats, clock=time.process_time)
    flow = estimators.load("dis")(frames)
    begun = time.perf_counter()
    for _ in range(20):
        storage.decode_compact(storage.encode_compact(flow))
    return {"seconds": seconds, "errors": errors, "codec": (time.perf_counter() - begun) / 20}


def _waiting(network: Any) -> Any:
    return lambda pair: network.submit(pair).result()


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
