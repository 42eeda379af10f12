"""Provenance of a run and its rejected videos: tables from videos.csv, checkpoints and lineage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tristream.dataset.video_row import VideoRow
from tristream.media.reasons import DEGRADED, REJECTED
from tristream.report.collect import Run
from tristream.report.markup import clock

SPLITS = ("train", "val", "test", "unlabelled")


def left_out(run: Run, most: int) -> dict[str, Any]:
    """States of the videos, reasons with their meaning, and the first `most` rejected ones."""
    counts = Counter(row.get("status", "") for row in run.status)
    notes = {
        "ok": "every stream could use them in full",
        "degraded": "used, with something missing or damaged",
        "rejected": "could be used by no stream",
    }
    reasons = Counter(reason for row in run.status for reason in (row.get("reasons") or "").split())
    meaning = {**DEGRADED, **REJECTED}
    return {
        "states": [(name, counts.get(name, 0), note) for name, note in notes.items()]
        if run.status
        else [],
        "reasons": [(reason, n, meaning.get(reason, "")) for reason, n in reasons.most_common()],
        "failures": [
            {key: row.get(key, "") for key in ("video_id", "reason", "sentence")}
            for row in run.failures[:most]
        ],
        "n_more_failures": max(0, len(run.failures) - most),
    }


def lineage(run: Run) -> dict[str, Any]:
    """Split, streams, versions and settings."""
    streams = [
        {"name": name, "facts": _facts(run, name, config)}
        for name, config in sorted(run.configs.items())
    ]
    keys = dict.fromkeys(key for stream in streams for key in stream["facts"])
    versions: dict[str, set[str]] = {}
    for config in run.configs.values():
        for name, version in (config.get("versions") or {}).items():
            versions.setdefault(name, set()).add(str(version))
    groups = {row.group for row in run.rows}
    words = f"groups are {'single videos' if len(groups) == len(run.rows) else 'recordings'} and never cross splits"
    return {
        "splits": [
            _split(name, found)
            for name in SPLITS
            if (found := [r for r in run.rows if r.split == name])
        ],
        "group_words": words if run.rows else "",
        "made_of": streams,
        "made_of_keys": list(keys),
        "versions": [
            (name, " and ".join(sorted(found))) for name, found in sorted(versions.items())
        ],
        "settings": _settings(run),
    }


def _split(name: str, rows: list[VideoRow]) -> dict[str, Any]:
    seconds = [row.duration_seconds for row in rows if row.duration_seconds is not None]
    sound = [row.has_audio for row in rows if row.has_audio is not None]
    return {
        "split": name,
        "n": len(rows),
        "groups": len({row.group for row in rows}),
        "classes": len({row.label for row in rows if row.label}),
        "sound": sum(sound) if sound else "–",
        "length": clock(sum(seconds)) if seconds else "–",
    }


def _facts(run: Run, name: str, stored: Mapping[str, Any]) -> dict[str, str]:
    """Facts of one stream, in words."""
    config, about = stored.get("config") or {}, stored.get("lineage") or {}
    rnn = config.get("aggregator") or {}
    facts = {"encoder": str(config.get("encoder", "the stream's own network"))}
    if "estimator" in config:
        facts["optical flow"] = str(config["estimator"])
    facts["pretrained weights"] = _weights(config, about)
    if rnn:
        direction = "bidirectional " if rnn.get("bidirectional") else ""
        layers = (
            f"{rnn.get('n_layers')} × {rnn.get('hidden_dim')}"
            if "gru" in str(rnn.get("kind"))
            else ""
        )
        facts["aggregator"] = f"{direction}{rnn.get('kind')} {layers}".strip()
    if "n_train" in about:
        facts["trained on"] = (
            f"{about['n_train']} videos, {about.get('n_val', '–')} to choose the epoch by"
        )
    if origin := run.origins.get(name):
        facts["taken from"] = str(origin.get("run", ""))
    if "seed" in about:
        facts["seed"] = str(about["seed"])
    if "seconds" in about:
        facts["training took"] = clock(float(about["seconds"]))
    if present := (run.lineage.get("present") or {}).get(name):
        facts["embedded"] = f"{present} of {run.lineage.get('n_videos', '–')} videos"
    facts["embedding space"] = str(stored.get("space_id", "–"))
    facts["sha256 of the encoder"] = str(stored.get("encoder_sha256", "–"))[:16] + "…"
    facts["sha256 of all weights"] = str(stored.get("model_sha256", "–"))[:16] + "…"
    return facts


def _weights(config: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return names and licences of a stream's pretrained weights."""
    if about.get("random_weights") is not None:
        return f"random in place of pretrained ones, seed {about['random_weights']}"
    known = about.get("weights") or {}
    if known:
        return "; ".join(
            f"{w.get('name', what)} (licence: {w.get('licence') or 'not known'})"
            for what, w in known.items()
        )
    return str(config.get("encoder_weights") or "none: trained here, from scratch")


def rehearsed(run: Run) -> list[str]:
    """Return the streams whose figures are meaningless: random weights replace pretrained ones."""
    return [
        name
        for name, stored in sorted(run.configs.items())
        if (stored.get("lineage") or {}).get("random_weights") is not None
    ]


def _settings(run: Run) -> list[tuple[str, str]]:
    """Settings: those shared by all streams first, then each stream's own."""
    rows = []
    for name, stored in sorted(run.configs.items()):
        about = stored.get("lineage") or {}
        source = (about.get("settings") or {}).get("source", "")
        own = {key: stored[key] for key in ("data", "sampler", "config") if key in stored}
        rows.append(
            (
                f"{name}{f' ({source})' if source else ''}",
                json.dumps(own, indent=1, ensure_ascii=False),
            )
        )
    return rows


def sampler_words(run: Run) -> str:
    """Sampling of segments, one sentence."""
    samplers = [config["sampler"] for config in run.configs.values() if config.get("sampler")]
    if not samplers:
        return ""
    first = samplers[0]
    how = "Dense where there is motion" if first.get("method") == "adaptive" else "Evenly spread"
    return f"{how}: at most {first.get('n_samples')} a video, within its first {first.get('max_seconds')} s."
