"""tristream demo: the whole job on rendered videos of known best accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.commands import (
    embed,
    fuse,
    index,
    options,
    report,
    screen,
    train_stream,
    workshop,
)
from tristream.files import write_json
from tristream.workspace import stream_names

PRESET = "workshop"
MARGIN = 10.0  # points of accuracy that one more stream must gain (SCIENCE.md section 3)


@screen.command
def run(
    out: Annotated[Path, typer.Option("--out", help="Folder for all results.")] = Path("runs/demo"),
    size: Annotated[str, typer.Option("--size", help="tiny, small or full.")] = "small",
    seed: options.Seed = 0,
    workers: options.Workers = options.WORKERS,
    as_json: options.Json = False,
) -> int:
    """Render the built-in data set, train three streams, embed, fuse, classify and detect anomalies.

    Prints accuracies beside the best possible ones, PASS or MISS for each ordering that must hold,
    and the paths of all results. Nothing is downloaded. It takes minutes on two cores; a second call
    is quick.
    """
    started = time.monotonic()
    common = {"cache": out / "cache", "seed": seed, "workers": workers}
    actions, anomalies = out / "actions", out / "anomalies"

    _step("1/6  rendering 16 classes of videos, and normal and abnormal scenes")
    _call(
        workshop.run, out=out / "videos", size=size, variant="classes", seed=seed, workers=workers
    )
    _call(
        workshop.run, out=out / "scenes", size=size, variant="anomalies", seed=seed, workers=workers
    )
    _step("2/6  indexing them")
    _call(index.run, data=out / "videos", run=actions, seed=seed, workers=workers)
    _call(index.run, data=out / "scenes", run=anomalies, seed=seed, workers=workers)
    _step("3/6  training the streams, each alone")
    for name in stream_names():
        _call(train_stream.run, name=name, run=actions, preset=PRESET, **common)
    _step("4/6  embedding every video, and classifying the action")
    _call(embed.run, run=actions, cache=common["cache"], workers=workers)
    _call(fuse.run, run=actions, preset=PRESET, **common)
    _step("5/6  detecting anomalies in scenes that the streams were not trained on")
    for name in stream_names():
        _call(train_stream.run, name=name, run=anomalies, from_run=actions, cache=common["cache"])
    _call(embed.run, run=anomalies, cache=common["cache"], workers=workers)
    _call(fuse.run, run=anomalies, preset=PRESET, **common)
    _step("6/6  comparing with the best possible results")
    classified = _ceilings(actions)
    detected = _kinds(anomalies, out / "scenes", seed)
    write_json(out / "demo.json", {"accuracy": classified, "auroc": detected})
    write_json(anomalies / "fusion" / "kinds.json", detected)
    for run, title in (
        (actions, "Which action? The built-in data set"),
        (anomalies, "What is abnormal? Its scenes"),
    ):
        _call(report.run, run=run, cache=common["cache"], workers=workers, title=title)
    written = {
        "videos": out / "videos",
        "embeddings": actions / "embeddings",
        "SVM and report": actions / "fusion",
        "anomaly detector": anomalies / "fusion",
        "reports to open": actions / "report.html",
        "": anomalies / "report.html",
        "these tables": out / "demo.json",
    }
    for what, path in written.items():
        screen.note(f"{what:17s} {path}")
    screen.note(
        f"done in {time.monotonic() - started:.0f} s. Your own videos next: tristream index --data DIR"
    )
    screen.emit(
        {"accuracy": classified, "auroc": detected, "seconds": round(time.monotonic() - started)},
        as_json=as_json,
    )
    return screen.OK


def _step(title: str) -> None:
    screen.people.rule(title, align="left", style="bold")


def _call(function: Callable[..., None], **arguments: Any) -> None:
    """Run another command as a user would; a failure ends the demo with its code."""
    try:
        function(**arguments)
    except typer.Exit as end:
        if end.exit_code != screen.OK:
            raise


def _ceilings(run: Path) -> dict[str, Any]:
    """Print and return the accuracy of every subset of streams, and the orderings that must hold."""
    import json

    from tristream.workshop.classes import CEILINGS

    report = json.loads((run / "fusion" / "report.json").read_text(encoding="utf-8"))
    reached = {
        name: 100 * subset["test_top1"]["value"]
        for name, subset in report["classification"]["subsets"].items()
    }
    spread = {
        name: subset["test_top1"] for name, subset in report["classification"]["subsets"].items()
    }
    rows = [
        [name, f"{value:.1f}", f"[{100 * spread[name]['low']:.1f}, {100 * spread[name]['high']:.1f}]",
         f"{CEILINGS[name]:.1f}" if name in CEILINGS else "-"]
        for name, value in reached.items()
    ]  # fmt: skip
    screen.table(
        "Which action? Test accuracy, %",
        ["streams", "reached", "95 % interval", "best possible"],
        rows,
    )
    checks = _orderings(reached)
    for words, holds in checks.items():
        (screen.note if holds else screen.warn)(f"{'PASS' if holds else 'MISS'}  {words}")
    return {"reached": reached, "orderings": checks}


def _orderings(reached: dict[str, float]) -> dict[str, bool]:
    """Return {sentence: True if it holds}."""
    from tristream.workshop.classes import CEILINGS

    by_size: dict[int, list[float]] = {}
    for name, value in reached.items():
        by_size.setdefault(name.count("+") + 1, []).append(value)
    best = {size: max(values) for size, values in by_size.items()}
    words = {1: "the best single stream", 2: "the best pair", 3: "all three streams"}
    checks = {}
    for less, more in ((1, 2), (2, 3)):
        if more in best:
            sentence = f"{words[more]} ({best[more]:.1f}) beats {words[less]} ({best[less]:.1f}) by {MARGIN:.0f} points"
            checks[sentence] = best[more] - best[less] >= MARGIN
    for name, value in reached.items():
        if "+" not in name and name in CEILINGS:
            near = CEILINGS[name] - 6 <= value <= CEILINGS[name] + 8
            checks[
                f"{name} alone ({value:.1f}) is near its ceiling ({CEILINGS[name]:.1f}: 6 below to 2 SE above)"
            ] = near
    return checks


def _kinds(run: Path, scenes: Path, seed: int) -> dict[str, dict[str, float]]:
    """Print and return the AUROC of each kind of anomaly, by each stream alone and by all."""
    from tristream.bench.kinds import kinds

    table = kinds(options.workspace(run), scenes, preset=PRESET, seed=seed)
    screen.table(
        "What is abnormal? AUROC (1: always found; 0.5: chance)",
        ["kind", *next(iter(table.values()))],
        [[name, *(f"{value:.2f}" for value in by.values())] for name, by in table.items()],
        caption="each kind against normal test videos of its own classes; audio_shifted is "
        "expected to fail: a mean over segments does not know when a sound comes",
    )
    return table
