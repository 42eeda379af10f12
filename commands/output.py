"""Results in files and lines: --out FILE.csv or FILE.json, events, detections, predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tristream.errors import UsageError
from tristream.files import write_csv, write_json

Row = Mapping[str, Any]


def check_out(out: Path | None) -> None:
    """Raise UsageError for a file that is neither .csv nor .json, before any work."""
    if out is not None and out.suffix not in (".csv", ".json"):
        raise UsageError(f"--out {out} ends in '{out.suffix}'; it must end in .csv or .json")


def write_out(out: Path | None, rows: Sequence[Row], flat: Callable[[Row], dict[str, Any]]) -> None:
    """Write the rows as .csv (flattened) or .json; nothing for None."""
    if out is None:
        return
    if out.suffix == ".json":
        write_json(out, list(rows))
        return
    cells = [flat(row) for row in rows]
    header = list(dict.fromkeys(name for row in cells for name in row))
    write_csv(out, header, [[row.get(name, "") for name in header] for row in cells])


def event_words(event: Row) -> str:
    """Return the line of one event: times, peak, streams, region and similar normal videos."""
    shares = "  ".join(f"{name} {part:.0%}" for name, part in event["shares"].items())
    region = f"  at {event['region'].removeprefix('#xywh=')}" if event["region"] else ""
    near = f"  most similar: {', '.join(event['nearest'])}" if event["nearest"] else ""
    return (
        f"{event['start_seconds']:.2f}–{event['stop_seconds']:.2f} s  "
        f"peak {event['peak_score']:.3f} at {event['peak_seconds']:.2f} s  "
        f"by {'+'.join(event['streams'])}  [{shares}]{region}{near}"
    )


def flat_event(row: Row) -> dict[str, Any]:
    """Return one event as a row of a spreadsheet."""
    flat = {k: v for k, v in row.items() if k not in ("shares", "nearest", "streams")}
    flat |= {f"share_{name}": part for name, part in row.get("shares", {}).items()}
    streams, nearest = row.get("streams", ()), row.get("nearest", ())
    return {**flat, "streams": "+".join(streams), "nearest": " ".join(nearest)}


def flat_detection(row: Row) -> dict[str, Any]:
    """Return the detection of a whole video as a row of a spreadsheet."""
    lists = ("shares", "masked", "nearest")
    shares = {f"share_{name}": part for name, part in row["shares"].items()}
    rest = {name: value for name, value in row.items() if name not in lists}
    words = {name: " ".join(row[name]) for name in ("masked", "nearest")}
    return {**rest, **shares, **words}


def flat_prediction(row: Row) -> dict[str, Any]:
    """Return one prediction as a row of a spreadsheet."""
    cells = {
        "path": row["path"],
        "label": row["label"] or "",
        "not_sure": str(row["not_sure"]).lower(),
    }
    for place, entry in enumerate(row["top"], start=1):
        cells |= {f"{name}_{place}": value for name, value in entry.items()}
    if row.get("seen_in_training"):
        cells["seen_in_training"] = "true"
    return cells | {"streams": " ".join(row["streams"]), "masked": " ".join(row["masked"])}
