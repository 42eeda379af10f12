"""Service of the decision: it asks the stream services and answers with action or anomaly score."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from tristream.serving.app import PROBLEMS, deadline_of, make_app
from tristream.serving.config import FusionConfig, ServiceConfig
from tristream.serving.fusion import Fusion, Pair
from tristream.serving.jobs import Jobs
from tristream.serving.pages import add_pages
from tristream.serving.schemas import DecideRequest, DetectAnswer, PredictAnswer, SwitchRequest
from tristream.serving.spool import Spool
from tristream.serving.stream_app import BODY
from tristream.serving.upstream import Answer
from tristream.workspace import HasWorkspace, Workspace


def fusion_app(
    run: str | Path | Workspace | HasWorkspace,
    fusion: FusionConfig,
    config: ServiceConfig | None = None,
) -> FastAPI:
    """Return the ASGI application of the decision of a run.

    Args:
        run: a fused run, or its folder.
        fusion: addresses of the stream services; a stream without one is masked as service_down.
        config: limits and access.

    Raises:
        UsageError: `fuse` has not been run.
    """
    config = config or ServiceConfig()
    service = Fusion(Workspace.of(run), fusion)
    jobs = Jobs()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.spool = Spool(
            config.spool, max_bytes=config.max_bytes, total_bytes=config.spool_bytes
        )
        try:
            yield
        finally:
            await jobs.close()
            for upstream in service.pair.upstreams.values():
                await upstream.close()
            service.spool.close()

    app = make_app(
        "tristream fusion service",
        config,
        service.telemetry,
        model="fusion",
        ready=lambda: "",
        lifespan=lifespan,
    )

    async def answers_of(request: Request, require: str) -> tuple[Pair, dict[str, Answer]]:
        """Return the embeddings of a request: given as JSON, or of its file by the services."""
        started, pair = time.monotonic(), service.pair
        seconds = deadline_of(request, config)
        if request.headers.get("content-type", "").startswith("application/json"):
            return pair, _given(await _json(request), pair)
        assert service.spool is not None
        async with service.spool.upload(request) as path:
            left = max(0.001, seconds - (time.monotonic() - started))
            answers = await service.ask(pair, path, left)
        _check_required(require, pair, answers)
        return pair, answers

    body = {"requestBody": {"content": {**BODY["requestBody"]["content"],  # type: ignore[dict-item]
            "application/json": {"schema": DecideRequest.model_json_schema()}}, "required": True}}  # fmt: skip

    @app.post("/v1/predict", responses=PROBLEMS, openapi_extra=body)
    async def predict(
        request: Request,
        top: int = Query(5, ge=1, le=1000),
        max_error: float | None = Query(None, gt=0, lt=1),
        require: str = Query("", description="streams that must be reached, as a,b; else 503"),
    ) -> PredictAnswer:
        """Name the action in a video file, or in embeddings with their spaces."""
        pair, answers = await answers_of(request, require)
        found = await asyncio.to_thread(
            service.predict, pair, answers, top=top, max_error=max_error
        )
        return PredictAnswer.model_validate(found)

    @app.post("/v1/detect", responses=PROBLEMS, openapi_extra=body)
    async def detect(
        request: Request,
        require: str = Query("", description="streams that must be reached, as a,b; else 503"),
    ) -> DetectAnswer:
        """Score how abnormal a video file is, or embeddings with their spaces."""
        pair, answers = await answers_of(request, require)
        found = await asyncio.to_thread(service.detect, pair, answers)
        return DetectAnswer.model_validate(found)

    @app.post("/v1/switch", responses=PROBLEMS)
    async def switch(request: SwitchRequest) -> dict[str, Any]:
        """Swap decision and addresses in one step, after a stream was retrained and `fuse` has run."""
        pair = await service.switch(request.streams)
        return {"spaces": dict(pair.spaces)}

    @app.post("/v1/jobs", status_code=202, responses=PROBLEMS, openapi_extra=BODY)
    async def start_job(request: Request) -> dict[str, str]:
        """Begin a prediction whose streams are reported as they arrive; see /v1/jobs/{id}/events."""
        seconds, pair = deadline_of(request, config), service.pair
        assert service.spool is not None
        upload = contextlib.AsyncExitStack()
        path = await upload.enter_async_context(service.spool.upload(request))

        async def work(tell: Callable[[str, dict[str, Any]], None]) -> dict[str, Any]:
            async with upload:
                answers = await service.ask(
                    pair, path, seconds, told=lambda n, a: tell("stream", _told(n, a))
                )
            return await asyncio.to_thread(service.predict, pair, answers, top=5, max_error=None)

        return {"id": jobs.start(work)}

    @app.get("/v1/jobs/{job_id}", responses=PROBLEMS)
    async def job(job_id: str) -> dict[str, Any]:
        """Return the state of a job, and its result when it is done."""
        return jobs.get(job_id).to_json()

    @app.get("/v1/jobs/{job_id}/events", responses=PROBLEMS)
    async def events(request: Request, job_id: str) -> StreamingResponse:
        """Send the events of a job as they happen (SSE); Last-Event-ID resumes after one."""
        last = request.headers.get("last-event-id", "0")
        after = int(last) if last.isdigit() else 0
        return StreamingResponse(jobs.get(job_id).events(after), media_type="text/event-stream")

    add_pages(app, service, config)
    return app


def _told(name: str, answer: Answer) -> dict[str, Any]:
    return {
        "stream": name,
        "present": answer.embedding is not None,
        "reason": answer.reason,
        "seconds": round(answer.seconds, 3),
    }


def _check_required(require: str, pair: Pair, answers: Mapping[str, Answer]) -> None:
    for name in filter(None, require.split(",")):
        if name not in pair.spaces:
            raise HTTPException(
                422, f"require={name}: the run was fused on {', '.join(pair.spaces)}"
            )
        if answers[name].is_down:
            raise HTTPException(
                503, f"the service of '{name}' was not reached ({answers[name].reason})"
            )


async def _json(request: Request) -> DecideRequest:
    data = bytearray()
    async for block in request.stream():
        data += block
        if len(data) > 16 << 20:
            raise HTTPException(413, "embeddings as JSON may have at most 16 MiB")
    try:
        return DecideRequest.model_validate_json(bytes(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise HTTPException(422, f"{place}: {first['msg']}") from None


def _given(body: DecideRequest, pair: Pair) -> dict[str, Answer]:
    """Return the embeddings that a caller sends.

    Raises:
        HTTPException: 409 for another space, 422 for an unknown stream or another width.
    """
    answers = {}
    for name, given in body.embeddings.items():
        if name not in pair.spaces:
            raise HTTPException(
                422, f"unknown stream '{name}'; the run was fused on {', '.join(pair.spaces)}"
            )
        if given.space_id != pair.spaces[name]:
            raise HTTPException(
                409,
                f"the embedding of '{name}' is in space {given.space_id}; the decision was fitted "
                f"in {pair.spaces[name]}",
            )
        values = np.array(given.embedding, np.float32)
        if not np.isfinite(values).all():
            raise HTTPException(422, f"the embedding of '{name}' is not finite")
        answers[name] = Answer(values, space_id=given.space_id)
    missing = set(pair.spaces) - set(answers)
    return answers | {name: Answer(None, "not_given") for name in missing}
