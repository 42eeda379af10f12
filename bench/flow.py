"""Flow against the truth, per estimator; what it takes on disk; FlowNet2 with either correlation."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from tristream.bench.inputs import Subject
from tristream.bench.table import Table
from tristream.bench.timing import in_turns
from tristream.errors import TristreamError

WORKSHOP_SIDE_PX = 96
WORKSHOP_STEPS = (5, 20, 35, 50)  # of each clip's 59
FLOWNET_SIZE = (240, 320)
STORAGE_BOUND_PX = 20.0
PAIR_SUFFIXES = ("-img0.png", "-img1.png", "-gt.flo")  # FlyingChairs' names


@dataclass(frozen=True)
class Pair:
    """Two RGB pictures and the flow from the first to the second, px."""

    frames: UInt8[np.ndarray, "2 H W 3"]
    truth: Float[np.ndarray, "2 H W"]


def run(subject: Subject) -> list[Table]:
    """Accuracy on the user's pairs and on the workshop's exact flow, storage, and the speed of FlowNet2."""
    sets = {"the workshop's exact flow": list(workshop_pairs())}
    if subject.flow_pairs is not None:
        sets[f"{subject.flow_pairs.name}"] = list(read_pairs(subject.flow_pairs))
    tables = [accuracy(name, pairs, subject) for name, pairs in reversed(sets.items())]
    fields = np.stack([pair.truth for pair in list(sets.values())[-1]])
    tables.append(storage_table(list(sets)[-1], fields))
    if importlib.util.find_spec("ptlflow") is not None:
        tables.append(flownet2_table(subject))
    return tables


def read_pairs(folder: Path) -> Iterator[Pair]:
    """Pairs called NAME-img0.png, NAME-img1.png, NAME-gt.flo.

    Raises:
        TristreamError: there is none, or one of its pictures cannot be read.
    """
    import cv2

    from tristream.flow.storage import read_flo

    before, after, truth = PAIR_SUFFIXES
    names = sorted(path.name.removesuffix(truth) for path in folder.glob(f"*{truth}"))
    if not names:
        raise TristreamError(
            f"{folder} holds no NAME{truth} with NAME{before} and NAME{after} beside it"
        )
    for name in names:
        pictures = []
        for path in (folder / f"{name}{before}", folder / f"{name}{after}"):
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
            if picture is None:
                raise TristreamError(
                    f"{path} is not a picture that can be read; each {name}{truth} needs both of its pair"
                )
            pictures.append(picture)
        yield Pair(
            np.stack(pictures).astype(np.uint8, copy=False), read_flo(folder / f"{name}{truth}")
        )


def workshop_pairs() -> Iterator[Pair]:
    """A few pairs of the first test clip of every class; the frame is a torus."""
    from tristream.workshop.clips import make_clip
    from tristream.workshop.dataset import plan

    seen: set[str] = set()
    for planned in plan(size="tiny"):
        if planned.split == "test" and planned.label not in seen:
            seen.add(planned.label)
            clip = make_clip(planned.recipe, planned.key, side_px=WORKSHOP_SIDE_PX, with_flow=True)
            assert clip.flow is not None
            for t in WORKSHOP_STEPS:
                yield Pair(clip.frames[t : t + 2], clip.flow[t])


def accuracy(name: str, pairs: list[Pair], subject: Subject) -> Table:
    """One row for every estimator that has its weights."""
    from tristream.flow.errors import measure

    estimators, missing = ready(subject)
    still = np.stack([np.zeros_like(pair.truth) for pair in pairs])
    truth = np.stack([pair.truth for pair in pairs])
    seconds = in_turns(
        {key: functools.partial(estimate, pairs[0].frames) for key, estimate in estimators.items()},
        subject.repeats,
    )
    rows: list[list[str | float | int | None]] = []
    flows: dict[str, np.ndarray] = {"no motion": still}
    flows |= {
        key: np.stack([estimate(pair.frames)[0] for pair in pairs])
        for key, estimate in estimators.items()
    }
    for key, flow in flows.items():
        errors = measure(flow, truth)
        shares = (errors.above_1_px, errors.above_3_px, errors.above_5_px, errors.fl_all)
        rows.append(
            [
                key,
                errors.endpoint_px,
                *(100 * share for share in shares),
                _milliseconds(seconds.get(key)),
            ]
        )
    height, width = truth.shape[2:]
    notes = [
        f"{len(pairs)} pairs of {width} x {height} px, all pixels whose truth is known; ms of one pair"
    ]
    if missing:
        notes.append(f"no weights here, so no row: {', '.join(missing)}")
    header = [
        "estimator",
        "EPE, px",
        "> 1 px, %",
        "> 3 px, %",
        "> 5 px, %",
        "Fl-all, %",
        "ms a pair",
    ]
    return Table(f"flow: {name}", header, rows, notes)


def ready(subject: Subject) -> tuple[dict[str, Any], list[str]]:
    """Return the estimators that can be measured here, and the names of those whose weights are missing."""
    from tristream.flow import estimators
    from tristream.store import weights

    places = weights.places(subject.weights_dir)
    found, missing = {}, []
    for name in estimators.names():
        if estimators.is_learned(name):
            state, path = weights.state(estimators.weights_name(name), where=places)
            if state != weights.READY:
                missing.append(name)
                continue
            found[name] = estimators.load(name, weights=path)
        elif estimators.load(name).name == name:  # no second name of another
            found[name] = estimators.load(name)
    return found, missing


def storage_table(name: str, fields: Float[np.ndarray, "fields 2 H W"]) -> Table:
    """Return size and error of a field in every storage format."""
    from tristream.flow import storage

    n_fields, _, height, width = fields.shape
    own_bound = storage.fitted_bound(fields)

    def eight_bits(bound: Any) -> tuple[int, np.ndarray]:
        codes = storage.encode_uint8(fields, bound)
        return codes.nbytes, storage.decode_uint8(codes, bound)

    compact = storage.encode_compact(fields)
    ways: dict[str, tuple[int, np.ndarray]] = {
        ".flo, float32": (fields.nbytes + 12 * n_fields, fields),
        "float16": (fields.nbytes // 2, fields.astype(np.float16).astype(np.float32)),
        "8 bits, ± 20 px": eight_bits(STORAGE_BOUND_PX),
        "8 bits, own scale of each field": eight_bits(own_bound),
        "KITTI png": _as_files(fields, storage.write_kitti, storage.read_kitti),
        "our cache (1/64 px, zstd)": (compact.nbytes, storage.decode_compact(compact)),
    }
    rows: list[list[str | float | int | None]] = []
    for way, (n_bytes, back) in ways.items():
        off = np.linalg.norm((back - fields).astype(np.float64), axis=1)
        rows.append([way, n_bytes / n_fields / 1000, float(off.max()), float(off.mean())])
    notes = [
        f"true flow of {name}: {n_fields} fields of {width} x {height} px, longest {np.abs(fields).max():.1f} px"
    ]
    return Table(
        "flow on disk", ["form", "kB a field", "worst error, px", "mean error, px"], rows, notes
    )


def _as_files(
    fields: Float[np.ndarray, "fields 2 H W"],
    write: Callable[[Path, np.ndarray], None],
    read: Callable[[Path], Any],
) -> tuple[int, np.ndarray]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{t}.png" for t in range(len(fields))]
        for path, field in zip(paths, fields, strict=True):
            write(path, field)
        return sum(path.stat().st_size for path in paths), np.stack([read(path) for path in paths])


def flownet2_table(subject: Subject) -> Table:
    """ptlflow's own FlowNet2 against ours on the same weights, in turns, one thread."""
    import torch

    from tristream.flow import estimators
    from tristream.flow.estimators import flownet

    ours = estimators.load("flownet2", weights=subject.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        stock = flownet.stock("flownet2").eval()
    height, width = FLOWNET_SIZE
    noise = np.random.default_rng(subject.seed).integers(
        0, 256, (2, height // 8, width // 8, 3), dtype=np.uint8
    )
    frames = noise.repeat(8, axis=1).repeat(8, axis=2)
    pictures = torch.from_numpy(frames[..., ::-1].copy()).permute(0, 3, 1, 2)[None].float() / 255

    def run_stock() -> np.ndarray:
        with torch.inference_mode():
            return stock({"images": pictures})["flows"][0].numpy()

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = in_turns({"ptlflow": run_stock, "ours": lambda: ours(frames)}, subject.repeats)
        wanted, computed = run_stock(), ours(frames)
    finally:
        torch.set_num_threads(n_threads)
    error = float(np.abs(computed - wanted).max() / np.abs(wanted).max())
    rows: list[list[str | float | int | None]] = [
        ["ptlflow, its correlation in Python", _milliseconds(seconds["ptlflow"]), 1.0, None],
        ["ours", _milliseconds(seconds["ours"]), seconds["ptlflow"] / seconds["ours"], error],
    ]
    notes = [
        f"one pair of {width} x {height} px, torch, one thread, {subject.repeats} turns; random weights (seed "
        f"{subject.seed}): as fast as trained ones",
        "target: at least 2.4 times as fast",
    ]
    return Table(
        "FlowNet2",
        ["network", "ms a pair", "times as fast", "largest error / largest flow"],
        rows,
        notes,
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds
