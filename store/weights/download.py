"""Download of one file over https: complete and verified, or nothing."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import IO, Any

from tristream.errors import TristreamError

TIMEOUT_SECONDS = 30.0  # without a single byte
MIN_BYTES_PER_SECOND = 1_000  # on average over the time-out; less will not end today
CHUNK_BYTES = 1 << 18
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where the server says so


class DownloadFailed(TristreamError):
    """Failed or mismatched download; the message states what was found and what was expected.

    Attributes:
        network: the place could not be reached, which another try or machine may mend.
    """

    def __init__(self, sentence: str, *, network: bool = False) -> None:
        super().__init__(sentence)
        self.network = network


def download(
    address: str,
    target: IO[bytes],
    *,
    sha256: str = "",
    max_bytes: int,
    timeout_seconds: float = TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> str:
    """Download `address` to `target`; return its sha256.

    Args:
        address: https only, on every step of a redirection.
        target: file that the caller removes if this raises.
        sha256: what it must be, all 64 digits or the first few; "": not known.
        max_bytes: upper limit.
        timeout_seconds: without a byte, or at less than `MIN_BYTES_PER_SECOND`, the server is given up.
        progress: called now and then.

    Raises:
        DownloadFailed: no network, another answer than the file, a redirection to another protocol, a short, long or
            altered body, a server that is too slow.
    """
    _check_https(address)
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=ssl.create_default_context()), _OnlyHttps()
    )
    request = urllib.request.Request(
        address, headers={"User-Agent": "tristream", "Accept-Encoding": "identity"}
    )
    try:
        with opener.open(request, timeout=timeout_seconds) as answer:
            return _receive(answer, target, sha256, max_bytes, timeout_seconds, progress)
    except urllib.error.HTTPError as error:
        raise DownloadFailed(
            f"the server answers {error.code} {error.reason}", network=error.code >= 500
        ) from error
    except TimeoutError as error:
        raise DownloadFailed(
            f"the server sent nothing for {timeout_seconds:g} s", network=True
        ) from error
    except urllib.error.URLError as error:
        raise DownloadFailed(_unreachable(error.reason, timeout_seconds), network=True) from error
    except (http.client.HTTPException, OSError) as error:
        if (
            isinstance(error, OSError) and error.filename is not None
        ):  # the disk's fault, not the network's
            raise
        raise DownloadFailed(
            f"the connection broke ({error or type(error).__name__})", network=True
        ) from error


def _receive(
    answer: Any,
    target: IO[bytes],
    sha256: str,
    max_bytes: int,
    timeout_seconds: float,
    progress: Progress | None,
) -> str:
    length = answer.headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else None
    if total is not None and total > max_bytes:
        raise DownloadFailed(f"the server offers {total} bytes; at most {max_bytes} were expected")
    digest, n_bytes = hashlib.sha256(), 0
    since, n_before = time.monotonic(), 0
    while piece := answer.read1(CHUNK_BYTES):
        n_bytes += len(piece)
        if n_bytes > max_bytes:
            raise DownloadFailed(
                f"the server sends more than the {max_bytes} bytes that were expected"
            )
        digest.update(piece)
        target.write(piece)
        if progress is not None:
            progress(n_bytes, total)
        if (elapsed := time.monotonic() - since) > timeout_seconds:
            if (rate := (n_bytes - n_before) / elapsed) < MIN_BYTES_PER_SECOND:
                raise DownloadFailed(
                    f"the server is too slow: {rate:.0f} bytes a second after {n_bytes} bytes; "
                    f"at least {MIN_BYTES_PER_SECOND} are waited for",
                    network=True,
                )
            since, n_before = time.monotonic(), n_bytes
    if total is not None and n_bytes != total:
        raise DownloadFailed(f"the body is short: {n_bytes} of {total} bytes came", network=True)
    digits = digest.hexdigest()
    if not digits.startswith(sha256):
        raise DownloadFailed(
            f"its sha256 is {digits} ({n_bytes} bytes); it must {'be' if len(sha256) == 64 else 'begin with'} {sha256}"
        )
    return digits


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to another https address."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        _check_https(urllib.parse.urljoin(req.full_url, headers.get("Location", "")))
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _check_https(address: str) -> None:
    if not address.lower().startswith("https://"):
        raise DownloadFailed(f"the way leads to {address}; only https is followed")


def _unreachable(reason: Any, timeout_seconds: float) -> str:
    if isinstance(reason, TimeoutError):
        return f"no answer within {timeout_seconds:g} s"
    if isinstance(reason, ssl.SSLError):
        return f"its certificate is not trusted ({reason.reason or reason})"
    if isinstance(reason, socket.gaierror):
        return f"no network, or no such host ({os.strerror(0) if reason.errno == 0 else reason.strerror})"
    if isinstance(reason, OSError):
        return f"no connection ({reason.strerror or reason})"
    return f"no connection ({reason})"
