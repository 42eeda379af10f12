"""Catalogue of weights: file, sha256, licence and canonical address of each name.

Addresses of a library's own weights come from the installed library; it is asked, never told to download.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tristream.errors import TristreamError

RESEARCH_ONLY = re.compile(
    r"nc\b|non-?commercial|research|apple-amlr|seer-license|nvidia-source", re.IGNORECASE
)
PTLFLOW = "ptlflow:"  # before the name of a network of ptlflow that another library has too
_NAME = re.compile(r"(ptlflow:)?[A-Za-z0-9][A-Za-z0-9_.-]*")
_HUB = "https://huggingface.co/{}/resolve/main/model.safetensors"


class UnknownWeights(TristreamError):
    """Unknown name of weights; the message lists similar ones."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One name.

    Attributes:
        name: used in configurations and on the command line.
        what: description.
        file: its publisher's file name, which is searched in the user's folder.
        sha256: of that file: 64 digits, the first eight where they stand in its name, or "" where nothing is known.
        licence: of the weights, as their publisher names it.
        n_bytes: approximate; 0: unknown.
        library: which installed library knows the address, "" where it stands here.
        address: https; "" where there is none.
        no_address: reason for a missing address.
    """

    name: str
    what: str
    file: str
    sha256: str = ""
    licence: str
    n_bytes: int = 0
    library: Literal["", "timm", "torchvision", "ptlflow"] = ""
    address: str = ""
    no_address: str = "none is known"

    @property
    def research_only(self) -> bool:
        return bool(RESEARCH_ONLY.search(self.licence))

    @property
    def max_bytes(self) -> int:
        """Upper limit of a download."""
        return 2 * self.n_bytes if self.n_bytes else 4 << 30


_FLOWNETS = {  # digits of the checkpoints' sha256, from their names
    "flownet2": ("d63b53a7", 650), "flownets": ("98cde14d", 155), "flownetc": ("cc8ac7fd", 157),
    "flownetcs": ("4bdecffa", 311), "flownetcss": ("b42e67d0", 466), "flownetsd": ("c5f3124e", 182),
}  # fmt: skip
_ALIASES = {"raft": "raft_large"}
_FLOWNET_LICENCE = "research only (NVIDIA)"

TABLE = {
    weight.name: weight
    for weight in (
        Weight(name="inception_resnet_v2", what="InceptionResNetV2, ImageNet, 1536-D (the paper's)",
               file="inception_resnet_v2.safetensors", licence="apache-2.0", n_bytes=224_000_000, library="timm"),
        Weight(name="mobilenet_v2", what="MobileNetV2, ImageNet, 1280-D", file="mobilenet_v2-b0353104.pth",
               sha256="b0353104", licence="bsd-3-clause", n_bytes=14_200_000, library="torchvision"),
        Weight(name="vggish", what="VGGish, AudioSet, 128-D (the paper's)", file="vggish-10086976.pth",
               sha256="10086976", licence="apache-2.0", n_bytes=289_000_000,
               address="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"),
        Weight(name="vggish_pca", what="PCA of VGGish's 8-bit embeddings", file="vggish_pca_params.npz",
               sha256="4d878af3e306defbfb37095365aa7e5a6cecb86bad13e859e626151c4e6a8b9d", licence="apache-2.0",
               n_bytes=73_020, address="https://storage.googleapis.com/audioset/vggish_pca_params.npz"),
        Weight(name="yamnet", what="YAMNet, AudioSet, 1024-D", file="yamnet.tflite",
               sha256="10c95ea3eb9a7bb4cb8bddf6feb023250381008177ac162ce169694d05c317de", licence="apache-2.0",
               n_bytes=4_126_810,
               address="https://tfhub.dev/google/lite-model/yamnet/classification/tflite/1?lite-format=tflite"),
        *(
            Weight(name=name, what="optical flow (the paper's)" if name == "flownet2" else "optical flow",
                   file=f"{name}-things-{digits}.ckpt", sha256=digits, licence=_FLOWNET_LICENCE,
                   n_bytes=megabytes * 1_000_000, library="ptlflow")
            for name, (digits, megabytes) in _FLOWNETS.items()
        ),
        Weight(name="raft_large", what="torchvision's RAFT, optical flow", file="raft_large_C_T_SKHT_V2-ff5fadd5.pth",
               sha256="ff5fadd5", licence="bsd-3-clause", n_bytes=21_000_000, library="torchvision"),
        Weight(name="raft_small", what="torchvision's RAFT, optical flow", file="raft_small_C_T_V2-01064c6d.pth",
               sha256="01064c6d", licence="bsd-3-clause", n_bytes=4_000_000, library="torchvision"),
    )
}  # fmt: skip


def describe(name: str, *, quick: bool = False) -> Weight:
    """Return the weights called `name`: of the table, a network of ptlflow, or a CNN of timm.

    Args:
        name: as users say it; a tag of timm may follow a dot (resnet18.a1_in1k), "ptlflow:" may stand before one of
            its names.
        quick: without asking a library: no address, and of names outside the table nothing but the file's name.

    Raises:
        UnknownWeights: none of them.
    """
    if not _NAME.fullmatch(name):
        raise UnknownWeights(f"weights {name!r}: a name has letters, digits, '_', '.', '-' only")
    name = _ALIASES.get(name, name)
    entry = TABLE.get(name)
    if entry is not None and (quick or not entry.library):
        return entry
    if quick:
        return Weight(name=name, what="", file=f"{name}.safetensors", licence="")
    if entry is not None:
        ask = {"timm": _of_timm, "torchvision": _of_torchvision, "ptlflow": _of_ptlflow}[
            entry.library
        ]
        return _joined(entry, ask(name))
    weight = _of_ptlflow(name) or (None if name.startswith(PTLFLOW) else _of_timm(name))
    if weight is None:
        raise UnknownWeights(_unknown(name))
    return weight


def _joined(entry: Weight, found: Weight | None) -> Weight:
    """Return an entry of the table with the address that its library states."""
    if found is None:
        extra = " (pip install 'tristream[flow]')" if entry.library == "ptlflow" else ""
        return replace(
            entry, no_address=f"{entry.library}, which knows it, is not installed{extra}"
        )
    if entry.sha256 and entry.sha256[:8] not in found.address:
        return replace(
            entry, no_address=f"{entry.library} names another file now ({found.address})"
        )
    return replace(entry, address=found.address, no_address=found.no_address)


def _of_timm(name: str) -> Weight | None:
    if importlib.util.find_spec("timm") is None:
        return None
    import timm

    if not timm.is_model(name):
        return None
    usual = timm.get_pretrained_cfg(name)
    identity = str(usual.hf_hub_id or "") if usual is not None else ""
    direct = str(usual.url or "") if usual is not None else ""
    digits = re.search(r"-([0-9a-f]{8})\.pth$", direct)
    address, sha256 = "", ""
    if identity:
        address = _HUB.format(identity)
    elif direct.startswith("https://"):
        address, sha256 = direct, digits[1] if digits else ""
    return Weight(
        name=name,
        what=f"timm's {identity.removeprefix('timm/') or name}",
        file=f"{name}.safetensors" if identity or not direct else direct.rpartition("/")[2],
        sha256=sha256,
        licence=(usual.license if usual is not None else None) or "not stated",
        library="timm",
        address=address,
        no_address="timm publishes no weights under this name",
    )


def _of_torchvision(name: str) -> Weight | None:
    from torchvision import models

    address = {
        "mobilenet_v2": models.MobileNet_V2_Weights.IMAGENET1K_V1.url,
        "raft_large": models.optical_flow.Raft_Large_Weights.C_T_SKHT_V2.url,
        "raft_small": models.optical_flow.Raft_Small_Weights.C_T_V2.url,
    }[name]
    return replace(TABLE[name], address=address)


def _of_ptlflow(name: str) -> Weight | None:
    """Return an entry from the source text of ptlflow: importing it builds every network, which takes seconds."""
    spec = importlib.util.find_spec("ptlflow")
    if spec is None or spec.origin is None:
        return None
    for checkpoints in _checkpoints(Path(spec.origin).parent / "models"):
        for address in checkpoints.values():
            file = address.rpartition("/")[2]
            stem, _, digits = file.removesuffix(".ckpt").rpartition("-")
            network, _, trained_on = stem.rpartition("-")
            usual = "things" if "things" in checkpoints else next(iter(checkpoints))
            if network == name.removeprefix(PTLFLOW) and trained_on == usual:
                return Weight(
                    name=name,
                    what=f"ptlflow's {network}, trained on {trained_on}, optical flow",
                    file=file,
                    sha256=digits,
                    licence="not stated by ptlflow",
                    library="ptlflow",
                    address=address,
                )
    return None


def _checkpoints(models: Path) -> list[dict[str, str]]:
    """Return every literal {training set: address} that a class of ptlflow calls `pretrained_checkpoints`."""
    checkpoints = []
    for path in sorted(models.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "pretrained_checkpoints" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == "pretrained_checkpoints"
            ):
                try:
                    checkpoints.append(ast.literal_eval(node.value))
                except ValueError:  # computed, not written down
                    continue
    return [entry for entry in checkpoints if isinstance(entry, dict) and entry]


def _unknown(name: str) -> str:
    names = list(TABLE)
    if importlib.util.find_spec("timm") is not None:
        import timm

        names += timm.list_models()
    close = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
    return (
        f"unknown weights '{name}'; available: {', '.join(TABLE)}, and every name of timm and of ptlflow"
        f"{' (like it: ' + ', '.join(close) + ')' if close else ''}"
    )
