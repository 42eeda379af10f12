"""Named pretrained weights: one name, one file, one sha256, several places; what is returned was checked.

    weights.get("yamnet")  →  the path of a safetensors file; what is known about it stands in the JSON beside it

Places in order: a folder the user names, the cache (filled by an earlier call or by `add`), the canonical address.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tristream.errors import TristreamError
from tristream.store.atomic import write_bytes
from tristream.store.weights import convert
from tristream.store.weights.catalogue import Weight, describe
from tristream.store.weights.convert import ImportRefused, sha256_of, to_safetensors
from tristream.store.weights.download import DownloadFailed, Progress, download

READY = "yes, checked"
Say = Callable[[str], None]


class Missing(TristreamError):
    """Weights that no place has, or whose licence was not accepted; the message says what to do.

    Attributes:
        network: a place could not be reached; another try may help.
    """

    def __init__(self, sentence: str, *, network: bool = False) -> None:
        super().__init__(sentence)
        self.network = network


@dataclass(frozen=True)
class Places:
    """Places where weights are searched and stored.

    Attributes:
        weights_dir: the user's own folder; nothing is written into it.
        cache: filled by downloads and by `add`.
    """

    weights_dir: Path | None
    cache: Path


def places(weights_dir: Path | None = None, cache: Path | None = None) -> Places:
    """The places in force: what is given, else TRISTREAM_WEIGHTS and TRISTREAM_CACHE/weights, else the user's cache."""
    if weights_dir is None and os.environ.get("TRISTREAM_WEIGHTS"):
        weights_dir = Path(os.environ["TRISTREAM_WEIGHTS"])
    if cache is None:
        shared = os.environ.get("TRISTREAM_CACHE")
        cache = Path(shared) / "weights" if shared else _platform_cache() / "tristream" / "weights"
    return Places(weights_dir, cache)


def _platform_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def get(
    name: str,
    *,
    where: Places | None = None,
    accept_licence: bool = False,
    say: Say | None = None,
    progress: Progress | None = None,
) -> Path:
    """The weights called `name` as a safetensors file whose sha256 was checked now.

    Args:
        name: see `store.weights.catalogue`.
        where: `places()` where not given.
        accept_licence: of research-only weights; remembered.
        say: called with one sentence (source, sha256, licence) when weights are used for the first time.
        progress: of a download.

    Raises:
        Missing: no place has them; each place with its reason, and the ways out.
        UnknownWeights: no such name.
    """
    weight, where = describe(name), where or places()
    _check_licence(weight, where, accept_licence)
    tried: list[str] = []
    for look in (_in_folder, _in_cache):
        if (path := look(weight, where, tried, say)) is not None:
            return path
    return _from_address(weight, where, tried, say, progress)


def state(name: str, *, where: Places | None = None) -> tuple[str, Path | None]:
    """Return the state of weights and their file: READY, "file, not checked yet", "corrupt" or "missing"."""
    weight, where = describe(name, quick=True), where or places()
    wrong: list[str] = []
    for folder in (where.weights_dir, where.cache):
        if folder is not None and _is_whole(folder, weight, wrong):
            return READY, _stored(folder, weight.name)
    if wrong:
        return "corrupt", _stored(where.cache, weight.name)
    for file in _candidates(where.weights_dir, weight):
        if file.is_file():
            return "file, not checked yet", file
    return "missing", None


def _candidates(folder: Path | None, weight: Weight) -> list[Path]:
    """Return the possible paths of these weights in a folder."""
    if folder is None:
        return []
    return [
        folder / name for name in dict.fromkeys((weight.file, _stored(folder, weight.name).name))
    ]


def about(path: Path) -> dict[str, Any]:
    """Return the facts stored beside a safetensors file: name, source, sha256, original_sha256, licence, …

    Of a file that is not ours: its sha256 alone.
    """
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"sha256": sha256_of(path)}
    return facts if isinstance(facts, dict) and "sha256" in facts else {"sha256": sha256_of(path)}


def add(
    file: Path,
    name: str,
    *,
    where: Places | None = None,
    accept_licence: bool = False,
    say: Say | None = None,
) -> Path:
    """Take a file the user has as the weights called `name`; where no sha256 is known, this one is from now on.

    Raises:
        Missing: another file than the one of that name, or a licence that was not accepted.
        ImportRefused: no weights, or more than plain tensors.
        FileNotFoundError: no such file.
    """
    weight, where = describe(name), where or places()
    _check_licence(weight, where, accept_licence)
    digest = sha256_of(file)
    if not digest.startswith(weight.sha256):
        raise Missing(
            f"{file} is not the file of '{name}' ({weight.file}): its sha256 is {digest}, it must {_must_be(weight)}"
        )
    before = _pinned(where, weight).get("original_sha256", digest)
    if before != digest and say is not None:
        say(f"weights '{name}': this file takes the place of the one with sha256 {before}")
    return _take(weight, file, digest, str(file), where, say)


def _check_licence(weight: Weight, where: Places, accept: bool) -> None:
    """Research-only weights are used by people who have said yes once."""
    if not weight.research_only:
        return
    record = where.cache / "licences.json"
    try:
        accepted = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        accepted = {}
    if accepted.get(weight.name) == weight.licence:
        return
    if not accept:
        raise Missing(
            f"weights '{weight.name}' have the licence '{weight.licence}': accept it once, where it allows your use, "
            f"with: tristream weights get {weight.name} --accept-licence"
        )
    write_bytes(
        record, (json.dumps({**accepted, weight.name: weight.licence}, indent=1) + "\n").encode()
    )


def _stored(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(':', '-')}.safetensors"


def _is_whole(folder: Path, weight: Weight, tried: list[str]) -> bool:
    """True if a folder holds both files of stored weights, unchanged."""
    path = _stored(folder, weight.name)
    known = path.with_suffix(".json")
    if not path.exists() or not known.exists():
        return False
    beside = about(path)
    original = str(beside.get("original_sha256", ""))
    if not original.startswith(weight.sha256):
        tried.append(
            f"{path}: made from a file with sha256 {original or 'unknown'}; it must {_must_be(weight)}"
        )
        return False
    if (digest := sha256_of(path)) != beside["sha256"]:
        tried.append(
            f"{path}: corrupt, its sha256 is {digest}, {known.name} says {beside['sha256']}"
        )
        return False
    return True


def _in_folder(weight: Weight, where: Places, tried: list[str], say: Say | None) -> Path | None:
    folder = where.weights_dir
    if folder is None:
        tried.append("--weights-dir (or TRISTREAM_WEIGHTS): not given")
        return None
    if not folder.is_dir():
        tried.append(f"--weights-dir {folder}: no such folder")
        return None
    if _is_whole(folder, weight, tried):
        return _stored(folder, weight.name)
    candidates = _candidates(folder, weight)
    there = [file for file in candidates if file.is_file()]
    for file in there:
        digest = sha256_of(file)
        if not digest.startswith(weight.sha256):
            tried.append(f"{file}: its sha256 is {digest}; it must {_must_be(weight)}")
            continue
        stored = _stored(where.cache, weight.name)
        if _about_or_none(stored).get("original_sha256") == digest and _is_whole(
            where.cache, weight, []
        ):
            return stored
        return _take(weight, file, digest, str(file), where, say)
    if not there:
        tried.append(
            f"--weights-dir {folder}: holds no {' and no '.join(file.name for file in candidates)}"
        )
    return None


def _about_or_none(path: Path) -> dict[str, Any]:
    """`about`, and nothing where there is no such file."""
    return about(path) if path.exists() else {}


def _in_cache(weight: Weight, where: Places, tried: list[str], say: Say | None) -> Path | None:
    n = len(tried)
    if _is_whole(where.cache, weight, tried):
        return _stored(where.cache, weight.name)
    if len(tried) == n:
        tried.append(f"cache {where.cache}: not there")
    return None


def _from_address(
    weight: Weight, where: Places, tried: list[str], say: Say | None, progress: Progress | None
) -> Path:
    network = False
    if not weight.address:
        tried.append(f"no canonical address: {weight.no_address}")
    elif not weight.sha256 and not weight.address.endswith(".safetensors"):
        tried.append(
            f"{weight.address}: no sha256 is known for it, and its format may hold more than tensors"
        )
    else:
        pinned = weight.sha256 or str(_pinned(where, weight).get("original_sha256", ""))
        where.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=where.cache, prefix=".tmp-") as folder:
            file = Path(folder) / "download"
            try:
                with file.open("wb") as target:
                    digest = download(
                        weight.address,
                        target,
                        sha256=pinned,
                        max_bytes=weight.max_bytes,
                        progress=progress,
                    )
                return _take(weight, file, digest, weight.address, where, say)
            except DownloadFailed as error:
                tried.append(f"{weight.address}: {error}")
                network = error.network
            except ImportRefused as error:
                tried.append(f"{weight.address}: {str(error).replace(str(file), 'what came')}")
    raise Missing(_sentence(weight, tried), network=network)


def _pinned(where: Places, weight: Weight) -> dict[str, Any]:
    """Return the facts of weights seen before: the same sha256 must come again."""
    try:
        return dict(
            json.loads(
                _stored(where.cache, weight.name).with_suffix(".json").read_text(encoding="utf-8")
            )
        )
    except (OSError, ValueError):
        return {}


def _take(
    weight: Weight, file: Path, original_sha256: str, source: str, where: Places, say: Say | None
) -> Path:
    """Imports a file into the cache: safetensors, and what is known about it as JSON."""
    path = _stored(where.cache, weight.name)
    original_format = convert.format_of(file)
    metadata = to_safetensors(file, path)
    beside = {
        "name": weight.name,
        "what": weight.what,
        "source": source,
        "file": weight.file,
        "original_sha256": original_sha256,
        "original_bytes": file.stat().st_size,
        "original_format": original_format,
        "licence": weight.licence,
        "research_only": weight.research_only,
        "sha256": sha256_of(path),
        **{key: json.loads(text) for key, text in metadata.items() if key == "graph"},
    }
    write_bytes(
        path.with_suffix(".json"), (json.dumps(beside, indent=1, sort_keys=True) + "\n").encode()
    )
    if say is not None:
        say(
            f"weights '{weight.name}': from {source}, sha256 {original_sha256}, licence {weight.licence}; "
            f"kept as {path}"
        )
    return path


def _must_be(weight: Weight) -> str:
    return f"be {weight.sha256}" if len(weight.sha256) == 64 else f"begin with {weight.sha256}"


def _sentence(weight: Weight, tried: list[str]) -> str:
    known = (
        f"sha256 {weight.sha256}{'' if len(weight.sha256) == 64 else '…'}"
        if weight.sha256
        else "sha256 not known"
    )
    return "\n".join(
        [
            f"weights '{weight.name}' ({weight.what}; file {weight.file}, {known}, licence {weight.licence}) are not "
            "here:",
            *(f"  {line}" for line in tried),
            f"Take in a file you have: tristream weights add FILE --as {weight.name}; or use --preset light, "
            "which needs no weights",
        ]
    )
