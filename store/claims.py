"""Cross-process work claims: processes on one machine that share a cache do each thing once.

A claim is a socket bound to an abstract name: no file, nothing to clean up, and it ends with its process, however that
may end. Where there are no such names (other systems, other machines on a shared cache) every claim is granted, and a
thing may be done twice, with the same result.
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
    """Claims on names, within one cache; leave by `with`, and none stays."""

    def __init__(self, cache: Path) -> None:
        self._scope = str(cache.resolve())
        self._held: dict[str, socket.socket] = {}

    def take(self, name: str) -> bool:
        """Claims `name`; False if another process has it, or another `Claims`."""
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
        """Return `name` up; nothing, if it is not ours."""
        if claim := self._held.pop(name, None):
            claim.close()

    def wait_for(self, name: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until nobody has `name` any more, or it has taken too long; does not claim it."""
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
    """The result of each item, in their order; what another process is at comes last, when that has finished it.

    While it waits it has no claims, so two processes cannot wait for each other.

    Args:
        items: what is to be done.
        work: lazily draws items and gives their results in the same order, from the cache where they are there.
        claims: released one by one as results come.
        name: what an item is claimed under.
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
