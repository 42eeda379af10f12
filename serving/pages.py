"""The web page: drop a video, see label, probabilities and streams. It works without a script."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from tristream.serving.config import ServiceConfig

if TYPE_CHECKING:
    from tristream.serving.fusion import Fusion

_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def add_pages(app: FastAPI, service: Fusion, config: ServiceConfig) -> None:
    """Add the page at / and its form to an application."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    template = environment.get_template("page.html.j2")

    def page(status: int = 200, **values: Any) -> HTMLResponse:
        known = {"streams": list(service.pair.spaces), "found": None, "problem": ""}
        html = template.render({**known, "limit_mb": config.max_bytes >> 20, **values})
        headers = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
        return HTMLResponse(html, status, headers=headers)

    @app.get("/", include_in_schema=False)
    async def start() -> HTMLResponse:
        return page()

    @app.post("/", include_in_schema=False)
    async def judged(request: Request) -> HTMLResponse:
        pair = service.pair
        assert service.spool is not None
        try:
            async with service.spool.upload(request) as path:
                answers = await service.ask(pair, path, config.deadline_seconds)
            found = await asyncio.to_thread(service.predict, pair, answers, top=5, max_error=None)
        except HTTPException as error:
            return page(error.status_code, problem=str(error.detail))
        return page(found=found)

    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        data = (_HERE / name).read_bytes()

        def asset(data: bytes = data, kind: str = kind) -> Response:
            return Response(data, media_type=kind)

        app.get(f"/{name}", include_in_schema=False)(asset)
