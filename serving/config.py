"""Limits and access of a service."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tristream.errors import UsageError

TOKEN_VARIABLE = "TRISTREAM_TOKEN"
TOKEN_FILE_VARIABLE = "TRISTREAM_TOKEN_FILE"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ServiceConfig:
    """Limits and access of one service.

    Attributes:
        host: address to listen on.
        port: to listen on.
        token: that every request must bear; None: none, on loopback only.
        names: further host names that requests may use.
        max_bytes: of one upload.
        max_waiting: requests in the queue; further ones get 429.
        deadline_seconds: of a request that names none.
        spool: folder for uploads, private and emptied at the start; None: a new one.
        spool_bytes: of all uploads at once.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    names: tuple[str, ...] = ()
    max_bytes: int = 2 << 30
    max_waiting: int = 16
    deadline_seconds: float = 30.0
    spool: Path | None = None
    spool_bytes: int = 8 << 30

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.token:
            raise UsageError(
                f"--host {self.host} can be reached from other machines and needs a token: set "
                f"{TOKEN_VARIABLE}, or {TOKEN_FILE_VARIABLE} to a file that holds it"
            )
        if self.token is not None and len(self.token) < 16:
            raise UsageError(
                f"the token has {len(self.token)} characters; it must have at least 16"
            )

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Values of the header Host, without the port."""
        own = (self.host,) if self.host not in ("0.0.0.0", "::") else ()
        return frozenset({*LOOPBACK_NAMES, *own, *self.names})


@dataclass(frozen=True)
class FusionConfig:
    """Addresses that a fusion service asks.

    Attributes:
        streams: {stream: URL of its service}.
        stream_token: sent to them; None: none.
    """

    streams: Mapping[str, str] = field(default_factory=dict)
    stream_token: str | None = None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_from_environment() -> str | None:
    """Return the token of the environment or of the file that it names; None: there is none.

    Raises:
        UsageError: a file that cannot be read or is empty.
    """
    if file := os.environ.get(TOKEN_FILE_VARIABLE):
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UsageError(
                f"{TOKEN_FILE_VARIABLE}={file} cannot be read ({error.strerror})"
            ) from error
        if not token:
            raise UsageError(f"{TOKEN_FILE_VARIABLE}={file} is empty; it must hold the token")
        return token
    return os.environ.get(TOKEN_VARIABLE) or None
