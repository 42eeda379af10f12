"""Workshop-16 and its variants on disk: the list of clips, rendered in parallel as real video files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tristream.errors import TristreamError
from tristream.media.encode import write_bytes, write_video
from tristream.workshop.anomalies import KINDS, NORMAL
from tristream.workshop.classes import CLASSES, SHORT_EVENT_CLASSES, XOR_CLASSES
from tristream.workshop.clips import FPS, SIDE_PX, Recipe, generator, make_clip
from tristream.workshop.sounds import SAMPLE_RATE

# Clips per class in train, val and test (SCIENCE.md §3).
SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (10, 8, 10),
    "small": (20, 8, 10),
    "full": (60, 20, 30),
}
# Of each of the three normal classes, and of each kind of anomaly.
ANOMALY_SIZES: dict[str, tuple[tuple[int, int, int], int]] = {
    "tiny": ((10, 8, 8), 6),
    "small": ((60, 40, 40), 30),
    "full": ((120, 60, 60), 60),
}
XOR_REPEATS = (
    8  # two classes instead of sixteen: eight times as many clips in each make as many in all
)
VARIANTS = ("classes", "short_event", "xor", "anomalies")
SILENCES = ("none", "random", "class_dependent")
SPLITS = ("train", "val", "test")

_RENDERER = 1  # raised by hand whenever the same parameters give other clips
_FACTS = "workshop.json"
_KINDS = "kinds.csv"  # beside videos.csv, whose columns are fixed
_COLUMNS = ["path", "label", "split", "group", "anomaly"]
_BATCH = 8  # clips per task


@dataclass(frozen=True)
class PlannedClip:
    """One row of the data set. key: what its random numbers are drawn from; kind: "normal" or one of KINDS."""

    path: str  # relative to the data set, POSIX; the video_id
    key: str
    recipe: Recipe
    label: str
    split: str
    kind: str = "normal"


def render(
    root: Path,
    *,
    size: str = "small",
    seed: int = 0,
    variant: str = "classes",
    exact_flow: bool = False,
    n_workers: int = 2,
    silence: str = "none",
    silent_fraction: float = 0.0,
    side_px: int = SIDE_PX,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render a data set of 2.4 s videos and return its videos.csv, which is written last.

    What is there already is kept, so a second call is quick and an interrupted one is completed; a larger size adds
    clips. A clip depends on the seed, its variant, class, split and number, on nothing else.

    Args:
        root: gets `<class>/<clip>.mp4`, `videos.csv` (path, label, split, group, anomaly), for anomalies `kinds.csv`
            (see read_kinds) and, with exact_flow, `flow/<class>/<clip>.safetensors`: one tensor `flow`, (T-1, 2, H, W)
            float16 px, 0.9 MB.
        size: tiny, small or full: SIZES, ANOMALY_SIZES.
        variant: classes (the sixteen), short_event (motion in a fifth of the frames), xor (label = parity of material,
            motion and sound), anomalies (normal classes, and test clips of every kind of anomaly).
        n_workers: processes; 1 renders in this one.
        silence: none; random: silent_fraction of the clips, of whatever class, have no audio track;
            class_dependent: only clips whose sound tells something have one.
        progress: called with (clips done, clips in all).

    Raises:
        TristreamError: an unknown size, variant or silence, a fraction that does not fit, or a root that
            holds something else.
    """
    _check_choices(
        size=size,
        variant=variant,
        silence=silence,
        silent_fraction=silent_fraction,
        side_px=side_px,
    )
    clips = plan(size=size, seed=seed, variant=variant)
    identity = {
        "renderer": _RENDERER,
        "seed": seed,
        "variant": variant,
        "silence": silence,
        "silent_fraction": silent_fraction,
        "side_px": side_px,
    }
    _check_root(root, identity)
    root.mkdir(parents=True, exist_ok=True)
    _write_if_changed(root / _FACTS, (json.dumps(identity, indent=1) + "\n").encode())
    jobs = [
        _Job(
            clip,
            side_px=side_px,
            silent=is_silent(clip, silence, silent_fraction),
            exact_flow=exact_flow,
        )
        for clip in clips
    ]
    missing = [job for job in jobs if not job.is_done(root)]
    n_done = len(jobs) - len(missing)
    for folder in {path.parent for job in missing for path in job.outputs(root)}:
        folder.mkdir(parents=True, exist_ok=True)
    for n_new in _render_all(root, missing, n_workers):
        n_done += n_new
        if progress is not None:
            progress(n_done, len(jobs))
    if variant == "anomalies":
        _write_if_changed(root / _KINDS, _table(["path", "kind"], [vars(clip) for clip in clips]))
    manifest = root / "videos.csv"
    _write_if_changed(manifest, _table(_COLUMNS, [_manifest_row(clip, variant) for clip in clips]))
    return manifest


def read_kinds(root: Path) -> dict[str, str]:
    """Return the kind of every video_id of a rendered anomaly variant: "normal" or one of workshop.anomalies.KINDS.

    Raises:
        FileNotFoundError: the variant is not rendered there.
    """
    with (root / _KINDS).open(encoding="utf-8", newline="") as file:
        return {row["path"]: row["kind"] for row in csv.DictReader(file)}


def plan(*, size: str = "small", seed: int = 0, variant: str = "classes") -> list[PlannedClip]:
    """Return every clip of a data set in the order of its videos.csv; nothing is rendered."""
    if variant == "anomalies":
        counts, n_per_kind = ANOMALY_SIZES[size]
        normal = _plan_classes(
            {label: (recipe,) for label, recipe in NORMAL.items()}, counts, seed, variant
        )
        return normal + _plan_anomalies(n_per_kind, seed)
    if variant == "xor":
        n_train, n_val, n_test = (XOR_REPEATS * n for n in SIZES[size])
        return _plan_classes(XOR_CLASSES, (n_train, n_val, n_test), seed, variant)
    classes = SHORT_EVENT_CLASSES if variant == "short_event" else CLASSES
    return _plan_classes(
        {label: (recipe,) for label, recipe in classes.items()}, SIZES[size], seed, variant
    )


def is_silent(clip: PlannedClip, silence: str, silent_fraction: float) -> bool:
    """True if this clip has no audio track."""
    if silence == "class_dependent":
        return clip.recipe.sound == "neutral"
    return silence == "random" and bool(generator(clip.key, "silence").uniform() < silent_fraction)


def _plan_classes(
    classes: dict[str, tuple[Recipe, ...]], counts: tuple[int, int, int], seed: int, variant: str
) -> list[PlannedClip]:
    return [
        PlannedClip(
            path=f"{label}/{split}_{index:03d}.mp4",
            key=f"{seed}:{variant}:{label}:{split}:{index}",
            recipe=recipes[index % len(recipes)],
            label=label,
            split=split,
        )
        for label, recipes in classes.items()
        for split, count in zip(SPLITS, counts, strict=True)
        for index in range(count)
    ]


def _plan_anomalies(n_per_kind: int, seed: int) -> list[PlannedClip]:
    clips = []
    for kind, recipes_of in KINDS.items():
        labels = list(recipes_of)
        for index in range(n_per_kind):
            label = labels[index % len(labels)]
            recipes = recipes_of[label]
            clips.append(
                PlannedClip(
                    path=f"{label}/{kind}_{index:03d}.mp4",
                    key=f"{seed}:anomalies:{label}:{kind}:{index}",
                    recipe=recipes[index // len(labels) % len(recipes)],
                    label=label,
                    split="test",
                    kind=kind,
                )
            )
    return clips


@dataclass(frozen=True)
class _Job:
    clip: PlannedClip
    side_px: int
    silent: bool
    exact_flow: bool

    def outputs(self, root: Path) -> list[Path]:
        video = root / self.clip.path
        flow = (root / "flow" / self.clip.path).with_suffix(".safetensors")
        return [video, flow] if self.exact_flow else [video]

    def is_done(self, root: Path) -> bool:
        return all(path.exists() for path in self.outputs(root))  # files appear whole or not at all

    def run(self, root: Path) -> None:
        clip = make_clip(
            self.clip.recipe, self.clip.key, side_px=self.side_px, with_flow=self.exact_flow
        )
        video, *flow = self.outputs(root)
        for path in flow:
            from safetensors.numpy import save

            assert clip.flow is not None
            write_bytes(path, save({"flow": clip.flow.astype(np.float16)}))
        samples = None if self.silent else clip.samples
        write_video(video, clip.frames, fps=FPS, samples=samples, sample_rate=SAMPLE_RATE)


def _render_all(root: Path, jobs: list[_Job], n_workers: int) -> Iterator[int]:
    """Run the jobs; yield the number of newly finished ones."""
    if n_workers <= 1 or len(jobs) <= 2 * _BATCH:  # starting processes takes longer than that
        for job in jobs:
            job.run(root)
            yield 1
        return
    import joblib

    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]
    tasks = (joblib.delayed(_render_batch)(root, batch) for batch in batches)
    yield from joblib.Parallel(n_jobs=n_workers, backend="loky", return_as="generator_unordered")(
        tasks
    )


def _render_batch(root: Path, jobs: list[_Job]) -> int:
    import cv2

    cv2.setNumThreads(1)  # this process is one of n_workers
    for job in jobs:
        job.run(root)
    return len(jobs)


def _manifest_row(clip: PlannedClip, variant: str) -> dict[str, object]:
    return {
        "path": clip.path,
        "label": clip.label,
        "split": clip.split,
        "group": clip.path.removesuffix(".mp4"),  # every clip is a source of its own
        "anomaly": int(clip.kind != "normal") if variant == "anomalies" else "",
    }


def _table(columns: list[str], rows: list[dict[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _write_if_changed(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)


def _check_choices(
    *, size: str, variant: str, silence: str, silent_fraction: float, side_px: int
) -> None:
    for name, value, available in (
        ("size", size, tuple(SIZES)),
        ("variant", variant, VARIANTS),
        ("silence", silence, SILENCES),
    ):
        if value not in available:
            raise TristreamError(f"unknown {name} {value!r}; available: {', '.join(available)}")
    if silence == "random" and not 0 < silent_fraction <= 1:
        raise TristreamError(
            f"silent_fraction is {silent_fraction}; with silence='random' it must be in (0, 1]"
        )
    if silence != "random" and silent_fraction != 0:
        raise TristreamError(
            f"silent_fraction is {silent_fraction} but silence is {silence!r}; it needs silence='random'"
        )
    if side_px < 48 or side_px % 2:
        raise TristreamError(f"side_px is {side_px}; it must be even and at least 48")


def _check_root(root: Path, identity: dict) -> None:
    facts = root / _FACTS
    if not facts.exists():
        if (root / "videos.csv").exists():
            raise TristreamError(
                f"{root} holds a videos.csv that the workshop did not write; choose another folder"
            )
        return
    try:
        rendered = json.loads(facts.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TristreamError(
            f"{facts} cannot be read ({error}); delete {root} or choose another folder"
        ) from error
    differences = [
        f"{key}={rendered.get(key)}, not {value}"
        for key, value in identity.items()
        if rendered.get(key) != value
    ]
    if differences:
        raise TristreamError(
            f"{root} was rendered with {'; '.join(differences)}; delete it or choose another folder"
        )
