"""Pretrained weights that the settings name: found and checked before any work, or random ones in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from tristream.commands import options, screen
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.store.weights.library import Places

ENCODER, ESTIMATOR, SEED = "encoder_weights", "estimator", "weights_seed"
Known = dict[str, dict[str, Any]]
C = TypeVar("C", bound=BaseModel)
MEGABYTE = 1_000_000
_FILES = (".safetensors", ".pth", ".pt", ".ckpt", ".tflite", ".npz")


def places(weights_dir: Path | None, cache: Path = options.CACHE) -> Places:
    """Where weights are looked for: the user's folder, then a cache; `--cache`, where given, holds it too."""
    from tristream.store import weights

    return weights.places(weights_dir, None if cache == options.CACHE else cache / "weights")


@dataclass(frozen=True)
class Finder:
    """Finds the weights that the settings of one stream name.

    Attributes:
        where: places of weights; None: the usual ones.
        random_weights: seed of random weights in place of pretrained ones; None: no.
        looks_at_pictures: whether the stream's flow will be asked for at all.
    """

    where: Places | None
    random_weights: int | None
    looks_at_pictures: bool

    def encoder(self, values: Mapping[str, Any], section: str) -> tuple[dict[str, Any], Known]:
        """The settings with files in place of the names of weights, and what is known about each file, by field.

        Args:
            values: of the section, as merged; a key that ends in `_weights` names weights, or a file of them.
            section: its name, for messages.

        Raises:
            UsageError: no such file, not safetensors, or weights that no place has.
        """
        found, known = dict(values), Known()
        for field, given in values.items():
            if not field.endswith("_weights") or given is None:
                continue
            if field == ENCODER and self.random_weights is not None:
                found |= {field: None, SEED: self.random_weights}
                continue
            found[field] = _file(str(given), f"[{section}] {field}", self.where or places(None))
            known[field] = _known(found[field])
        return found, known

    def estimator(self, config: C, section: str) -> tuple[C, Known]:
        """The configuration and what is known about the weights of the flow estimator it names, which has their name.

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
        if not self.looks_at_pictures:
            return config, {}
        known = _known(
            _named(weights_name(name), f"[{section}] {ESTIMATOR}", self.where or places(None))
        )
        return config, {ESTIMATOR: known}


def _file(given: str, what: str, where: Places) -> Path:
    if "/" in given or "\\" in given or given.endswith(_FILES):
        path = Path(given) if where.weights_dir is None else where.weights_dir / given
        if not path.is_file():
            raise UsageError(
                f"{what}: {path} does not exist; name a safetensors file, or a folder it lies in with --weights-dir"
            )
        if path.suffix != ".safetensors":
            raise UsageError(
                f"{what}: {path} is not a safetensors file; take it in under the name of its network: "
                f"tristream weights add {path} --as NAME, then name that"
            )
        return path
    return _named(given, what, where)


def _named(name: str, what: str, where: Places) -> Path:
    from tristream.store import weights

    try:
        with download_progress(name) as progress:
            return weights.get(name, where=where, say=screen.note, progress=progress)
    except weights.Missing as error:
        raise UsageError(f"{what}: {error}") from error


def _known(path: Path) -> dict[str, Any]:
    """What belongs into lineage: enough to find the weights again, and to know what their licence allows."""
    from tristream.store import weights

    about = weights.about(path)
    kept = ("name", "source", "original_sha256", "licence", "research_only")
    return {key: about[key] for key in kept if key in about} or {"sha256": about["sha256"]}


def random_sentence(seed: int) -> str:
    """What stands beside every figure that came of random weights."""
    return f"random weights (seed {seed}) in place of pretrained ones: a rehearsal, whose figures mean nothing"


@contextlib.contextmanager
def download_progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar in megabytes that appears with the first bytes of a download, if there is one."""
    with contextlib.ExitStack() as bars:
        move: Callable[..., None] | None = None
        shown = 0

        def show(n_bytes: int, total: int | None) -> None:
            nonlocal move, shown
            if move is None:
                title = f"downloading '{name}', MB"
                move = bars.enter_context(
                    screen.progress(title, None if total is None else total // MEGABYTE)
                )
            if n_bytes // MEGABYTE > shown:
                move(n_bytes // MEGABYTE - shown)
                shown = n_bytes // MEGABYTE

        yield show
