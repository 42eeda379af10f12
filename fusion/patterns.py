"""Patterns of present streams: what a video has, and which rows can be masked to look like it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

SEPARATOR = "+"


def pattern_of(mask: Bool[np.ndarray, " streams"], names: Sequence[str]) -> str:
    """Name of the set of present streams, e.g. 'audio+spatial', in the order of `names`."""
    return SEPARATOR.join(name for name, present in zip(names, mask, strict=True) if present)


def masked_alike(
    masks: Bool[np.ndarray, "n streams"], pattern: str, names: Sequence[str]
) -> Bool[np.ndarray, " n"]:
    """True for the rows that have all streams of `pattern`: masked to them, they are like a video of that pattern."""
    wanted = np.isin(np.array(names), pattern.split(SEPARATOR))
    return np.asarray(masks[:, wanted].all(axis=1))
