"""One thread that works on requests in turn, with a bounded queue."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from fastapi import HTTPException

T = TypeVar("T")


class Worker:
    """Thread that runs functions one by one: networks and decode processes have one user.

    Args:
        max_waiting: functions in the queue; further ones are refused.
    """

    def __init__(self, max_waiting: int) -> None:
        self._queue: queue.Queue[tuple[Future[Any], Callable[[], Any]] | None] = queue.Queue(
            max_waiting
        )
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.qsize()

    async def run(self, function: Callable[[], T], *, seconds: float) -> T:
        """Return the result of a function.

        Args:
            function: runs in the worker's thread.
            seconds: deadline; a function that has not started by then is never run.

        Raises:
            HTTPException: 429 if the queue is full, 504 at the deadline.
        """
        future: Future[T] = Future()
        try:
            self._queue.put_nowait((future, function))
        except queue.Full:
            raise HTTPException(
                429, "the queue is full; try again later", headers={"Retry-After": "1"}
            ) from None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            raise HTTPException(504, f"no result within {seconds:g} s") from None

    def close(self) -> None:
        """End the thread after what it is working on."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            future, function = item
            if not future.set_running_or_notify_cancel():
                continue  # its request has given up
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
