"""Where a video came from, as it may be written down: no password reaches a config, a table, JSON or a log."""

from __future__ import annotations

import re

HIDDEN = "***"
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>\S+)")
_SECRET = re.compile(
    r"([?&;][^=&;#\s]*(?:pass|pwd|token|secret|key|sig|auth|cred)[^=&;#\s]*=)[^&;#\s]+",
    re.IGNORECASE,
)


def redact(source: str) -> str:
    """The text with user names, passwords and tokens of every URL in it replaced by `***`; a path stays as it is.

    What could be a password counts as one: in `rtsp://admin:a/b@host` the part before the last `@` goes, though the
    standard would have that password escaped. Secrets that stand in the path itself are not recognised.
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
