"""Decisions on uploads by the stream services that can be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from tristream.decision import Decision
from tristream.serving.config import FusionConfig
from tristream.serving.spool import Spool
from tristream.serving.telemetry import Telemetry
from tristream.serving.upstream import DOWN, Answer, Upstream
from tristream.workspace import Workspace

Told = Callable[[str, Answer], None]


@dataclass(frozen=True)
class Pair:
    """A decision and the services of its spaces; requests keep the one they began with."""

    decision: Decision
    upstreams: Mapping[str, Upstream]
    spaces: Mapping[str, str]


class Fusion:
    """Decisions on uploads by the streams that can be reached.

    Args:
        workspace: of the fused run.
        fusion: addresses of the stream services.
    """

    def __init__(self, workspace: Workspace, fusion: FusionConfig) -> None:
        self._workspace, self._fusion = workspace, fusion
        self.telemetry = Telemetry()
        self.spool: Spool | None = None
        self.pair = self._new_pair(fusion.streams)

    def _new_pair(self, streams: Mapping[str, str]) -> Pair:
        decision = Decision(self._workspace)
        spaces = decision.classifier_spaces
        unknown = sorted(set(streams) - set(spaces))
        if unknown:
            raise HTTPException(
                422, f"the run was not fused on '{unknown[0]}'; it has {', '.join(spaces)}"
            )
        upstreams = {
            name: Upstream(name, url, self._fusion.stream_token) for name, url in streams.items()
        }
        return Pair(decision, upstreams, spaces)

    async def switch(self, streams: Mapping[str, str]) -> Pair:
        """Take the decision that the run holds now and other services, in one step.

        Requests in flight finish with the old ones.

        Raises:
            HTTPException: 409 if a service is of another space than the new decision, 503 if one
                does not answer.
        """
        if not streams:
            raise HTTPException(422, "streams is empty; it must name the service of each stream")
        pair = self._new_pair(streams)
        for name, upstream in pair.upstreams.items():
            facts = await upstream.facts()
            if facts is None:
                raise HTTPException(503, f"{upstream.url} does not answer /v1/stream")
            if (facts.get("stream"), facts.get("space_id")) != (name, pair.spaces[name]):
                raise HTTPException(
                    409,
                    f"{upstream.url} serves '{facts.get('stream')}' in space "
                    f"{facts.get('space_id')}; the decision needs '{name}' in {pair.spaces[name]}",
                )
        self.pair = pair
        return pair

    async def ask(
        self, pair: Pair, path: Path, seconds: float, *, told: Told | None = None
    ) -> dict[str, Answer]:
        """Return the answer of each stream's service; `told` gets each as it arrives."""

        async def one(name: str) -> tuple[str, Answer]:
            upstream = pair.upstreams.get(name)
            if upstream is None:
                answer = Answer(None, DOWN)
            else:
                answer = await upstream.embed(path, space_id=pair.spaces[name], seconds=seconds)
            if answer.space_id not in ("", pair.spaces[name]):
                answer = Answer(None, "other_space")
            self.telemetry.seconds.labels(name).observe(answer.seconds)
            if answer.embedding is None:
                self.telemetry.masks.labels(name, answer.reason).inc()
            if told is not None:
                told(name, answer)
            return name, answer

        answers = dict(await asyncio.gather(*(one(name) for name in pair.spaces)))
        if all(answer.rejected for answer in answers.values()):
            first = next(iter(answers.values()))
            raise HTTPException(422, f"the upload cannot be used: {first.reason}")
        return answers

    def predict(
        self, pair: Pair, answers: Mapping[str, Answer], *, top: int, max_error: float | None
    ) -> dict[str, Any]:
        """Return the body of /v1/predict."""
        blocks = {name: answer.embedding for name, answer in answers.items()}
        [found] = pair.decision.predict(blocks, top=top, max_error=max_error)
        values = found.to_json()
        values.pop("path")
        values.pop("seen_in_training", None)
        return values | _masks(pair, answers)

    def detect(self, pair: Pair, answers: Mapping[str, Answer]) -> dict[str, Any]:
        """Return the body of /v1/detect."""
        columns = pair.decision.detector.spaces
        blocks = {name: answers[name].embedding for name in columns if name in answers}
        [found] = pair.decision.detect(blocks)
        values = found.to_json()
        values.pop("path")
        return values | _masks(pair, answers)


def _masks(pair: Pair, answers: Mapping[str, Answer]) -> dict[str, Any]:
    return {
        "masked": {n: answer.reason for n, answer in answers.items() if answer.embedding is None},
        "complete": not any(answer.is_down for answer in answers.values()),
        "spaces": dict(pair.spaces),
    }
