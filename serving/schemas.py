"""Bodies of requests and answers: the contract that OpenAPI prints."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Answer of every error."""

    detail: str = Field(description="which thing, what it is, what it must be, what to do")


class StreamFacts(BaseModel):
    """One stream service."""

    stream: str
    space_id: str = Field(
        description="embedding space; only embeddings of one space are comparable"
    )
    embedding_dim: int
    max_bytes: int
    lineage: dict[str, Any]


class EmbedAnswer(BaseModel):
    """Embedding of one upload, or the reason why there is none."""

    stream: str
    space_id: str
    content_id: str = Field(description="sha256 of the upload")
    embedding: list[float] | None = Field(description="float32 values; null where masked")
    reason: str = Field(description="reason code of the mask; empty with an embedding")
    start_seconds: list[float] = Field(description="of each segment")
    stop_seconds: list[float]


class GivenEmbedding(BaseModel):
    """Embedding that a caller has already."""

    model_config = ConfigDict(extra="forbid")

    space_id: str
    embedding: list[float]


class DecideRequest(BaseModel):
    """Embeddings of one video in place of its file."""

    model_config = ConfigDict(extra="forbid")

    embeddings: dict[str, GivenEmbedding]


class PredictAnswer(BaseModel):
    """Action in one video."""

    label: str | None
    not_sure: bool
    top: list[dict[str, Any]]
    streams: list[str]
    masked: dict[str, str] = Field(
        description="{stream: reason}; service_down where it was not reached"
    )
    complete: bool = Field(description="False if a service was not reached")
    calibrated_for: str | None
    spaces: dict[str, str]


class DetectAnswer(BaseModel):
    """Anomaly score of one video."""

    anomaly_score: float
    threshold: float
    abnormal: bool
    shares: dict[str, float]
    nearest: list[str]
    masked: dict[str, str]
    complete: bool
    spaces: dict[str, str]


class SwitchRequest(BaseModel):
    """Addresses after a stream was retrained and `fuse` has run."""

    model_config = ConfigDict(extra="forbid")

    streams: dict[str, str] = Field(description="{stream: URL of its service}")
