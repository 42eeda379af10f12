"""Requests of the fusion service to the stream services: one deadline, few retries, open circuits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

CONNECT_SECONDS = 1.0
MOST_FAILURES = 3  # in a row; then the service is left out until its /ready answers
BLOCK = 1 << 16
DOWN, BUSY, LATE, OTHER_SPACE = "service_down", "service_busy", "deadline", "other_space"


@dataclass(frozen=True)
class Answer:
    """Answer of one stream service.

    Attributes:
        embedding: (D,) float32; None where masked.
        reason: reason code of the mask: the stream's own, or service_down, service_busy, deadline,
            other_space.
        rejected: True if the file cannot be used.
        space_id: of the embedding.
        seconds: from the request to the answer.
    """

    embedding: np.ndarray | None
    reason: str = ""
    rejected: bool = False
    space_id: str = ""
    seconds: float = 0.0

    @property
    def is_down(self) -> bool:
        """True if nothing is known of the video because the service was not reached."""
        return self.reason in (DOWN, BUSY, LATE, OTHER_SPACE)


class Upstream:
    """One stream service.

    Args:
        name: of the stream.
        url: of its service.
        token: sent with every request; None: none.
    """

    def __init__(self, name: str, url: str, token: str | None = None) -> None:
        self.name, self.url = name, url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.AsyncClient(
            base_url=self.url, headers=self._headers, trust_env=False, follow_redirects=False
        )
        self._failures = 0

    async def facts(self) -> dict[str, object] | None:
        """Return /v1/stream; None if it does not answer."""
        try:
            response = await self._client.get("/v1/stream", timeout=5.0)
            return response.json() if response.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None

    async def embed(self, path: Path, *, space_id: str, seconds: float) -> Answer:
        """Return the embedding of a file within a deadline."""
        started = time.monotonic()
        if self._failures >= MOST_FAILURES and not await self._is_ready():
            return Answer(None, DOWN)
        for attempt in (1, 2):
            left = seconds - (time.monotonic() - started)
            if left <= 0:
                return self._failed(LATE)
            try:
                response = await self._client.post(
                    "/v1/embed",
                    content=_blocks(path),
                    headers={
                        "x-space-id": space_id,
                        "x-deadline-seconds": f"{left:.3f}",
                        "content-type": "application/octet-stream",
                        "content-length": str(path.stat().st_size),
                    },
                    timeout=httpx.Timeout(left, connect=min(CONNECT_SECONDS, left)),
                )
            except httpx.TimeoutException:
                return self._failed(LATE)
            except httpx.ConnectError:
                if attempt == 1:
                    continue
                return self._failed(DOWN)
            except httpx.HTTPError:
                return self._failed(DOWN)  # it may have worked on the request: no retry
            if response.status_code == 503 and attempt == 1:
                continue
            return self._answer(response, time.monotonic() - started)
        return self._failed(DOWN)

    def _answer(self, response: httpx.Response, seconds: float) -> Answer:
        code = response.status_code
        if code == 200:
            try:
                body = response.json()
                values, space = body["embedding"], body["space_id"]
                embedding = None if values is None else np.array(values, np.float32)
            except (ValueError, KeyError, TypeError):
                return self._failed(DOWN)
            self._failures = 0
            return Answer(embedding, body["reason"], space_id=space, seconds=seconds)
        if code == 422:
            self._failures = 0
            reason = str(response.json().get("detail", "")).rpartition(": ")[2]
            return Answer(None, reason, rejected=True, seconds=seconds)
        if code == 409:
            return Answer(None, OTHER_SPACE)
        if code == 429:
            return Answer(None, BUSY)
        return self._failed(LATE if code == 504 else DOWN)

    def _failed(self, reason: str) -> Answer:
        self._failures += 1
        return Answer(None, reason)

    async def _is_ready(self) -> bool:
        try:
            response = await self._client.get("/ready", timeout=CONNECT_SECONDS)
        except httpx.HTTPError:
            return False
        if response.status_code == 200:
            self._failures = 0
            return True
        return False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _blocks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(BLOCK):
            yield data
