"""Cross-process work claims: processes on one machine that share a cache compute each result once.

A claim is a socket bound to an abstract name: no file and nothing to clean up; it ends with its process, however that
ends. Where such names do not exist (other systems, other machines on a shared cache) every claim is granted, and a
result may be computed twice, with the same bits.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tristream.store.lineage import digest

PATIENCE_SECONDS = 600.0  # how long another process may take before we do it ourselves
_POLL_SECONDS = 0.1

Item = TypeVar("Item")
Result = TypeVar("Result")


class Claims:
    """Claims on names within one cache; a context manager that releases all of them at its end."""

    def __init__(self, cache: Path) -> None:
        self._scope = str(cache.resolve())
        self._held: dict[str, socket.socket] = {}

    def take(self, name: str) -> bool:
        """Claim `name`; return False if another process or another `Claims` holds it."""
        if not sys.platform.startswith("linux") or name in self._held:
            return True
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0tristream/{digest([self._scope, name])}")
        except OSError as error:
            claim.close()
            return error.errno != errno.EADDRINUSE  # for any other reason claims do not work here
        self._held[name] = claim
        return True

    def release(self, name: str) -> None:
        """Release `name`; do nothing if it is not held here."""
        if claim := self._held.pop(name, None):
            claim.close()

    def wait_for(self, name: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until no process holds `name`, or a timeout; do not claim it."""
        deadline = time.monotonic() + seconds
        while not self.take(name) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self.release(name)

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in list(self._held):
            self.release(name)


def in_turns(
    items: Sequence[Item],
    work: Callable[[Iterable[Item]], Iterator[Result]],
    claims: Claims,
    name: Callable[[Item], str],
) -> Iterator[Result]:
    """Yield the result of each item, in order; items that another process works on come last, when it has finished.

    It holds no claim while it waits, so two processes cannot wait for each other.

    Args:
        items: to be processed.
        work: draws items lazily and yields their results in the same order, from the cache if present.
        claims: released one by one as results come.
        name: of the claim on an item.
    """
    drawn: deque[int] = deque()
    later: list[int] = []
    ready: dict[int, Result] = {}

    def unclaimed() -> Iterator[Item]:
        for index, item in enumerate(items):
            if claims.take(name(item)):
                drawn.append(index)
                yield item
            else:
                later.append(index)

    def others() -> Iterator[Item]:
        for index in later:
            claims.wait_for(name(items[index]))
            drawn.append(index)
            yield items[index]

    turn = 0
    for part in (unclaimed, others):
        for result in work(part()):
            index = drawn.popleft()
            claims.release(name(items[index]))
            ready[index] = result
            while turn in ready:
                yield ready.pop(turn)
                turn += 1
