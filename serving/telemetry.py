"""Metrics of a service in the format of Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as _text


class Telemetry:
    """Counters of one service.

    Attributes:
        requests: by endpoint and status.
        seconds: by stage: "receive", "work", and a stream's name where one is asked.
        masks: by stream and reason.
        waiting: requests in the queue.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "tristream_requests", "Requests", ["endpoint", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "tristream_seconds", "Seconds per stage", ["stage"], registry=self._registry
        )
        self.masks = Counter(
            "tristream_masks", "Masked streams", ["stream", "reason"], registry=self._registry
        )
        self.waiting = Gauge("tristream_waiting", "Requests in the queue", registry=self._registry)

    def text(self) -> tuple[bytes, str]:
        """Return all metrics and their content type."""
        return _text(self._registry), CONTENT_TYPE_LATEST
