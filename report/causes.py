"""Names of causes: motion, appearance and audio for the streams of the paper, the stream's own name otherwise."""

from __future__ import annotations

from collections.abc import Mapping

CAUSES = {"temporal": "motion", "spatial": "appearance", "audio": "audio"}


def cause(stream: str) -> str:
    """Return the plain name of a stream's evidence: "motion" for temporal."""
    return CAUSES.get(stream, stream)


def cause_and_stream(stream: str) -> str:
    """Return the cause with the stream's name beside it where the two differ: "motion (temporal)"."""
    name = cause(stream)
    return name if name == stream else f"{name} ({stream})"


def main_cause(shares: Mapping[str, float]) -> str:
    """Return the cause with the largest share of the score; "" without shares."""
    return cause(max(shares, key=lambda stream: shares[stream])) if shares else ""
