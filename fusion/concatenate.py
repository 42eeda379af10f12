"""Embedding tables of several streams side by side: one matrix, its masks, and which columns are whose."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float64

from tristream.errors import TristreamError
from tristream.store.embeddings import EmbeddingTable


def fuse_tables(
    tables: Mapping[str, EmbeddingTable],
) -> tuple[Float64[np.ndarray, "n F"], Bool[np.ndarray, "n streams"], dict[str, slice]]:
    """Fused embeddings of videos that every table knows.

    Args:
        tables: {stream: table}. Where a table has one video several times its rows are windows, which are told apart
            by where they start.

    Returns:
        X, rows in the first table's order, blocks in the mapping's; a missing block is NaN throughout.
        masks, True where a video has a stream.
        columns, {stream: slice of X's columns}.

    Raises:
        TristreamError: no table; tables over different videos; a row twice in one table.
    """
    if not tables:
        raise TristreamError("there is no embedding table to fuse; give one per stream")
    windows = any(len(set(table.video_id)) < len(table.video_id) for table in tables.values())
    keys = {name: _keys(table, windows=windows) for name, table in tables.items()}
    for name, own in keys.items():
        if len(set(own)) < len(own):
            twice = next(key for key in own if own.count(key) > 1)
            raise TristreamError(
                f"the table of '{name}' holds {_words(twice)} twice; a video has one embedding per stream"
            )
    order = next(iter(keys.values()))
    _check_same(keys, "windows" if windows else "videos")
    n_features = sum(table.embedding.shape[1] for table in tables.values())
    X = np.full((len(order), n_features), np.nan)
    masks = np.zeros((len(order), len(tables)), dtype=bool)
    columns, start = {}, 0
    for s, (name, table) in enumerate(tables.items()):
        columns[name] = slice(start, start + table.embedding.shape[1])
        start = columns[name].stop
        place = {key: row for row, key in enumerate(keys[name])}
        rows = np.array([place[key] for key in order], dtype=np.int64)
        masks[:, s] = np.asarray(table.present)[rows]
        X[masks[:, s], columns[name]] = np.asarray(table.embedding)[rows[masks[:, s]]]
    return X, masks, columns


def check_spaces(tables: Mapping[str, EmbeddingTable], spaces: Mapping[str, str]) -> None:
    """Raise ValueError unless `tables` are of the streams and embedding spaces that something was fitted on.

    Args:
        spaces: {stream: space_id} of the fit.
    """
    for name, space in spaces.items():
        if name not in tables:
            raise TristreamError(
                f"there are no embeddings of '{name}', which `fuse` has used; run `embed --streams {name}`"
            )
        if tables[name].space_id != space:
            raise TristreamError(
                f"embeddings of '{name}' are of space {tables[name].space_id}, `fuse` has seen {space}; "
                "run `embed`, then `fuse`, to bring them together"
            )


def _keys(table: EmbeddingTable, *, windows: bool) -> list[tuple[str, float]]:
    if not windows:
        return [(video, 0.0) for video in table.video_id]
    return [(video, round(start, 6)) for video, start in table.row_keys()]


def _check_same(keys: Mapping[str, list[tuple[str, float]]], what: str) -> None:
    has = {name: set(own) for name, own in keys.items()}
    union = list(dict.fromkeys(key for own in keys.values() for key in own))
    differences = []
    for name in keys:
        others = set().union(*(own for other, own in has.items() if other != name))
        alone = [key for key in keys[name] if key not in others] if len(keys) > 1 else []
        missing = [key for key in union if key not in has[name]] if len(keys) > 2 else []
        for rows, relation in ((alone, "only in"), (missing, "missing from")):
            if rows:
                differences.append(
                    f"{len(rows)} of {len(union)} {relation} '{name}' (first: {_words(rows[0])})"
                )
    if differences:
        raise TristreamError(
            f"embeddings disagree on {what}: {', '.join(differences)}; embed every stream on the same videos.csv"
        )


def _words(key: tuple[str, float]) -> str:
    return f"{key[0]} from {key[1]:g} s" if key[1] else key[0]
