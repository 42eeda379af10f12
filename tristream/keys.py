"""Keys of settings: every path with its default, permitted values and meaning, from pydantic models."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

N_SUGGESTED = 6
_BOUNDS = {"ge": "≥ ", "gt": "> ", "le": "≤ ", "lt": "< ", "multiple_of": "a multiple of "}
_WORDS = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "name or file"}


@dataclass(frozen=True)
class Key:
    """One setting.

    Attributes:
        path: as in --set: "sampler.n_samples".
        value: default, or the value of a preset; None is the word none.
        values: permitted values in words.
        meaning: description of the field.
    """

    path: str
    value: Any
    values: str
    meaning: str

    @property
    def section(self) -> str:
        """Section of a TOML file that holds the key."""
        return self.path.rpartition(".")[0]

    def to_json(self) -> dict[str, Any]:
        value = str(self.value) if isinstance(self.value, Path) else self.value
        return {"key": self.path, "value": value, "values": self.values, "meaning": self.meaning}


def keys_of(section: str, model: type[BaseModel], value: BaseModel | None = None) -> Iterator[Key]:
    """Yield the keys of a section, those of its sub-sections included.

    Args:
        section: path of the section.
        model: its fields.
        value: values to show; None: the defaults.
    """
    current = model() if value is None else value
    for name, field in model.model_fields.items():
        path, content = f"{section}.{name}", getattr(current, name)
        if isinstance(content, BaseModel):
            yield from keys_of(path, type(content), content)
        else:
            yield Key(path, content, _values(field), field.description or "")


def paths_of(section: str, model: type[BaseModel]) -> list[str]:
    """Return the paths of a section's keys."""
    return [key.path for key in keys_of(section, model)]


def nearest(wanted: str, paths: Sequence[str]) -> list[str]:
    """Return the paths that `wanted` may mean, most similar first.

    Paths that end in all of `wanted` come before paths that are spelled similarly.
    """
    exact = [path for path in paths if path == wanted or path.endswith(f".{wanted}")]
    if exact:
        return exact[:N_SUGGESTED]
    last = wanted.rpartition(".")[2]
    names = sorted({path.rpartition(".")[2] for path in paths})
    spelled = [last] if last in names else difflib.get_close_matches(last, names, cutoff=0.7)
    similar = [path for path in paths if path.rpartition(".")[2] in spelled]
    ratio = difflib.SequenceMatcher(b=wanted)

    def similarity(path: str) -> float:
        ratio.set_seq1(path)
        return ratio.ratio()

    # The nearest alone where it is much nearer, e.g. in the same section.
    ranked = sorted(similar, key=similarity, reverse=True)
    return [path for path in ranked if similarity(path) > similarity(ranked[0]) - 0.1][:N_SUGGESTED]


def leaves(content: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Yield the paths of all values in nested mappings."""
    for name, value in content.items():
        path = f"{section}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            yield from leaves(value, path)
        else:
            yield path


def value_text(value: Any) -> str:
    """Return a value as --set and TOML take it; none where TOML has no word."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(value_text, value))}]"
    return str(value)


def _values(field: FieldInfo) -> str:
    """Permitted values of a field in words: type, bounds, and none where it is optional."""
    words = _type_words(field.annotation)
    bounds = [
        f"{sign}{getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in _BOUNDS.items()
        if hasattr(limit, name)
    ]
    return ", ".join([words, *bounds])


def _type_words(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (types.UnionType, typing.Union):
        words = [_type_words(part) for part in arguments if part is not type(None)]
        return " or ".join([*words, *(["none"] if type(None) in arguments else [])])
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"list of {count}{_type_words(arguments[0])}s"
    return str(annotation)
