"""Service of one trained stream: uploads in, embeddings out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException, Request, Response

from tristream.embedder import StreamEmbedder
from tristream.serving.app import PROBLEMS, deadline_of, make_app
from tristream.serving.config import ServiceConfig
from tristream.serving.schemas import EmbedAnswer, StreamFacts
from tristream.serving.spool import Spool
from tristream.serving.telemetry import Telemetry
from tristream.serving.worker import Worker
from tristream.workspace import HasWorkspace, Workspace

if TYPE_CHECKING:
    import pyarrow as pa

ARROW = "application/vnd.apache.arrow.stream"
SPACE = "x-space-id"
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


def stream_app(
    run: str | Path | Workspace | HasWorkspace, name: str, config: ServiceConfig | None = None
) -> FastAPI:
    """Return the ASGI application of one stream.

    The networks are built once, in one thread that works on requests in turn; nothing of an upload
    stays, in the cache or elsewhere.

    Args:
        run: a run, or its folder.
        name: of a trained stream.
        config: limits and access.

    Raises:
        UsageError: the stream is not trained.
    """
    config = config or ServiceConfig()
    embedder = StreamEmbedder(run, name, use_cache=False)
    telemetry, state = Telemetry(), _State()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.spool = Spool(
            config.spool, max_bytes=config.max_bytes, total_bytes=config.spool_bytes
        )
        state.worker = Worker(config.max_waiting)
        threading.Thread(target=_warm_up, args=(embedder, state), daemon=True).start()
        try:
            yield
        finally:
            state.worker.close()
            embedder.close()
            state.spool.close()

    app = make_app(
        f"tristream stream service: {name}",
        config,
        telemetry,
        model=name,
        ready=lambda: state.reason,
        lifespan=lifespan,
    )

    @app.get("/v1/stream", responses=PROBLEMS)
    async def facts() -> StreamFacts:
        """Name, space, width and limits of the stream."""
        return StreamFacts(
            stream=name,
            space_id=embedder.space_id,
            embedding_dim=embedder.embedding_dim,
            max_bytes=config.max_bytes,
            lineage=_plain(dict(embedder.stream.lineage)),
        )

    @app.post("/v1/embed", responses=PROBLEMS, response_model=EmbedAnswer, openapi_extra=BODY)
    async def embed(request: Request) -> Response | EmbedAnswer:
        """Embed one video file: the raw body, or the file of a form.

        The header X-Space-Id names the space that the caller expects.
        """
        started = time.monotonic()
        seconds = deadline_of(request, config)
        expected = request.headers.get(SPACE)
        if expected not in (None, embedder.space_id):
            raise HTTPException(
                409,
                f"the stream '{name}' is in space {embedder.space_id}, not in {expected}; embed and "
                "fuse the run again, or ask the service of that space",
            )
        assert state.spool is not None
        assert state.worker is not None
        async with state.spool.upload(request) as path:
            telemetry.seconds.labels("receive").observe(time.monotonic() - started)
            telemetry.waiting.set(state.worker.n_waiting + 1)
            left = seconds - (time.monotonic() - started)
            result = await state.worker.run(lambda: embedder.embed(path), seconds=max(left, 0.001))
        telemetry.waiting.set(state.worker.n_waiting)
        telemetry.seconds.labels("work").observe(time.monotonic() - started)
        if result.rejected and not result.absent:
            telemetry.masks.labels(name, result.reason).inc()
            raise HTTPException(422, f"the upload cannot be used: {result.reason}")
        if result.embedding is None:
            telemetry.masks.labels(name, result.reason).inc()
        if ARROW in request.headers.get("accept", ""):
            return Response(_ipc(result.to_arrow(name, embedder.embedding_dim)), media_type=ARROW)
        return EmbedAnswer(
            stream=name,
            space_id=result.space_id,
            content_id=result.content_id,
            embedding=None if result.embedding is None else result.embedding.tolist(),
            reason=result.reason,
            start_seconds=result.start_seconds.tolist(),
            stop_seconds=result.stop_seconds.tolist(),
        )

    return app


class _State:
    """Spool, worker and readiness of a running application."""

    def __init__(self) -> None:
        self.spool: Spool | None = None
        self.worker: Worker | None = None
        self.reason = "the networks are being loaded"


def _warm_up(embedder: StreamEmbedder, state: _State) -> None:
    """Embed a made-up video once, so that the first request does not wait for the networks."""
    import asyncio

    assert state.worker is not None
    try:
        asyncio.run(state.worker.run(embedder.warm_up, seconds=600))
        state.reason = ""
    except Exception as error:
        state.reason = f"the first forward pass has failed ({type(error).__name__}: {error})"


def _ipc(table: pa.Table) -> bytes:
    import io

    import pyarrow as pa

    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    import json

    return json.loads(json.dumps(value, default=str))
