"""tristream doctor: what is installed, what it can do here, and what to do about what is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys

from commands import options, screen

ROOTS = ("commands", "media", "flow", "streams", "store", "fusion", "workshop", "orchestrate")
MIN_FFMPEG = (8, 1, 2)  # CVE-2026-8461 before


@screen.command
def run(as_json: options.Json = False) -> int:
    """Show versions, decoders and devices, and what to do about what is wrong with them.

    Exit code 4 where something must be put right before results can be trusted.
    """
    import torch

    from media.sandbox import isolation
    from store.lineage import versions

    problems = [*_foreign(), *_two_opencvs(), *_old_decoder(), *_old_torch()]
    facts = {
        **versions(),
        "platform": sys.platform,
        "ffmpeg in PyAV (decodes)": _ffmpeg(),
        "devices": ", ".join(_devices()),
        "cpu cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "memory": f"{_memory_gb():.0f} GB",
        "free disk here": f"{shutil.disk_usage('.').free / 1e9:.0f} GB",
        **{f"decode process: {name}": what for name, what in isolation().items()},
    }
    screen.table("tristream doctor", ["what", "found"], [[name, str(value)] for name, value in facts.items()])
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


def _two_opencvs() -> list[str]:
    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
    installed = {d.metadata["Name"].lower() for d in importlib.metadata.distributions() if d.metadata["Name"]}
    there = [name for name in names if name in installed]
    if len(there) < 2:
        return []
    return [
        f"{' and '.join(there)} overwrite each other's files; keep one: pip uninstall {' '.join(there)} && "
        "pip install opencv-python"
    ]


def _ffmpeg() -> str:
    from media.probe import ffmpeg_version

    return ffmpeg_version()


def _old_decoder() -> list[str]:
    found = _ffmpeg()
    numbers = tuple(int(part) for part in found.split("-")[0].lstrip("n").split(".") if part.isdigit())
    if numbers >= MIN_FFMPEG:
        return []
    wanted = ".".join(map(str, MIN_FFMPEG))
    return [f"PyAV decodes with FFmpeg {found}, which has known holes; it must be {wanted} or newer: pip install -U av"]


def _old_torch() -> list[str]:
    version = tuple(int(part) for part in importlib.metadata.version("torch").split("+")[0].split(".")[:2])
    return [] if version >= (2, 10) else [f"torch {version} must be 2.10 or newer: pip install -U torch torchvision"]


def _devices() -> list[str]:
    import torch

    gpus = [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
