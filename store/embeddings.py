"""Embedding tables: Parquet files with one row per video (or window) of one stream, and their lineage inside."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from tristream.errors import TristreamError
from tristream.store.atomic import write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
SCORES_VERSION = 2  # of tables with scores
TEXT_COLUMNS = ("video_id", "content_id", "space_id", "stream", "reason")
_METADATA = "tristream"
_PART = re.compile(r"part-([0-9a-f]{16})\.parquet")


class EmbeddingsError(TristreamError):
    """Table that cannot be read, or whose parts do not belong together."""


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Video embeddings of one stream in one space.

    Rows of whole videos have each `video_id` once; rows of windows repeat it with another `start_seconds`.

    Attributes:
        present: False where the video does not have the stream; `reason` says why ("" where present).
        embedding: NaN throughout where not present, finite elsewhere.
        start_seconds, stop_seconds: what the row covers, half-open; NaN where unknown.
        logits: of the stream's own softmax layer, NaN throughout where not present; None: not stored.
        segment_labels: most probable class of each segment of each row, none where not present; None: not stored, or
            the layer does not read segments.
        lineage: its origin; `{"parts": [...]}` if the part files of one folder differ in theirs.
    """

    stream: str
    space_id: str
    video_id: list[str]
    content_id: list[str]
    present: Bool[np.ndarray, "n"]
    reason: list[str]
    start_seconds: Float64[np.ndarray, "n"]
    stop_seconds: Float64[np.ndarray, "n"]
    embedding: Float32[np.ndarray, "n D"]
    lineage: dict[str, Any] = field(default_factory=dict)
    logits: Float32[np.ndarray, "n K"] | None = None
    segment_labels: list[list[int]] | None = None

    def __post_init__(self) -> None:
        n = len(self.video_id)
        for name in (
            "content_id",
            "present",
            "reason",
            "start_seconds",
            "stop_seconds",
            "embedding",
            "logits",
            "segment_labels",
        ):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise EmbeddingsError(
                    f"embeddings of '{self.stream}': {n} video_ids and {len(values)} values of {name}"
                )
        finite = np.isfinite(self.embedding).all(axis=1)
        if (wrong := self.present & ~finite).any():
            first = self.video_id[int(np.argmax(wrong))]
            raise EmbeddingsError(
                f"{first}: its '{self.stream}' embedding is marked present but is not finite"
            )
        if (wrong := ~self.present & ~np.isnan(self.embedding).all(axis=1)).any():
            first = self.video_id[int(np.argmax(wrong))]
            raise EmbeddingsError(
                f"{first}: its '{self.stream}' embedding is marked absent but is not NaN"
            )

    def __len__(self) -> int:
        return len(self.video_id)

    def row_keys(self) -> list[tuple[str, float]]:
        """Return the key of each row: the video and the start in it (0 if unknown)."""
        return list(zip(self.video_id, np.nan_to_num(self.start_seconds).tolist(), strict=True))

    def take(self, rows: Sequence[int]) -> EmbeddingTable:
        """Return the table of these rows, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return EmbeddingTable(
            stream=self.stream,
            space_id=self.space_id,
            video_id=[self.video_id[row] for row in index],
            content_id=[self.content_id[row] for row in index],
            present=self.present[index],
            reason=[self.reason[row] for row in index],
            start_seconds=self.start_seconds[index],
            stop_seconds=self.stop_seconds[index],
            embedding=self.embedding[index],
            lineage=self.lineage,
            logits=None if self.logits is None else self.logits[index],
            segment_labels=self.segment_labels and [self.segment_labels[row] for row in index],
        )

    def to_arrow(self) -> pa.Table:
        """Return the table as stored: an absent embedding or an unknown time is null."""
        import pyarrow as pa

        n = len(self)
        columns = {
            "video_id": pa.array(self.video_id, pa.string()),
            "content_id": pa.array(self.content_id, pa.string()),
            "space_id": pa.array([self.space_id] * n, pa.string()),
            "stream": pa.array([self.stream] * n, pa.string()),
            "present": pa.array(self.present, pa.bool_()),
            "reason": pa.array(self.reason, pa.string()),
            "start_seconds": pa.array(self.start_seconds, pa.float64(), from_pandas=True),
            "stop_seconds": pa.array(self.stop_seconds, pa.float64(), from_pandas=True),
            "embedding": self._listed(self.embedding),
        }
        if self.logits is not None:
            columns["logits"] = self._listed(self.logits)
        if self.segment_labels is not None:
            columns["segment_labels"] = pa.array(self.segment_labels, pa.list_(pa.int32()))
        has_scores = self.logits is not None or self.segment_labels is not None
        metadata = {
            "schema_version": SCORES_VERSION if has_scores else SCHEMA_VERSION,
            "stream": self.stream,
            "space_id": self.space_id,
            "lineage": self.lineage,
        }
        return pa.table(columns).replace_schema_metadata(
            {_METADATA: json.dumps(metadata, sort_keys=True)}
        )

    def _listed(self, values: Float32[np.ndarray, "n _"]) -> pa.FixedSizeListArray:
        """Return rows as lists, null where not present."""
        import pyarrow as pa

        filled = np.where(self.present[:, None], values, np.float32(0)).astype(np.float32)
        return pa.FixedSizeListArray.from_arrays(
            pa.array(filled.ravel(), pa.float32()),
            values.shape[1],
            mask=pa.array(~self.present),
        )


def write(table: EmbeddingTable, folder: Path, *, replace: bool = False) -> Path:
    """Write a part file of `folder`, named by its content, completely or not at all; return its path.

    Several processes may write parts into one folder.

    Args:
        replace: remove the folder's other part files once the new one is there; for a folder with
            one writer.
    """
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table.to_arrow(), buffer, compression="zstd", write_page_checksum=True)
    data = buffer.getvalue()
    path = folder / f"part-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    older = [part for part in folder.glob("part-*.parquet") if part != path] if replace else []
    write_bytes(path, data)
    for part in older:
        part.unlink(missing_ok=True)
    return path


def read(path: Path | str) -> EmbeddingTable:
    """Return the table in a Parquet file, or in all `part-*.parquet` of a folder, oldest first.

    A row that is in two parts counts once, as the later part has it.

    Raises:
        EmbeddingsError: no such file, no parts, a damaged file, parts of different spaces, or one
            file that has a row twice with different contents.
    """
    path = Path(path)
    files = parts_of(path) if path.is_dir() else [path]
    if not files:
        raise EmbeddingsError(f"{path} holds no part-*.parquet; run `embed` to make them")
    tables = [_read_file(file) for file in files]
    return _join(files, tables)


def parts_of(folder: Path) -> list[Path]:
    """Return the part files of a folder in the order in which they were written."""
    return sorted(
        folder.glob("part-*.parquet"), key=lambda part: (part.stat().st_mtime_ns, part.name)
    )


def _read_file(path: Path) -> EmbeddingTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise EmbeddingsError(f"{path} does not exist; run `embed` to make it") from None
    match = _PART.fullmatch(path.name)
    if match and (digest := hashlib.sha256(data).hexdigest()[:16]) != match[1]:
        raise EmbeddingsError(
            f"{path} is corrupt: its content is {digest}…; delete it and run `embed` again"
        )
    try:
        arrow = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
        return _from_arrow(arrow, path)
    except (pa.ArrowException, OSError) as error:
        raise EmbeddingsError(
            f"{path} is not a readable Parquet file ({error}); delete it and run `embed` again"
        ) from error


def _from_arrow(arrow: pa.Table, path: Path) -> EmbeddingTable:
    import pyarrow as pa

    wanted = (*TEXT_COLUMNS, "present", "start_seconds", "stop_seconds", "embedding")
    if missing := [name for name in wanted if name not in arrow.column_names]:
        raise EmbeddingsError(
            f"{path} has no column '{missing[0]}'; an embedding table has {', '.join(wanted)}"
        )
    facts = _about(arrow.schema.metadata, path)
    text = {
        name: arrow.column(name).cast(pa.string()).fill_null("").to_pylist()
        for name in TEXT_COLUMNS
    }
    spaces = sorted(set(zip(text["stream"], text["space_id"], strict=True)))
    if len(spaces) > 1:
        raise EmbeddingsError(
            f"{path} mixes {_space(spaces[0])} and {_space(spaces[1])}; one table is one space"
        )
    present = arrow.column("present").cast(pa.bool_()).fill_null(False).to_numpy()
    embedding, lost = _rows(arrow, "embedding", present, path)
    if lost.any():
        first = text["video_id"][int(np.argmax(lost))]
        raise EmbeddingsError(f"{path}: {first} is marked present but its embedding is null")
    logits = _rows(arrow, "logits", present, path)[0] if "logits" in arrow.column_names else None
    labels = None
    if "segment_labels" in arrow.column_names:
        labels = [row or [] for row in arrow.column("segment_labels").to_pylist()]
    stream, space = spaces[0] if spaces else (facts.get("stream", ""), facts.get("space_id", ""))
    return EmbeddingTable(
        stream=stream,
        space_id=space,
        video_id=text["video_id"],
        content_id=text["content_id"],
        present=present,
        reason=text["reason"],
        start_seconds=arrow.column("start_seconds").cast(pa.float64()).to_numpy(),
        stop_seconds=arrow.column("stop_seconds").cast(pa.float64()).to_numpy(),
        embedding=embedding,
        lineage=facts.get("lineage", {}),
        logits=logits,
        segment_labels=labels,
    )


def _rows(
    arrow: pa.Table, name: str, present: Bool[np.ndarray, "n"], path: Path
) -> tuple[Float32[np.ndarray, "n _"], Bool[np.ndarray, "n"]]:
    """Return a column of lists, NaN where not present, and where present rows are null.

    Raises:
        EmbeddingsError: the column has another type.
    """
    import pyarrow as pa

    kind = arrow.schema.field(name).type
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
        raise EmbeddingsError(
            f"{path}: column '{name}' is {kind}; it must be fixed_size_list<float32>"
        )
    column = arrow.column(name).combine_chunks()
    values = np.full((len(arrow), kind.list_size), np.nan, dtype=np.float32)
    stored = ~column.is_null().to_numpy(zero_copy_only=False)
    values[stored] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, kind.list_size)
    values[~present] = np.nan
    return values, present & ~stored


def _about(metadata: Mapping[bytes, bytes] | None, path: Path) -> dict[str, Any]:
    """Return our part of the file's metadata; empty for a table of another program."""
    text = (metadata or {}).get(_METADATA.encode())
    if text is None:
        return {}
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise EmbeddingsError(
            f"{path}: its lineage is not JSON ({error}); delete it and run `embed` again"
        ) from error
    if facts.get("schema_version") not in (SCHEMA_VERSION, SCORES_VERSION):
        raise EmbeddingsError(
            f"{path} has schema version {facts.get('schema_version')}; this program reads {SCHEMA_VERSION} "
            f"and {SCORES_VERSION}; run `embed` again"
        )
    return facts


def _join(files: Sequence[Path], tables: Sequence[EmbeddingTable]) -> EmbeddingTable:
    first = tables[0]
    for file, table in zip(files, tables, strict=True):
        if (table.stream, table.space_id) != (first.stream, first.space_id):
            raise EmbeddingsError(
                f"{file.parent} mixes {_space((first.stream, first.space_id))} ({files[0].name}) and "
                f"{_space((table.stream, table.space_id))} ({file.name}); run `embed` to bring them together"
            )
        if table.embedding.shape[1] != first.embedding.shape[1]:
            raise EmbeddingsError(
                f"{file} holds {table.embedding.shape[1]}-D embeddings, {files[0].name} {first.embedding.shape[1]}-D"
            )
    lineages = list(
        {json.dumps(table.lineage, sort_keys=True): table.lineage for table in tables}.values()
    )
    joined = EmbeddingTable(
        stream=first.stream,
        space_id=first.space_id,
        video_id=[value for table in tables for value in table.video_id],
        content_id=[value for table in tables for value in table.content_id],
        present=np.concatenate([table.present for table in tables]),
        reason=[value for table in tables for value in table.reason],
        start_seconds=np.concatenate([table.start_seconds for table in tables]),
        stop_seconds=np.concatenate([table.stop_seconds for table in tables]),
        embedding=np.concatenate([table.embedding for table in tables]),
        lineage=lineages[0] if len(lineages) == 1 else {"parts": lineages},
        **_joined_scores(tables),
    )
    ends = np.cumsum([len(table) for table in tables])
    return _without_repeats(joined, files, ends)


def _joined_scores(tables: Sequence[EmbeddingTable]) -> dict[str, Any]:
    """Return the scores that all tables have; an old part has none."""
    logits = [table.logits for table in tables if table.logits is not None]
    labels = [table.segment_labels for table in tables if table.segment_labels is not None]
    joined: dict[str, Any] = {}
    if len(logits) == len(tables) and len({rows.shape[1] for rows in logits}) == 1:
        joined["logits"] = np.concatenate(logits)
    if len(labels) == len(tables):
        joined["segment_labels"] = [row for rows in labels for row in rows]
    return joined


def _without_repeats(
    table: EmbeddingTable, files: Sequence[Path], ends: np.ndarray
) -> EmbeddingTable:
    """Return the table with each key once, as the last file has it.

    Args:
        table: rows of all files, one file after the other.
        files: the files.
        ends: row after the last one of each file.
    """
    last: dict[tuple[str, float], int] = {}
    for row, key in enumerate(table.row_keys()):
        other = last.get(key)
        if other is not None and not _same(table, other, row):
            file, earlier = (int(np.searchsorted(ends, r, side="right")) for r in (row, other))
            if file == earlier:
                raise EmbeddingsError(
                    f"{files[file]} holds {key[0]} (from {key[1]:g} s) twice with different "
                    "contents; delete it and run `embed` again"
                )
        last[key] = row
    return table if len(last) == len(table) else table.take(sorted(last.values()))


def _same(table: EmbeddingTable, a: int, b: int) -> bool:
    return (
        table.content_id[a] == table.content_id[b]
        and table.reason[a] == table.reason[b]
        and np.array_equal(table.stop_seconds[a], table.stop_seconds[b], equal_nan=True)
        and np.array_equal(table.embedding[a], table.embedding[b], equal_nan=True)
    )


def _space(pair: tuple[str, str]) -> str:
    return f"space {pair[1]} of '{pair[0]}'"
