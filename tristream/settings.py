"""Settings in force: flag over TOML file over preset over default; unknown keys are refused."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from tristream import streams
from tristream.errors import UsageError
from tristream.keys import leaves, nearest, paths_of
from tristream.media.limits import DEFAULT_LIMITS, Limits
from tristream.paths import expanded
from tristream.pretrained import Pretrained
from tristream.streams.config import DataConfig, SamplerConfig

PRESETS = Path(__file__).with_name("presets")


class FusionConfig(BaseModel, extra="forbid", frozen=True):
    """The linear SVM (paper, sections III-D and IV-G)."""

    l2: float = Field(1e-2, gt=0, description="the paper's 'regularisation parameter'")
    reading: Literal["mean_hinge", "keras", "libsvm"] = Field(
        "mean_hinge", description="what l2 multiplies"
    )
    select: Literal["fixed", "grouped_cv"] = Field(
        "fixed", description="grouped_cv: l2 by cross-validation on train"
    )
    stream_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of training videos that lose one stream"
    )
    calibration: Literal["temperature", "platt"] = Field(
        "temperature", description="margins → probabilities, on val"
    )
    min_cosine: float = Field(
        0.97,
        gt=0,
        le=1,
        description="cosine between videos of two splits at which they are near duplicates",
    )


class DetectorConfig(BaseModel, extra="forbid", frozen=True):
    """Anomaly detector on fused embeddings (paper, section VII); keys as in `fusion.anomaly.autoencoder`."""

    kind: str = Field(
        "autoencoder",
        description="autoencoder, pca, knn, or pyod.NAME (pyod.ECOD, pyod.IForest, …)",
    )
    bottleneck: int | None = Field(
        None, ge=1, description="width of the code; none: as narrow as the videos allow"
    )
    hidden_dims: tuple[int, ...] | None = Field(
        None, description="none: one layer; []: a linear autoencoder"
    )
    stream_dropout: float = Field(
        0.5, ge=0, lt=1, description="share of training rows that lose one stream"
    )
    max_steps: int = Field(2000, ge=1, description="of training the autoencoder")
    combine: Literal["mean_max", "mean"] = Field(
        "mean_max", description="of the streams' errors; mean is the paper's"
    )
    quantile: float = Field(
        0.95, gt=0, lt=1, description="of normal validation scores: the threshold"
    )
    mean_sd: float | None = Field(
        None, gt=0, description="threshold = mean + this many standard deviations, instead"
    )
    false_alarms_per_hour: float | None = Field(
        None, gt=0, description="threshold by a budget, instead; for windows"
    )
    hysteresis: float = Field(
        0.1, ge=0, lt=1, description="an event ends below (1 − this) times the threshold"
    )
    min_seconds: float = Field(0.0, ge=0, description="shorter events are dropped")

    def autoencoder(self) -> dict[str, Any]:
        """Return the arguments of the autoencoder."""
        return self.model_dump(
            include={"bottleneck", "hidden_dims", "stream_dropout", "max_steps", "quantile"}
        )

    def rule(self) -> tuple[str, float]:
        """Return rule and level of the threshold, the arguments of `choose_threshold`."""
        if self.false_alarms_per_hour is not None:
            return "per_hour", self.false_alarms_per_hour
        if self.mean_sd is not None:
            return "mean_sd", self.mean_sd
        return "quantile", self.quantile


class LimitsConfig(BaseModel, extra="forbid", frozen=True):
    """Limits per file. They change no result: a file is within its limits or rejected."""

    max_bytes: int = Field(DEFAULT_LIMITS.max_bytes, ge=1, description="of the file")
    max_pixels: int = Field(DEFAULT_LIMITS.max_pixels, ge=256, description="of one frame")
    min_side_px: int = Field(DEFAULT_LIMITS.min_side_px, ge=1, description="of the shorter side")
    max_seconds: float = Field(DEFAULT_LIMITS.max_seconds, gt=0, description="playing time")
    max_frames: int = Field(DEFAULT_LIMITS.max_frames, ge=1, description="decoded frames")
    max_streams: int = Field(DEFAULT_LIMITS.max_streams, ge=1, description="tracks of any kind")
    open_seconds: float = Field(
        DEFAULT_LIMITS.open_seconds, gt=0, description="wall time before the first progress"
    )
    realtime_factor: float = Field(
        DEFAULT_LIMITS.realtime_factor, gt=0, description="wall seconds per second of video"
    )
    memory_bytes: int = Field(
        DEFAULT_LIMITS.memory_bytes, ge=128 << 20, description="address space of one process"
    )

    def to_limits(self) -> Limits:
        """Return the limits of the decoder."""
        return Limits(**self.model_dump())


SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "sampler": SamplerConfig,
    "fusion": FusionConfig,
    "detector": DetectorConfig,
    "limits": LimitsConfig,
}


@dataclass(frozen=True)
class Settings:
    """All settings in force and their source.

    Attributes:
        source: names of preset, file and assignments, in the order in which they apply.
        weights: {stream: {field: facts of its pretrained weights (source, sha256, licence)}}.
    """

    data: DataConfig
    sampler: SamplerConfig
    streams: Mapping[str, Any]
    fusion: FusionConfig
    detector: DetectorConfig
    limits: LimitsConfig
    source: str
    weights: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON stored with every artifact; files of weights appear by their sha256, not by their path."""
        parts = {name: getattr(self, name) for name in SECTIONS}
        return {
            "source": self.source,
            **{name: part.model_dump(mode="json") for name, part in parts.items()},
            "streams": {
                name: config.model_dump(mode="json") | dict(self.weights.get(name, {}))
                for name, config in self.streams.items()
            },
        }


def load(
    preset: str,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    *,
    stream_names: Sequence[str] = (),
    pretrained: Pretrained | None = None,
) -> Settings:
    """Return the settings in force.

    Args:
        preset: name of a shipped preset.
        file: TOML file of the user.
        assignments: "section.key=value", values as in TOML; the word none is no value.
        stream_names: streams to configure; loading one imports torch.
        pretrained: places of pretrained weights, and random weights in their place.

    Raises:
        UsageError: an unknown preset, key or value, with the valid ones named; weights that no
            place has.
    """
    merged, source = merge_all(preset, file, assignments, stream_names)
    parts = {name: validate(model, merged.get(name, {}), name) for name, model in SECTIONS.items()}
    configs: dict[str, Any] = {}
    known: dict[str, dict[str, Any]] = {}
    weights = pretrained or Pretrained()
    for name in stream_names:
        stream = streams.stream_class(name)
        needs = {"needs_pictures": stream.needs_pictures}
        values, known[name] = weights.encoder(merged["streams"].get(name, {}), f"streams.{name}")
        configs[name] = validate(stream.Config, values, f"streams.{name}")
        if not weights.precomputed_flow:
            configs[name], facts = weights.estimator(configs[name], f"streams.{name}", **needs)
            known[name] |= facts
        parts["sampler"], facts = weights.estimator(parts["sampler"], "sampler", **needs)
        known[name] |= {f"sampler {key}": value for key, value in facts.items()}
    return Settings(**parts, streams=configs, source=source, weights=known)


def check(
    preset: str,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    *,
    stream_names: Sequence[str] = (),
) -> None:
    """Refuse what `load` would refuse of keys and values, before torch is imported; no weights are read.

    Raises:
        UsageError: an unknown preset, key or value, with the valid ones named.
    """
    merged, _ = merge_all(preset, file, assignments, stream_names)
    for name, model in SECTIONS.items():
        validate(model, merged.get(name, {}), name)


def models() -> dict[str, type[BaseModel]]:
    """Return the model of every section; torch is not imported."""
    parts = {f"streams.{name}": streams.config_class(name) for name in streams.names()}
    return {**SECTIONS, **parts}


def merge_all(
    preset: str, file: Path | None, assignments: Sequence[str], stream_names: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """Return preset, file and assignments as one mapping, and their names.

    Sections of streams are validated if the file, an assignment or `stream_names` names them.

    Raises:
        UsageError: an unknown preset, section or key, or a value that a stream refuses.
    """
    path = PRESETS / f"{preset}.toml"
    if not path.exists():
        available = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
        raise UsageError(f"unknown preset '{preset}'; available: {available}")
    merged = _merge({}, _read(path))
    merged["streams"] = {k: v for k, v in merged.get("streams", {}).items() if k in streams.names()}
    source = f"preset {preset}"
    touched = set(stream_names)
    parts: list[tuple[str | Path, dict[str, Any]]] = []
    if file is not None:
        parts.append((file, _read(file)))
    parts += [(text, _assignment(text)) for text in assignments]
    for name, content in parts:
        merged, source = _merge(merged, content), f"{source}, {name}"
        _check_sections(content)
        touched |= set(content.get("streams", {}))
    for name, content in merged["streams"].items():
        if name not in streams.names():
            raise UsageError(
                f"unknown section [streams.{name}]; available: {', '.join(streams.names())}"
            )
        _check_section(f"streams.{name}", content)
        if name in touched:
            validate(streams.config_class(name), content, f"streams.{name}")
    return merged, source


def limits(file: Path | None, assignments: Sequence[str] = ()) -> Limits:
    """Return the limits per file, for commands that take all other settings from trained streams.

    Args:
        file: a TOML file; its other sections are ignored.
        assignments: "limits.key=value".

    Raises:
        UsageError: an unknown section or key, an invalid value, or an assignment to another section.
    """
    merged = {} if file is None else _read(file)
    _check_sections(merged)
    for assignment in assignments:
        given = _assignment(assignment)
        if set(given) != {"limits"}:
            raise UsageError(
                f"--set {assignment}: only limits.… can be set here; all else was fixed when the streams "
                "were trained"
            )
        merged = _merge(merged, given)
    _check_sections(merged)
    return validate(LimitsConfig, merged.get("limits", {}), "limits").to_limits()


def _check_sections(merged: Mapping[str, Any]) -> None:
    for section, content in merged.items():
        if section not in {*SECTIONS, "streams"}:
            unknown = leaves({section: content})
            raise UsageError(
                f"unknown section [{section}]; valid: {', '.join([*SECTIONS, 'streams.<name>'])}"
                + _suggestion(unknown)
            )
        _check_section(section, content)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(expanded(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--config {path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _assignment(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text} is not KEY=VALUE, e.g. sampler.n_samples=60")
    try:
        parsed = tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        try:
            parsed = tomllib.loads(f'{key} = "{value}"')
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"--set {text}: {error}") from error
    return parsed


def _check_section(name: str, content: Any) -> None:
    if not isinstance(content, Mapping):
        raise UsageError(f"[{name}] is {content!r}; it must be a section of keys")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = _merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = None if value == "none" else value  # TOML has no null
    return merged


def validate(model: type[Any], values: Mapping[str, Any], section: str) -> Any:
    """Return an instance of the section's model.

    Raises:
        UsageError: an unknown key or a value that it refuses; all of them in one message.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            "; ".join(_sentence(model, section, problem) for problem in error.errors())
        ) from error


def _sentence(model: type[Any], section: str, problem: Any) -> str:
    """Return a problem of pydantic as a sentence: the key, its value, what it must be."""
    if not problem["loc"]:  # of the section as a whole: two keys that do not go together
        return f"[{section}] {problem['msg'].removeprefix('Value error, ')}"
    *parents, key = [str(part) for part in problem["loc"]]
    path = ".".join([section, *parents])
    if problem["type"] == "extra_forbidden":
        for parent in parents:
            model = model.model_fields[parent].annotation
        return (
            f"unknown key '{key}' in [{path}]; valid: {', '.join(model.model_fields)}"
            + _suggestion(leaves({path: {key: problem["input"]}}))
        )
    return f"[{path}] {key} = {problem['input']!r}: {problem['msg']}"


def _suggestion(unknown: Iterable[str]) -> str:
    """Return "; did you mean …?" with the known keys most similar to the unknown ones."""
    paths = [path for name, model in models().items() for path in paths_of(name, model)]
    similar = [path for wanted in unknown for path in nearest(wanted, paths)]
    known = list(dict.fromkeys(similar))
    return f"; did you mean {', '.join(known)}?" if known else ""
