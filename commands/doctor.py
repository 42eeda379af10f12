"""tristream doctor: what is installed, what it can do here, and what to do about what is wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import site
import sys
import tomllib
from pathlib import Path

from tristream.commands import options, screen
from tristream.store.lineage import OPENCVS, version_of

HOME = Path(__file__).parents[1]
ROOTS = (
    "commands",
    "media",
    "flow",
    "streams",
    "store",
    "fusion",
    "report",
    "workshop",
    "bench",
    "orchestrate",
)
LOADED = (
    "cv2",
    "av",
    "torchvision",
    "pyarrow",
    "sklearn",
)  # with libraries of their own that a system may lack
EXTRAS = {  # extra → (what is imported, what it adds)
    "flow": ("ptlflow", "FlowNet 2.0, RAFT and the other flow networks"),
    "fast": ("openvino", "OpenVINO on Intel CPUs"),
    "tflite": ("ai_edge_litert", "comparing YAMNet with its TFLite runtime"),
    "detectors": ("pyod", "other anomaly detectors"),
    "export": ("faiss", "FAISS indexes and pandas"),
    "figures": ("matplotlib", "figures of the report as files"),
    "umap": ("umap", "UMAP maps in the report"),
}


@screen.command
def run(
    weights_dir: options.WeightsDir = None,
    cache: options.CacheDir = options.CACHE,
    as_json: options.Json = False,
) -> int:
    """Show versions, decoders and devices, and what to do about what is wrong with them.

    Exit code 4 where something must be put right before results can be trusted.
    """
    import torch

    from tristream.media.machine import memory_bytes, n_cores
    from tristream.media.sandbox.pool import SHARE_OF_MEMORY, isolation
    from tristream.store.lineage import versions

    problems = [
        *_foreign(),
        *_elsewhere(),
        *_not_loaded(),
        *_two_opencvs(),
        *_old_decoder(),
        *_unfit(),
    ]
    facts = {
        **versions(),
        "platform": sys.platform,
        "ffmpeg in PyAV (decodes)": _ffmpeg(),
        **{f"ffmpeg in {name}": version for name, version in _copies()},
        "devices": ", ".join(_devices()),
        "cpu cores": f"{n_cores()} of {os.cpu_count()} may be used",
        "torch threads": str(torch.get_num_threads()),
        "memory": f"{memory_bytes() / 1e9:.0f} GB; decode processes may use {SHARE_OF_MEMORY:.0%} of it",
        "free disk here": f"{shutil.disk_usage('.').free / 1e9:.0f} GB",
        "weights here": ", ".join(_weights(weights_dir, cache))
        or "none; see tristream weights list",
        **{f"extra {name}": what for name, what in _extras().items()},
        **{f"decode process: {name}": what for name, what in isolation().items()},
    }
    screen.table(
        "tristream doctor", ["what", "found"], [[name, str(value)] for name, value in facts.items()]
    )
    for problem in problems:
        screen.warn(problem)
    screen.note("nothing is wrong" if not problems else f"{len(problems)} things to put right")
    screen.emit({"facts": facts, "problems": problems}, as_json=as_json)
    return screen.ENVIRONMENT if problems else screen.OK


def _foreign() -> list[str]:
    """Other distributions that install into our folders' names."""
    owners = importlib.metadata.packages_distributions()
    found = []
    for root in ROOTS:
        others = sorted({name for name in owners.get(root, []) if name.lower() != "tristream"})
        if others:
            found.append(
                f"the package '{others[0]}' installs into our folder '{root}' and may overwrite it; use an "
                f"environment of its own, or: pip uninstall {others[0]} && pip install --force-reinstall tristream"
            )
    return found


def _elsewhere() -> list[str]:
    """Our names that Python finds in another place than this file's."""
    found = []
    for root in ROOTS:
        spec = importlib.util.find_spec(root)
        origin = Path(spec.origin) if spec is not None and spec.origin else None
        if origin is not None and HOME not in origin.parents:
            found.append(
                f"'{root}' is imported from {origin.parent}, not from {HOME}; start from another folder, or remove it "
                "from PYTHONPATH"
            )
    return found


def _not_loaded() -> list[str]:
    """Libraries that are installed and cannot be imported."""
    found = []
    for name in LOADED:
        try:
            importlib.import_module(name)
        except (
            Exception
        ) as error:  # torchvision beside another torch raises RuntimeError, an old NumPy ValueError
            lacks = screen.missing_library(error) if isinstance(error, ImportError) else None
            found.append(lacks or f"{name} cannot be imported: {error}")
    return found


def _two_opencvs() -> list[str]:
    installed = {
        d.metadata["Name"].lower() for d in importlib.metadata.distributions() if d.metadata["Name"]
    }
    there = [name for name in OPENCVS if name in installed]
    if len(there) < 2:
        return []
    return [
        f"{' and '.join(there)} overwrite each other's files; keep one: pip uninstall {' '.join(there)} && "
        "pip install opencv-python"
    ]


def _ffmpeg() -> str:
    from tristream.media.probe import ffmpeg_version

    try:
        return ffmpeg_version()
    except ImportError as error:
        return f"cannot be loaded: {error}"


def _copies() -> list[tuple[str, str]]:
    """Every FFmpeg in the installed packages; only PyAV's is ever given a file."""
    from tristream.media.ffmpeg import MIN_FFMPEG, bundled_copies, version_numbers

    rows = []
    for name, version in bundled_copies(Path(folder) for folder in site.getsitepackages()):
        numbers = version_numbers(version)
        old = bool(numbers) and numbers < MIN_FFMPEG
        known = version or "a version it does not tell"
        rows.append(
            (name, f"{known} (old, with known holes; it decodes nothing here)" if old else known)
        )
    return rows


def _old_decoder() -> list[str]:
    from tristream.media.ffmpeg import fault

    found = _ffmpeg()
    return [sentence] if not found.startswith("cannot") and (sentence := fault(found)) else []


def _unfit() -> list[str]:
    """Packages of another version than tristream was made for, and those that it lacks; extras may be absent."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    found = []
    for wanted in map(Requirement, _requirements()):
        marker = wanted.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in EXTRAS):
            continue  # tools of who develops it
        version = version_of(wanted.name)
        if version is None:
            if marker is None:
                found.append(
                    f"{wanted.name} is not installed: pip install '{wanted.name}{wanted.specifier}'"
                )
        elif not wanted.specifier.contains(
            Version(version).base_version
        ):  # NVIDIA's 2.10.0a0+… is a 2.10.0
            found.append(
                f"{wanted.name} {version} is installed; tristream is made for {wanted.specifier}: "
                f"pip install '{wanted.name}{wanted.specifier}'"
            )
    return found


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("tristream") or []
    except importlib.metadata.PackageNotFoundError:  # run from its folder, not installed
        file = HOME / "pyproject.toml"
        return (
            tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
            if file.exists()
            else []
        )


def _extras() -> dict[str, str]:
    """What each extra adds, and how to get one that is absent."""
    found = {}
    for extra, (module, adds) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        found[extra] = (
            f"installed: {adds}"
            if there
            else f"absent; pip install 'tristream[{extra}]' adds {adds}"
        )
    return found


def _weights(weights_dir: Path | None, cache: Path) -> list[str]:
    from tristream.pretrained import places
    from tristream.store import weights
    from tristream.store.weights.catalogue import TABLE

    where = places(weights_dir, cache)
    return [name for name in TABLE if weights.state(name, where=where)[0] == weights.READY]


def _devices() -> list[str]:
    import torch

    gpus = [
        f"cuda:{index} ({torch.cuda.get_device_name(index)})"
        for index in range(torch.cuda.device_count())
    ]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
