"""One trained stream with its networks and decode processes open, and a scikit-learn transformer."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from tristream.embed import embed_files
from tristream.embeddings import fuse_tables
from tristream.errors import TristreamError
from tristream.extract import kept_engine
from tristream.videos import contents, decode_pool, decoder, expand_paths, given_rows, make_video
from tristream.workspace import HasWorkspace, Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from tristream.media.sandbox.pool import DecodePool
    from tristream.streams.extraction import VideoResult
    from tristream.streams.window_embeddings import WindowRows


@dataclass(frozen=True, eq=False)
class VideoEmbedding:
    """Embedding of one video by one stream.

    Attributes:
        path: of the file.
        content_id: sha256 of its bytes.
        space_id: embedding space.
        embedding: (D,) float32; None where the video lacks the stream or was rejected.
        reason: reason code of the mask or the rejection; "" with an embedding.
        rejected: True if the file cannot be used by this stream at all.
        absent: True if that is because the file lacks the stream, not because it is broken.
        start_seconds, stop_seconds: of each segment, (S,).
    """

    path: Path
    content_id: str
    space_id: str
    embedding: np.ndarray | None
    reason: str
    rejected: bool
    start_seconds: np.ndarray
    stop_seconds: np.ndarray
    absent: bool = False

    def to_arrow(self, stream: str, embedding_dim: int) -> pa.Table:
        """Return one row in the schema of the run's Parquet files; its video_id is the content_id.

        Args:
            stream: name of the stream.
            embedding_dim: width of its embeddings.
        """
        from tristream.store.embeddings import EmbeddingTable

        values = np.full((1, embedding_dim), np.nan, np.float32)
        times = np.full(2, np.nan)
        if self.embedding is not None:
            values[0] = self.embedding
            times[:] = self.start_seconds.min(), self.stop_seconds.max()
        return EmbeddingTable(
            stream=stream,
            space_id=self.space_id,
            video_id=[self.content_id],
            content_id=[self.content_id],
            present=np.array([self.embedding is not None]),
            reason=[self.reason],
            start_seconds=times[:1],
            stop_seconds=times[1:],
            embedding=values,
        ).to_arrow()


class StreamEmbedder:
    """Embeddings by one trained stream; networks and decode processes are started once.

    Use it as a context manager, or call `close`. One thread at a time may call it.

    Args:
        run: a run, or its folder.
        stream: name of a trained stream.
        use_cache: keep what is computed in the run's cache; False: keep nothing, as for uploads.

    Raises:
        UsageError: the stream is not trained.
    """

    def __init__(
        self,
        run: str | Path | Workspace | HasWorkspace,
        stream: str,
        *,
        use_cache: bool = True,
    ) -> None:
        workspace = Workspace.of(run)
        self.workspace = workspace.reading_from(workspace.data_root())
        [self.stream] = self.workspace.load_streams([stream])
        self._engine = kept_engine(self.workspace)
        self._use_cache = use_cache
        self._open = contextlib.ExitStack()
        self._pool: DecodePool | None = None

    @property
    def space_id(self) -> str:
        """Embedding space of the results."""
        return self.stream.space_id

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings."""
        return self.stream.model.embedding_dim

    def embed(self, path: str | Path) -> VideoEmbedding:
        """Return the embedding of one file."""
        return next(self.embed_many([path]))

    def embed_many(self, paths: Iterable[str | Path]) -> Iterator[VideoEmbedding]:
        """Yield the embeddings of files in their order; paths are drawn as they are needed."""
        from tristream.streams import flow_needs, model
        from tristream.streams.extraction import extract
        from tristream.streams.video import Video

        reading = self.workspace.reading
        cache = self._cache()
        flow = model.shared_estimators([self.stream])
        flow.backend = self._engine
        precomputed = reading.flow_from is not None
        flow.check(flow_needs.needed([self.stream.stream], precomputed_flow=precomputed))
        decode = decoder(self._started(), reading)

        def videos() -> Iterator[Video]:
            for path in paths:
                [row] = given_rows([Path(path)], reading.root)
                yield make_video(
                    row,
                    contents([row], reading)[row.video_id],
                    [self.stream],
                    decode=decode,
                    cache=cache,
                    flow_from=reading.flow_from,
                    estimators=flow,
                )

        for result in extract(
            videos(),
            [self.stream],
            cache=cache,
            backend=self._engine,
            n_threads=self.workspace.compute.workers + 1,
        ):
            yield self._embedding(result)

    def embed_windows(
        self, path: str | Path, *, seconds: float, hop_seconds: float | None = None
    ) -> WindowRows:
        """Return the embeddings of the windows of one file.

        Args:
            path: of the file.
            seconds: length of a window.
            hop_seconds: from one window to the next; None: half a window.
        """
        from tristream.windows import embed_windows, window_plan

        rows = given_rows([Path(path)], self.workspace.reading.root)
        plan = window_plan(seconds, hop_seconds)
        [result] = embed_windows(self.workspace, rows, [self.stream], plan)
        return result

    def warm_up(self) -> VideoEmbedding:
        """Embed a made-up video of three seconds, so that the first real one does not wait."""
        from tristream.media.encode import write_video

        rows, columns = np.mgrid[:128, :160]
        grey = np.stack([(rows * 2 + columns + 4 * t) % 256 for t in range(60)]).astype(np.uint8)
        tone = (0.1 * np.sin(np.arange(48_000) * 0.2)).astype(np.float32)
        with tempfile.TemporaryDirectory(prefix="tristream-") as folder:
            path = Path(folder) / "warm-up.mp4"
            write_video(path, np.repeat(grey[..., None], 3, axis=3), fps=20.0, samples=tone)
            return self.embed(path)

    def close(self) -> None:
        """End the decode processes."""
        self._open.close()
        self._pool = None

    def __enter__(self) -> StreamEmbedder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _cache(self) -> Any:
        from tristream.store.cache import Cache

        if self._use_cache:
            return self.workspace.cache()
        return Cache(self.workspace.cache_dir, report=self.workspace.progress.warn, written=())

    def _started(self) -> DecodePool:
        if self._pool is None:
            self._pool = self._open.enter_context(decode_pool(self.workspace))
            self._pool.check_decoder()
        return self._pool

    def _embedding(self, result: VideoResult) -> VideoEmbedding:
        name = self.stream.name
        segments = result.segments.get(name)
        rejected = bool(result.rejected)
        none = np.zeros(0)
        return VideoEmbedding(
            path=result.video.path,
            content_id=result.video.content_id,
            space_id=self.space_id,
            embedding=result.embeddings.get(name),
            reason=result.rejected_reason if rejected else result.absent.get(name, ""),
            rejected=rejected,
            absent=name in result.absent,
            start_seconds=none if segments is None else segments.start_seconds,
            stop_seconds=none if segments is None else segments.stop_seconds,
        )


class VideoEmbedder(TransformerMixin, BaseEstimator):
    """Scikit-learn transformer from lists of paths to fused embeddings.

    The columns of a missing stream are 0 after standardising each column on the fitted videos, so
    that any estimator can follow.

    Args:
        run: a run, or its folder.
        streams: trained streams to use; None: all.
    """

    def __init__(
        self,
        run: str | Path | Workspace | HasWorkspace,
        streams: Sequence[str] | None = None,
    ) -> None:
        self.run = run
        self.streams = streams

    def fit(self, paths: Sequence[str | Path], y: Any = None) -> VideoEmbedder:
        """Fit the standardiser on the videos.

        Raises:
            TristreamError: a video that cannot be used.
        """
        self._fit(paths)
        return self

    def fit_transform(self, paths: Sequence[str | Path], y: Any = None) -> np.ndarray:
        """Fit, and return the standardised embeddings (n_videos, F); each video is read once."""
        X = self._fit(paths)
        return self.standardiser_.transform(X)

    def transform(self, paths: Sequence[str | Path]) -> np.ndarray:
        """Return the standardised embeddings (n_videos, F).

        Raises:
            TristreamError: a video that cannot be used.
        """
        X, _ = self._embed(paths)
        return self.standardiser_.transform(X)

    def _fit(self, paths: Sequence[str | Path]) -> np.ndarray:
        from tristream.fusion.standardise import fit_standardiser

        X, columns = self._embed(paths)
        self.standardiser_ = fit_standardiser(X, columns=columns)
        self.n_features_in_ = 1
        return X

    def _embed(self, paths: Sequence[str | Path]) -> tuple[np.ndarray, dict[str, slice]]:
        files = expand_paths(paths)
        embeddings = embed_files(Workspace.of(self.run), files, streams=self.streams)
        if embeddings.failures:
            sentence = next(iter(embeddings.sentences.values()))
            raise TristreamError(
                f"{len(embeddings.failures)} of {len(files)} videos cannot be used: {sentence}; "
                "leave them out of the list"
            )
        X, _, columns = fuse_tables(embeddings)
        return X, columns
