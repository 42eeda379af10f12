"""Flow estimators of the streams: each is loaded once, learned ones with pretrained weights."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tristream.flow import estimators
from tristream.store import weights
from tristream.store.weights import catalogue
from tristream.streams.backend import as_function

if TYPE_CHECKING:
    from pathlib import Path

    from tristream.flow.estimators import FlowEstimator
    from tristream.flow.network import Compile
    from tristream.store.weights.library import Places
    from tristream.streams.backend import Backend

PAIRS_ON_A_GPU = (
    8  # at once: FlowNet 2.0 takes 8 ms a pair on an H100, 27 ms one by one (bench gpu)
)


class Estimators:
    """Flow estimators by name.

    Args:
        seeds: {learned estimator: seed of random weights that replace its pretrained ones}.
        where: places of pretrained weights; None: the usual ones.
        backend: runs the learned ones; None: plain torch.
    """

    def __init__(
        self,
        seeds: Mapping[str, int] | None = None,
        *,
        where: Places | None = None,
        backend: Backend | None = None,
    ) -> None:
        self._seeds = dict(seeds or {})
        self._where = where
        self.backend = backend
        self._loaded: dict[str, FlowEstimator] = {}
        self._lock = threading.Lock()

    def load(self, name: str) -> FlowEstimator:
        """Return the estimator of this name; thread-safe.

        Raises:
            TristreamError: an unknown name.
            Missing: weights that are in none of the places.
        """
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = estimators.load(
                    name,
                    weights=self._weights(name),
                    compile=self._compile(),
                    batch_size=self._batch_size(),
                )
            return self._loaded[name]

    def check(self, names: Iterable[str]) -> None:
        """Check before any work that the weights of some estimators are available.

        Raises:
            Missing: weights that are in none of the places.
        """
        for name in sorted(set(names)):
            self._weights(name)

    def identity(self, name: str) -> str:
        """Return the name and the identity of its weights: sha256 of the published file, or the seed of random ones.

        Nothing is loaded: loading refuses a file of other bytes.
        """
        if not estimators.is_learned(name):
            return name
        if name in self._seeds:
            return f"{name}, random weights {self._seeds[name]}"
        return f"{name}, weights {published_sha256(name)}"

    def key(self, name: str) -> str:
        """Return what determines the bits of its flow: `identity`, and the engine unless that is torch on a CPU."""
        if self.backend is None or not estimators.is_learned(name):
            return self.identity(name)
        engine = self.backend.identity()["backend"]
        return self.identity(name) if engine == "torch-cpu" else f"{self.identity(name)}, {engine}"

    def _weights(self, name: str) -> Path | int | None:
        if not estimators.is_learned(name):
            return None
        if name in self._seeds:
            return self._seeds[name]
        return weights.get(estimators.weights_name(name), where=self._where)

    def _compile(self) -> Compile | None:
        return None if self.backend is None else as_function(self.backend)

    def _batch_size(self) -> int:
        return 1 if self.backend is None or self.backend.device.type == "cpu" else PAIRS_ON_A_GPU


def published_sha256(name: str) -> str:
    """Return the known digits of the sha256 of a learned estimator's published weights: all, or the first eight."""
    known_as = estimators.weights_name(name)
    return catalogue.describe(known_as, quick=True).sha256 or catalogue.describe(known_as).sha256
