"""tristream doctor: show versions, decoders and devices, and the remedy for each problem."""

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
NAME = "tristream"
# Packages with system libraries that may be missing.
LOADED = ("cv2", "av", "torchvision", "pyarrow", "sklearn")
EXTRAS = {  # extra → (imported module, purpose)
    "flow": ("ptlflow", "FlowNet 2.0, RAFT and the other flow networks"),
    "fast": ("openvino", "OpenVINO on Intel CPUs"),
    "tflite": ("ai_edge_litert", "comparing YAMNet with its TFLite runtime"),
    "detectors": ("pyod", "other anomaly detectors"),
    "export": ("faiss", "FAISS indexes and pandas"),
    "figures": ("matplotlib", "figures of the report as files"),
    "umap": ("umap", "UMAP maps in the report"),
    "serve": ("fastapi", "HTTP services"),
    "onnx": ("onnxruntime", "export to ONNX and its check"),
    "docs": ("mkdocs", "the documentation site"),
}


@screen.command
def run(
    weights_dir: options.WeightsDir = None,
    cache: options.CacheDir = options.CACHE,
    as_json: options.Json = False,
) -> int:
    """Show versions, decoders and devices, and the remedy for each problem.

    Exit code 4 if a problem must be solved before results can be trusted.
    """
    screen.begin("checking this environment")
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
        "cpu cores": f"{n_cores()} of {os.cpu_count()} can be used",
        "torch threads": str(torch.get_num_threads()),
        "memory": f"{memory_bytes() / 1e9:.0f} GB; decode processes may use {SHARE_OF_MEMORY:.0%} of it",
        "free disk here": f"{shutil.disk_usage('.').free / 1e9:.0f} GB",
        "weights here": ", ".join(_weights(weights_dir, cache))
        or "none; see tristream weights list",
        **{f"extra {name}": words for name, words in _extras().items()},
        **{f"decode process: {name}": words for name, words in isolation().items()},
    }
    screen.table(
        "tristream doctor", ["fact", "value"], [[name, str(value)] for name, value in facts.items()]
    )
    for problem in problems:
        screen.warn(problem)
    screen.note("no problems" if not problems else f"{len(problems)} problems")
    screen.emit({"facts": facts, "problems": problems}, as_json=as_json)
    return screen.ENVIRONMENT if problems else screen.OK


def _foreign() -> list[str]:
    """Return a problem if another distribution installs files into our package."""
    owners = importlib.metadata.packages_distributions().get(NAME, [])
    others = sorted({name for name in owners if name.lower() != NAME})
    if not others:
        return []
    return [
        f"the package '{others[0]}' installs into the folder '{NAME}' and may overwrite files of "
        "tristream; use an environment of its own, or: "
        f"pip uninstall {others[0]} && pip install --force-reinstall tristream"
    ]


def _elsewhere() -> list[str]:
    """Return a problem if Python imports our package from another place than this file."""
    spec = importlib.util.find_spec(NAME)
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    if origin is None or origin.parent in (HOME, HOME / NAME):  # installed, or a checkout
        return []
    return [
        f"'{NAME}' is imported from {origin.parent}, but this command from {HOME}; start from "
        "another folder, or remove it from PYTHONPATH"
    ]


def _not_loaded() -> list[str]:
    """Return installed libraries that cannot be imported, each with its remedy."""
    problems = []
    for name in LOADED:
        try:
            importlib.import_module(name)
        # torchvision beside another torch raises RuntimeError, an old NumPy ValueError
        except Exception as error:
            remedy = screen.missing_library(error) if isinstance(error, ImportError) else None
            problems.append(remedy or f"{name} cannot be imported: {error}")
    return problems


def _two_opencvs() -> list[str]:
    installed = {
        d.metadata["Name"].lower() for d in importlib.metadata.distributions() if d.metadata["Name"]
    }
    variants = [name for name in OPENCVS if name in installed]
    if len(variants) < 2:
        return []
    return [
        f"{' and '.join(variants)} overwrite each other's files; keep one: "
        f"pip uninstall {' '.join(variants)} && pip install opencv-python"
    ]


def _ffmpeg() -> str:
    from tristream.media.probe import ffmpeg_version

    try:
        return ffmpeg_version()
    except ImportError as error:
        return f"cannot be loaded: {error}"


def _copies() -> list[tuple[str, str]]:
    """Return every FFmpeg of the installed packages; only PyAV's decodes files."""
    from tristream.media.ffmpeg import MIN_FFMPEG, bundled_copies, version_numbers

    rows = []
    for name, version in bundled_copies(Path(folder) for folder in site.getsitepackages()):
        numbers = version_numbers(version)
        old = bool(numbers) and numbers < MIN_FFMPEG
        words = version or "unknown version"
        if old:
            words += " (old, with known vulnerabilities; it decodes nothing here)"
        rows.append((name, words))
    return rows


def _old_decoder() -> list[str]:
    from tristream.media.ffmpeg import fault

    version = _ffmpeg()
    problem = None if version.startswith("cannot") else fault(version)
    return [problem] if problem else []


def _unfit() -> list[str]:
    """Return required packages that are missing or of an unsupported version; extras may be absent."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    problems = []
    for wanted in map(Requirement, _requirements()):
        marker = wanted.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in EXTRAS):
            continue  # tools of developers
        version = version_of(wanted.name)
        if version is None:
            if marker is None:
                problems.append(
                    f"{wanted.name} is not installed: pip install '{wanted.name}{wanted.specifier}'"
                )
        # The base version: NVIDIA's 2.10.0a0+… is a 2.10.0.
        elif not wanted.specifier.contains(Version(version).base_version):
            problems.append(
                f"{wanted.name} {version} is installed; tristream needs {wanted.specifier}: "
                f"pip install '{wanted.name}{wanted.specifier}'"
            )
    return problems


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
    """Return the purpose of each extra, and the command that installs one that is absent."""
    return {
        extra: f"installed: {purpose}"
        if importlib.util.find_spec(module) is not None
        else f"absent; pip install 'tristream[{extra}]' adds {purpose}"
        for extra, (module, purpose) in EXTRAS.items()
    }


def _weights(weights_dir: Path | None, cache: Path) -> list[str]:
    from tristream.pretrained import places
    from tristream.store import weights
    from tristream.store.weights.catalogue import TABLE

    folders = places(weights_dir, cache)
    return [name for name in TABLE if weights.state(name, where=folders)[0] == weights.READY]


def _devices() -> list[str]:
    import torch

    gpus = [
        f"cuda:{index} ({torch.cuda.get_device_name(index)})"
        for index in range(torch.cuda.device_count())
    ]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
