"""The parts that both kinds of service share: errors, probes, metrics and deadlines."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from tristream.errors import TristreamError
from tristream.serving.access import Access
from tristream.serving.config import ServiceConfig
from tristream.serving.schemas import Problem
from tristream.serving.telemetry import Telemetry

DEADLINE = "x-deadline-seconds"
LONGEST_SECONDS = 3600.0
PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (400, 401, 403, 409, 413, 421, 422, 429, 500, 503, 504)
}
_log = logging.getLogger("tristream.serving")


def make_app(
    title: str,
    config: ServiceConfig,
    telemetry: Telemetry,
    *,
    model: str,
    ready: Callable[[], str],
    lifespan: Any,
) -> FastAPI:
    """Return an application with probes, metrics, errors in one form and access control.

    Args:
        title: of the contract.
        config: limits and access.
        telemetry: behind /metrics.
        model: its name for the Open Inference Protocol.
        ready: "" if it can work, else the reason why not.
        lifespan: FastAPI's: opened before the first request and closed after the last.
    """
    app = FastAPI(title=title, version="1", lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        _count(telemetry, request, error.status_code)
        return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)

    @app.exception_handler(TristreamError)
    async def invalid(request: Request, error: TristreamError) -> JSONResponse:
        _count(telemetry, request, 422)
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        _count(telemetry, request, 500)
        _log.error("request failed", exc_info=error)
        return JSONResponse({"detail": "the service has failed; its log says why"}, 500)

    @app.middleware("http")
    async def counted(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        if response.status_code < 400:
            _count(telemetry, request, response.status_code)
        return response

    @app.get("/health", tags=["probes"])
    @app.get("/v2/health/live", tags=["probes"])
    async def health() -> dict[str, str]:
        """Answer at once, whatever the service is doing."""
        return {"status": "alive"}

    @app.get("/ready", tags=["probes"], responses=PROBLEMS)
    @app.get("/v2/health/ready", tags=["probes"], responses=PROBLEMS)
    async def is_ready() -> dict[str, str]:
        """Answer 503 until a real forward pass has been made."""
        if reason := ready():
            raise HTTPException(503, reason)
        return {"status": "ready"}

    @app.get("/v2/models/{name}", tags=["probes"], responses=PROBLEMS)
    async def model_facts(name: str) -> dict[str, Any]:
        """Describe the model for the Open Inference Protocol; it takes files, no tensors."""
        if name != model:
            raise HTTPException(404, f"there is no model '{name}' here; it is '{model}'")
        return {
            "name": model,
            "versions": ["1"],
            "platform": "tristream",
            "inputs": [],
            "outputs": [],
        }

    @app.get("/metrics", tags=["probes"])
    async def metrics() -> Response:
        """Print counters for Prometheus."""
        text, kind = telemetry.text()
        return Response(text, media_type=kind)

    app.add_middleware(Access, config=config, name=model)
    return app


def deadline_of(request: Request, config: ServiceConfig) -> float:
    """Return the seconds that a request may take.

    Raises:
        HTTPException: 400 for a header that is no positive number of at most an hour.
    """
    given = request.headers.get(DEADLINE)
    if given is None:
        return config.deadline_seconds
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_SECONDS:
        raise HTTPException(
            400, f"{DEADLINE} must be a number of seconds above 0 and at most {LONGEST_SECONDS:g}"
        )
    return seconds


def _count(telemetry: Telemetry, request: Request, status: int) -> None:
    route = request.scope.get("route")
    telemetry.requests.labels(getattr(route, "path", "unknown"), str(status)).inc()
