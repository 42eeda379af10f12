"""Access to a service: Host, Origin and token of every request, and a log line for each."""

from __future__ import annotations

import hmac
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from tristream.serving.config import ServiceConfig

OPEN_PATHS = ("/health", "/v2/health/live")  # of probes, which have no token


class Access:
    """ASGI middleware that refuses what a browser or a stranger must not send.

    A request's Host must be one of ours (no rebinding of names), an Origin must be the service
    itself (no other page), and the token, where there is one, must be right.
    """

    def __init__(self, app: Any, *, config: ServiceConfig, name: str) -> None:
        self._app, self._config, self._name = app, config, name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        refused = self._refused(headers, scope["path"])
        if refused is None:
            await self._app(scope, receive, noted)
        else:
            code, sentence = refused
            await _answer(noted, code, sentence)
        line = {
            "service": self._name,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(time.monotonic() - started, 4),
        }
        sys.stderr.write(json.dumps(line) + "\n")

    def _refused(self, headers: dict[str, str], path: str) -> tuple[int, str] | None:
        """Return the status and sentence of a refusal; None if the request may pass."""
        host = headers.get("host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name not in self._config.allowed_hosts:
            return 421, "this host name is not served here; allow it with --name"
        origin = headers.get("origin")
        if origin not in (None, "null") and urlsplit(str(origin)).netloc != host:
            return 403, "requests from pages of another origin are not accepted"
        if origin == "null":
            return 403, "requests without an origin of their own are not accepted"
        if self._config.token is None or path in OPEN_PATHS:
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(
            given.strip().encode(), self._config.token.encode()
        ):
            return 401, "the token is missing or wrong; send Authorization: Bearer TOKEN"
        return None


async def _answer(send: Any, code: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if code == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
