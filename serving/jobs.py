"""Jobs in the background and their events."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import HTTPException

KEPT = 256  # finished jobs
MOST_RUNNING = 64
Tell = Callable[[str, dict[str, Any]], None]


class Job:
    """One job: its events so far and its result."""

    def __init__(self) -> None:
        self.state = "running"
        self.result: dict[str, Any] | None = None
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._changed = asyncio.Event()

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Add an event."""
        self._events.append((kind, data))
        self._changed.set()
        self._changed = asyncio.Event()

    def to_json(self) -> dict[str, Any]:
        """Return the state, and the result when it is done."""
        return {"state": self.state, "n_events": len(self._events), "result": self.result}

    async def events(self, after: int) -> AsyncIterator[str]:
        """Yield events as text of SSE, from the one after number `after` to the end of the job."""
        sent = after
        while True:
            changed = self._changed
            while sent < len(self._events):  # which may grow while one is being sent
                kind, data = self._events[sent]
                sent += 1
                yield f"id: {sent}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
            if self.state != "running":
                return
            try:
                await asyncio.wait_for(changed.wait(), 15)
            except TimeoutError:
                yield ": alive\n\n"


class Jobs:
    """Jobs of one service, the last ones kept."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Callable[[Tell], Awaitable[dict[str, Any]]]) -> str:
        """Run `work` in the background; return the name of the job.

        Raises:
            HTTPException: 429 if 64 are running.
        """
        if len(self._tasks) >= MOST_RUNNING:
            raise HTTPException(429, "too many jobs are running; try again later")
        job, name = Job(), secrets.token_urlsafe(16)
        self._jobs[name] = job
        while len(self._jobs) > KEPT:
            self._jobs.pop(next(iter(self._jobs)))
        task = asyncio.create_task(self._run(job, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return name

    def get(self, name: str) -> Job:
        """Return a job.

        Raises:
            HTTPException: 404 for an unknown name.
        """
        if name not in self._jobs:
            raise HTTPException(404, "there is no such job; the last 256 are kept")
        return self._jobs[name]

    async def close(self) -> None:
        """Cancel what is running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @staticmethod
    async def _run(job: Job, work: Callable[[Tell], Awaitable[dict[str, Any]]]) -> None:
        try:
            job.result = await work(job.tell)
            job.state = "done"
            job.tell("result", job.result)
        except HTTPException as error:
            job.state, job.result = "failed", {"detail": error.detail, "status": error.status_code}
            job.tell("failed", job.result)
        except BaseException:
            job.state, job.result = "failed", {"detail": "the service has failed", "status": 500}
            job.tell("failed", job.result)
            raise
