"""tristream predict: the action in new videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from tristream.commands import options, screen, settings
from tristream.commands.workspace import Workspace
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.fusion.action.classifier import CalibratedSVM


@screen.command
def run(
    paths: Annotated[list[Path], typer.Argument(help="Video files.")],
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    top: Annotated[
        int, typer.Option("--top", min=1, help="How many labels to name for each video.")
    ] = 5,
    max_error: Annotated[
        float | None,
        typer.Option(
            "--max-error",
            min=0,
            max=1,
            metavar="SHARE",
            help="Say 'not sure' so that at most this share of what is named is wrong, as on val.",
        ),
    ] = None,
    more_runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="RUN",
            help="Also ask this run, and average the probabilities; repeatable.",
        ),
    ] = None,
    stream_list: options.Streams = None,
    flow_from: options.FlowFrom = None,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    follow_links: options.FollowLinks = False,
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write the result to FILE.csv or FILE.json.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Name the action in new videos, with calibrated probabilities where `fuse` had validation videos to find them on.

    Without them the numbers are margins of the SVM (any real number). A stream that a video does not have is masked,
    and said to be; --streams masks the others on purpose. Several runs that know the same classes (--with) are an
    ensemble: their probabilities are averaged.
    """
    from tristream.commands.decide import check_out, write_out
    from tristream.commands.workspace import chosen_streams

    check_out(out)
    wanted = chosen_streams(stream_list)
    limits = settings.limits(config, assignments or ())
    workspaces = [
        Workspace(each, cache, weights_dir=weights_dir, limits=limits, follow_links=follow_links)
        for each in (run, *(more_runs or ()))
    ]
    found = [
        _machine(workspace, wanted) for workspace in workspaces
    ]  # whatever is wrong is said before any work
    if more_runs:
        _check_ensemble(
            [workspace.run for workspace in workspaces],
            [machine for machine, _ in found],
            max_error,
        )
    limit = None if max_error is None else found[0][0].rejection(max_error).confidence
    asked = [
        _ask(
            workspace,
            machine,
            spaces,
            paths,
            wanted,
            device=device,
            workers=workers,
            flow_from=flow_from,
        )
        for workspace, (machine, spaces) in zip(workspaces, found, strict=True)
    ]
    failed = {path: reason for one in asked for path, reason in one.failed.items()}
    named = [str(path) for path in paths if any(str(path) in one.margins for one in asked)]
    rows: list[dict[str, Any]] = [
        {"path": path, **(_averaged(asked, path, top=top) if more_runs else _decided(asked[0], path, top=top,
                                                                                    limit=limit))}
        for path in named
    ]  # fmt: skip
    _say_scores(asked, max_error, limit)
    for row in rows if not as_json else ():
        typer.echo(screen.printable(_line(row)))
    write_out(out, rows, _flat)
    screen.emit({"predictions": rows, "rejected": failed}, as_json=as_json)
    return screen.SOME_REJECTED if failed else screen.OK


@dataclass(frozen=True)
class _Asked:
    """One run and what it has said.

    Attributes:
        margins, masks: {path as typed: of the classes; of the streams in the order of `names`}.
        failed: {path: reason}.
    """

    machine: CalibratedSVM
    names: list[str]
    margins: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    failed: dict[str, str]


def _machine(
    workspace: Workspace, wanted: Sequence[str] | None
) -> tuple[CalibratedSVM, dict[str, str]]:
    """The classifier of a run and the spaces it was fitted in.

    Raises:
        UsageError: there is none, or it does not know a stream that is wanted.
    """
    from tristream.commands.decide import load_decision
    from tristream.fusion.action.classifier import CalibratedSVM

    arrays, config = load_decision(workspace.fusion_dir / "svm", workspace.run)
    machine = CalibratedSVM.from_arrays(arrays, config)
    names = list(machine.svm.standardiser.columns)
    if wanted and set(wanted) - set(names):
        raise UsageError(
            f"the SVM does not know '{(set(wanted) - set(names)).pop()}'; it has {', '.join(names)}"
        )
    return machine, config["spaces"]


def _check_ensemble(
    runs: Sequence[Path], machines: Sequence[CalibratedSVM], max_error: float | None
) -> None:
    if max_error is not None:
        raise UsageError(
            "--max-error and --with exclude each other: no validation video has seen the ensemble"
        )
    first = machines[0].svm.classes_.tolist()
    for run, machine in zip(runs, machines, strict=True):
        if machine.calibration is None:
            raise UsageError(
                f"{run} has no calibrated probabilities to average: fuse had no validation videos"
            )
        classes = machine.svm.classes_.tolist()
        if classes != first:
            odd = next(iter(set(classes) ^ set(first)))
            raise UsageError(
                f"{run} and {runs[0]} do not know the same classes (only one has '{odd}'); an ensemble is of one task"
            )


def _ask(
    workspace: Workspace,
    machine: CalibratedSVM,
    spaces: Mapping[str, str],
    paths: Sequence[Path],
    wanted: Sequence[str] | None,
    *,
    device: str,
    workers: int,
    flow_from: Path | None,
) -> _Asked:
    """Embeds the videos as this run does, and gives the margins of its SVM."""
    from tristream.commands.decide import embed_new

    names = list(machine.svm.standardiser.columns)
    new = embed_new(
        paths, workspace, spaces, names, device=device, workers=workers, flow_from=flow_from
    )
    failed = {new.name(r): r.rejected_reason for r in new.results if r.rejected}
    if not len(new.X):
        return _Asked(machine, names, {}, {}, failed)
    masks = new.masks & machine.svm.standardiser.known
    if wanted:
        masks = masks & [name in wanted for name in names]
    margins = machine.svm.decision_function(new.X, masks=masks)
    typed = [new.name(result) for result in new.usable]
    return _Asked(
        machine,
        names,
        dict(zip(typed, margins, strict=True)),
        dict(zip(typed, masks, strict=True)),
        failed,
    )


def _decided(asked: _Asked, path: str, *, top: int, limit: float | None) -> dict[str, Any]:
    """What one video is called and how sure that is; no label where it has no stream or is below the limit."""
    machine, margin, mask = asked.machine, asked.margins[path], asked.masks[path]
    sure = machine.probabilities(margin[None])[0] if machine.calibration else None
    best = np.argsort(-margin, kind="stable")[:top]
    entries: list[dict[str, Any]] = []
    for k in best:
        entry = {"label": str(machine.svm.classes_[k]), "score": round(float(margin[k]), 6)}
        entries.append(
            entry if sure is None else {**entry, "probability": round(float(sure[k]), 6)}
        )
    not_sure = bool(limit is not None and sure is not None and sure[best[0]] < limit)
    return {
        "label": entries[0]["label"] if mask.any() and not not_sure else None,
        "not_sure": not_sure,
        "top": entries,
        "streams": [name for name, used in zip(asked.names, mask, strict=True) if used],
        "masked": [name for name, used in zip(asked.names, mask, strict=True) if not used],
    }


def _averaged(asked: Sequence[_Asked], path: str, *, top: int) -> dict[str, Any]:
    """The same by several runs: the mean of the probabilities of those that have a stream to go by."""
    from tristream.fusion.action.score_fusion import mean_scores

    classes = asked[0].machine.svm.classes_
    able = [one for one in asked if path in one.margins and one.masks[path].any()]
    used = {
        name for one in able for name, mask in zip(one.names, one.masks[path], strict=True) if mask
    }
    every = {name for one in asked for name in one.names}
    entries = []
    if able:
        p = mean_scores([one.machine.probabilities(one.margins[path][None]) for one in able])[0]
        best = np.argsort(-p, kind="stable")[:top]
        value = [round(float(p[k]), 6) for k in best]
        entries = [
            {"label": str(classes[k]), "score": v, "probability": v}
            for k, v in zip(best, value, strict=True)
        ]
    return {
        "label": entries[0]["label"] if entries else None,
        "not_sure": False,
        "top": entries,
        "streams": sorted(used),
        "masked": sorted(every - used),
        "n_runs": len(able),
    }


def _say_scores(asked: Sequence[_Asked], max_error: float | None, limit: float | None) -> None:
    """What the numbers are."""
    if len(asked) > 1:
        screen.note(
            f"the numbers are the mean of the calibrated probabilities of {len(asked)} runs"
        )
        return
    machine = asked[0].machine
    if machine.calibration is None:
        screen.note(
            "the numbers are margins of the SVM, not probabilities: fuse had no validation videos"
        )
        return
    screen.note(
        f"the numbers are probabilities, calibrated on {len(machine.hits)} validation videos"
    )
    if max_error is not None and limit is not None:
        from tristream.fusion.intervals import wilson_interval

        named = machine.confidence >= limit
        n_wrong = int((named & ~machine.hits).sum())
        screen.note(
            f"not sure below {limit:.2f}: of the {len(named)} validation videos {int(named.sum())} reach it, of which "
            f"{n_wrong} were named wrongly, at most {100 * max_error:g} %; on so few the true share is only known to "
            f"be below {100 * wilson_interval(n_wrong, int(named.sum()))[1]:.0f} % (95 % interval)"
        )


def _line(row: dict[str, Any]) -> str:
    scores = "  ".join(
        f"{entry['label']} {entry['probability']:.2f}" if "probability" in entry
        else f"{entry['label']} {entry['score']:+.2f}"
        for entry in row["top"]
    )  # fmt: skip
    word = row["label"] or ("not sure" if row["not_sure"] else "nothing to go by")
    masked = f"; masked: {', '.join(row['masked'])}" if row["masked"] else ""
    return f"{row['path']}: {word}  [{scores}]  (by {', '.join(row['streams']) or 'no stream'}{masked})"


def _flat(row: Any) -> dict[str, Any]:
    cells = {
        "path": row["path"],
        "label": row["label"] or "",
        "not_sure": str(row["not_sure"]).lower(),
    }
    for place, entry in enumerate(row["top"], start=1):
        cells |= {f"{name}_{place}": value for name, value in entry.items()}
    return cells | {"streams": " ".join(row["streams"]), "masked": " ".join(row["masked"])}
