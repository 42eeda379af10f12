"""Events as lines for people and rows for spreadsheets."""

from __future__ import annotations

from typing import Any

import typer

from tristream.commands import screen

STRONG_SHARE = (
    0.3  # a stream with at least this share of an event's error is named as having made it
)


def say_video(video: dict[str, Any]) -> None:
    """One line for the video and one for each of its events."""
    word = "ABNORMAL" if video["abnormal"] else "normal"
    typer.echo(
        screen.printable(
            f"{video['path']}: {word}  {video['anomaly_score']:.3f} (threshold {video['threshold']:.3f})  "
            f"{video['n_windows']} windows"
        )
    )
    for event in video["events"]:
        typer.echo(screen.printable("  " + event_words(event)))


def event_words(event: dict[str, Any]) -> str:
    """When, how high, which streams, where, and what is most like it."""
    shares = "  ".join(f"{name} {part:.0%}" for name, part in event["shares"].items())
    where = f"  at {event['region'].removeprefix('#xywh=')}" if event["region"] else ""
    near = f"  most like {', '.join(event['nearest'])}" if event["nearest"] else ""
    return (
        f"{event['start_seconds']:.2f}–{event['stop_seconds']:.2f} s  peak {event['peak_score']:.3f} at "
        f"{event['peak_seconds']:.2f} s  by {'+'.join(event['streams'])}  [{shares}]{where}{near}"
    )


def flat_event(row: Any) -> dict[str, Any]:
    """One event as a row of a spreadsheet."""
    flat = {
        name: value for name, value in row.items() if name not in ("shares", "nearest", "streams")
    }
    flat |= {f"share_{name}": part for name, part in row.get("shares", {}).items()}
    return {
        **flat,
        "streams": "+".join(row.get("streams", ())),
        "nearest": " ".join(row.get("nearest", ())),
    }
