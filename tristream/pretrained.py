"""Pretrained weights named by the settings: located and checked before any work, or random ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from tristream.errors import UsageError
from tristream.paths import CACHE, expanded
from tristream.progress import SILENT, Advance, Progress

if TYPE_CHECKING:
    from tristream.store.weights.library import Places

ENCODER, ESTIMATOR, SEED = "encoder_weights", "estimator", "weights_seed"
Known = dict[str, dict[str, Any]]
C = TypeVar("C", bound=BaseModel)
MEGABYTE = 1_000_000
_FILES = (".safetensors", ".pth", ".pt", ".ckpt", ".tflite", ".npz")


def places(weights_dir: Path | None, cache: Path = CACHE) -> Places:
    """Return the places of weights: the user's folder, then a cache; an explicit cache folder holds it.

    The defaults are TRISTREAM_WEIGHTS and TRISTREAM_CACHE, with `~` expanded.
    """
    from tristream.store import weights

    folder, shared = weights_dir or os.environ.get("TRISTREAM_WEIGHTS"), cache
    if cache == CACHE and os.environ.get("TRISTREAM_CACHE"):
        shared = Path(os.environ["TRISTREAM_CACHE"])
    return weights.places(
        expanded(folder) if folder else None,
        None if shared == CACHE else expanded(shared) / "weights",
    )


@dataclass(frozen=True)
class Pretrained:
    """Pretrained weights that the settings of streams name.

    Attributes:
        where: places of weights; None: the default ones.
        random_weights: seed of random in place of pretrained weights; None: pretrained ones.
        precomputed_flow: the streams' own flow estimators are not used.
        progress: receiver of notes and download bars.
    """

    where: Places | None = None
    random_weights: int | None = None
    precomputed_flow: bool = False
    progress: Progress = SILENT

    def encoder(self, values: Mapping[str, Any], section: str) -> tuple[dict[str, Any], Known]:
        """Return the settings with files in place of names of weights, and facts of each file by field.

        Args:
            values: merged settings of the section; a key that ends in `_weights` names weights or a
                file of them.
            section: its name, for messages.

        Raises:
            UsageError: no such file, not safetensors, or weights that no place has.
        """
        settings, known = dict(values), Known()
        for field, given in values.items():
            if not field.endswith("_weights") or given is None:
                continue
            if field == ENCODER and self.random_weights is not None:
                settings |= {field: None, SEED: self.random_weights}
                continue
            settings[field] = self._file(str(given), f"[{section}] {field}")
            known[field] = _facts(settings[field])
        return settings, known

    def estimator(self, config: C, section: str, *, needs_pictures: bool) -> tuple[C, Known]:
        """Return the configuration and facts of the weights of the flow estimator it names.

        Raises:
            UsageError: weights that no place has.
            TristreamError: an unknown estimator.
        """
        from tristream.flow.estimators import is_learned, weights_name

        name = getattr(config, ESTIMATOR, None)
        if name is None or not is_learned(name):
            return config, {}
        if self.random_weights is not None:
            return config.model_copy(update={SEED: self.random_weights}), {}
        if not needs_pictures:
            return config, {}
        path = self._named(weights_name(name), f"[{section}] {ESTIMATOR}")
        return config, {ESTIMATOR: _facts(path)}

    def _places(self) -> Places:
        return self.where or places(None)

    def _file(self, given: str, key: str) -> Path:
        if "/" not in given and "\\" not in given and not given.endswith(_FILES):
            return self._named(given, key)
        folder = self._places().weights_dir
        path = expanded(given)
        if folder is not None:
            path = folder / path
        if not path.is_file():
            raise UsageError(
                f"{key}: {path} does not exist; name a safetensors file, or its folder with "
                "--weights-dir"
            )
        if path.suffix != ".safetensors":
            raise UsageError(
                f"{key}: {path} is not a safetensors file; convert it under the name of its "
                f"network: tristream weights add {path} --as NAME, then name that"
            )
        return path

    def _named(self, name: str, key: str) -> Path:
        from tristream.store import weights

        try:
            with download_bar(name, self.progress) as move:
                return weights.get(
                    name, where=self._places(), say=self.progress.note, progress=move
                )
        except weights.Missing as error:
            raise UsageError(f"{key}: {error}") from error


def _facts(path: Path) -> dict[str, Any]:
    """Return what identifies the weights and what their licence allows, for the lineage."""
    from tristream.store import weights

    facts = weights.about(path)
    names = ("name", "source", "original_sha256", "licence", "research_only")
    return {name: facts[name] for name in names if name in facts} or {"sha256": facts["sha256"]}


def random_sentence(seed: int) -> str:
    """Sentence beside every figure that comes from random weights."""
    return (
        f"random weights (seed {seed}) in place of pretrained ones: a rehearsal, whose figures "
        "mean nothing"
    )


@contextlib.contextmanager
def download_bar(name: str, progress: Progress) -> Iterator[Callable[[int, int | None], None]]:
    """Open a bar in megabytes with the first bytes of a download, if there is one."""
    with contextlib.ExitStack() as bars:
        move: Advance | None = None
        shown = 0

        def show(n_bytes: int, total: int | None) -> None:
            nonlocal move, shown
            if move is None:
                title = f"downloading '{name}', MB"
                n_steps = None if total is None else total // MEGABYTE
                move = bars.enter_context(progress.bar(title, n_steps))
            if n_bytes // MEGABYTE > shown:
                move(n_bytes // MEGABYTE - shown)
                shown = n_bytes // MEGABYTE

        yield show
