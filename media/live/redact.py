"""Removal of secrets from sources: no password reaches a config, a table, JSON or a log."""

from __future__ import annotations

import re

HIDDEN = "***"
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>\S+)")
_SECRET = re.compile(
    r"([?&;][^=&;#\s]*(?:pass|pwd|token|secret|key|sig|auth|cred)[^=&;#\s]*=)[^&;#\s]+",
    re.IGNORECASE,
)


def redact(source: str) -> str:
    """Replace user names, passwords and tokens in every URL of a text by `***`; paths stay.

    Anything that could be a password counts as one: in `rtsp://admin:a/b@host` the part before the last `@` is removed,
    though the standard requires such a password to be escaped. Secrets in the path itself are not recognised.
    """

    def clean(url: re.Match[str]) -> str:
        return url["scheme"] + _SECRET.sub(rf"\g<1>{HIDDEN}", _without_user(url["rest"]))

    return _URL.sub(clean, source)


def _without_user(rest: str) -> str:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in rest or not ("@" in authority or ":" in authority):
        return rest
    before_query = rest.partition("?")[0]
    end = (before_query if "@" in before_query else rest).rfind("@")
    return HIDDEN + rest[end:]
