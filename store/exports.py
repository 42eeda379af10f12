"""Embeddings for other programs: one matrix and facts about its rows, as Parquet, npz, CSV or a FAISS index."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from tristream.store.atomic import write_bytes

SCHEMA_VERSION = 1
_METADATA = "tristream"


@dataclass(frozen=True, eq=False)
class ExportTable:
    """Rows of embeddings of one stream, or of several side by side.

    Attributes:
        about_rows: {column: one value a row}, in the order in which they are written: `video_id` first.
        X: a missing stream's block is NaN; or 0, where the table is standardised.
        masks: streams of each row.
        columns: {stream: slice of X}.
        about: spaces, lineage and other facts for readers; for JSON.
    """

    about_rows: Mapping[str, list[Any]]
    X: Float32[np.ndarray, "n F"]
    masks: Bool[np.ndarray, "n streams"]
    columns: Mapping[str, slice]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.X)

    def description(self) -> dict[str, Any]:
        """Return the description that every format carries."""
        columns = {name: [block.start, block.stop] for name, block in self.columns.items()}
        return {"schema_version": SCHEMA_VERSION, "columns": columns, **self.about}


def write_parquet(table: ExportTable, path: Path) -> None:
    """`about_rows`, `present_<stream>` and `embedding`, a list of F float32; values of a missing stream are null.

    The list itself is never null: pyarrow before 26 cannot read one that is, of a fixed size.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    width = table.X.shape[1]
    missing = np.isnan(table.X)
    values = pa.array(
        np.where(missing, np.float32(0), table.X).ravel(), pa.float32(), mask=missing.ravel()
    )
    columns = {
        name: pa.array(column, from_pandas=True) for name, column in table.about_rows.items()
    }
    columns |= {
        f"present_{name}": pa.array(table.masks[:, s]) for s, name in enumerate(table.columns)
    }
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(values, width)
    metadata = {_METADATA: json.dumps(table.description(), sort_keys=True)}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def write_npz(table: ExportTable, path: Path) -> None:
    """Arrays `X`, `masks`, `streams`, `edges` (stream s is X[:, edges[s]:edges[s + 1]]), `about` (JSON), the rows'."""
    arrays: dict[str, Any] = {name: np.array(column) for name, column in table.about_rows.items()}
    edges = [0, *(block.stop for block in table.columns.values())]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        X=table.X,
        masks=table.masks,
        streams=np.array(list(table.columns)),
        edges=np.array(edges),
        about=np.array(json.dumps(table.description(), sort_keys=True)),
        **arrays,
    )
    write_bytes(path, buffer.getvalue())


def write_csv(table: ExportTable, path: Path) -> None:
    """`about_rows`, `present_<stream>`, then one column a value, `<stream>_0` …; empty where the stream is missing.

    A text that a spreadsheet would read as a formula gets an apostrophe in front. Nine digits restore every float32.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    values = [
        f"{name}_{k}"
        for name, block in table.columns.items()
        for k in range(block.stop - block.start)
    ]
    writer.writerow([*table.about_rows, *(f"present_{name}" for name in table.columns), *values])
    for row in range(len(table)):
        cells = [_cell(column[row]) for column in table.about_rows.values()]
        present = [str(bool(there)).lower() for there in table.masks[row]]
        writer.writerow(
            [*cells, *present, *("" if np.isnan(x) else f"{x:.9g}" for x in table.X[row])]
        )
    write_bytes(path, buffer.getvalue().encode("utf-8", "backslashreplace"))


def write_faiss(table: ExportTable, path: Path) -> None:
    """A FAISS index of the rows scaled to length 1: its inner product is their cosine; an id is a row's number.

    `path`.csv beside it maps each id to a video. Rows without any stream are not in the index.

    Raises:
        ModuleNotFoundError: faiss is not installed.
    """
    import faiss

    there = np.flatnonzero(table.masks.any(axis=1))
    rows = np.ascontiguousarray(np.nan_to_num(table.X[there]), dtype=np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.shape[1]))
    index.add_with_ids(rows, there.astype(np.int64))
    write_bytes(path, faiss.serialize_index(index).tobytes())
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["id", *table.about_rows])
    for row in range(len(table)):
        writer.writerow([row, *(_cell(column[row]) for column in table.about_rows.values())])
    write_bytes(
        path.with_name(f"{path.name}.csv"), buffer.getvalue().encode("utf-8", "backslashreplace")
    )


WRITERS = {"parquet": write_parquet, "npz": write_npz, "csv": write_csv, "faiss": write_faiss}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else repr(value)
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
