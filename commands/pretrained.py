"""Pretrained weights that the settings name: found and checked before any work, or random ones in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import options, screen
from commands.screen import Mistake

if TYPE_CHECKING:
    from store.weights import Places

ENCODER, SEED = "encoder_weights", "weights_seed"
MEGABYTE = 1_000_000
_FILES = (".safetensors", ".pth", ".pt", ".ckpt", ".tflite", ".npz")


def places(weights_dir: Path | None, cache: Path = options.CACHE) -> Places:
    """Where weights are looked for: the user's folder, then a cache; `--cache`, where given, holds it too."""
    from store import weights

    return weights.places(weights_dir, None if cache == options.CACHE else cache / "weights")


def resolve(
    values: Mapping[str, Any], section: str, where: Places | None, random_weights: int | None
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A stream's settings with files in place of the names of weights, and what is known about each file, by field.

    Args:
        values: of the section, as merged; every key that ends in `_weights` names weights, or a file of them.
        section: its name, for messages.
        where: places of weights; None: the usual ones.
        random_weights: seed of random weights in place of the encoder's.

    Raises:
        Mistake: no such file, not safetensors, or weights that no place has.
    """
    found, about = dict(values), {}
    for field, given in values.items():
        if not field.endswith("_weights") or given is None:
            continue
        if field == ENCODER and random_weights is not None:
            found |= {field: None, SEED: random_weights}
            continue
        found[field] = _file(str(given), f"[{section}] {field}", where or places(None))
        about[field] = _known(found[field])
    return found, about


def _file(given: str, what: str, where: Places) -> Path:
    from store import weights

    if "/" in given or "\\" in given or given.endswith(_FILES):
        path = Path(given) if where.weights_dir is None else where.weights_dir / given
        if not path.is_file():
            raise Mistake(
                f"{what}: {path} does not exist; name a safetensors file, or a folder it lies in with --weights-dir"
            )
        if path.suffix != ".safetensors":
            raise Mistake(
                f"{what}: {path} is not a safetensors file; take it in under the name of its network: "
                f"tristream weights add {path} --as NAME, then name that"
            )
        return path
    try:
        with download_progress(given) as progress:
            return weights.get(given, where=where, say=screen.note, progress=progress)
    except weights.Missing as error:
        raise Mistake(f"{what}: {error}") from error


def _known(path: Path) -> dict[str, Any]:
    """What belongs into lineage: enough to find the weights again, and to know what their licence allows."""
    from store import weights

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
                move = bars.enter_context(screen.progress(title, None if total is None else total // MEGABYTE))
            if n_bytes // MEGABYTE > shown:
                move(n_bytes // MEGABYTE - shown)
                shown = n_bytes // MEGABYTE

        yield show
