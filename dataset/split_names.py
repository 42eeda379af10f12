"""Folder and list names that mean a split, and names that only look like one."""

from __future__ import annotations

import re

from tristream.dataset.spelling import composed

SPLITS = ("train", "val", "test", "unlabelled")
_SYNONYMS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
}
# Usage differs between data sets: some call their validation split so, others their test split.
_UNCLEAR = frozenset(
    ("dev", "devel", "development", "eval", "evaluation", "holdout", "heldout", "trainval")
)
_FILLERS = frozenset(
    ("set", "split", "data", "dataset", "video", "videos", "clip", "clips", "file", "files")
)
_NUMBERED = re.compile(r"(fold|split)\d+")


def split_of(name: str) -> str:
    """Return the split that a name stands for, "" if none: `Train`, `valid`, `test_set`."""
    words = _words(name)
    joined = "".join(word for word in words if word not in _FILLERS)
    return _SYNONYMS.get(joined, "") or _SYNONYMS.get(joined.removesuffix("set"), "")


def resembles_split(name: str) -> bool:
    """True for names of splits, unclear ones (`eval`, `dev`) and numbered ones (`fold3`)."""
    joined = "".join(_words(name))
    bare = re.sub(r"\d+$", "", joined)
    return bool(split_of(name) or split_of(bare) or bare in _UNCLEAR or _NUMBERED.fullmatch(joined))


def mentions_split(name: str) -> bool:
    """True if a word of the name resembles a split: `public_test`, and also `test_drive`."""
    return any(resembles_split(word) for word in _words(name))


def _words(name: str) -> list[str]:
    plain = composed(name).casefold()
    return [word for word in re.split(r"[\W_]+", plain) if word]
