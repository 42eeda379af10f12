"""tristream predict: the action in new videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from commands import options, screen
from commands.workspace import Workspace

if TYPE_CHECKING:
    from fusion.classifier import CalibratedSVM


@screen.command
def run(
    paths: Annotated[list[Path], typer.Argument(help="Video files.")],
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    top: Annotated[int, typer.Option("--top", min=1, help="How many labels to name for each video.")] = 5,
    max_error: Annotated[
        float | None,
        typer.Option("--max-error", min=0, max=1, metavar="SHARE",
                     help="Say 'not sure' so that at most this share of what is named is wrong, as on val."),
    ] = None,
    stream_list: options.Streams = None,
    flow_from: options.FlowFrom = None,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the result to FILE.csv or FILE.json.")] = None,
    as_json: options.Json = False,
) -> int:
    """Name the action in new videos, with calibrated probabilities where `fuse` had validation videos to find them on.

    Without them the numbers are margins of the SVM (any real number). A stream that a video does not have is masked,
    and said to be; --streams masks the others on purpose.
    """
    from commands.decide import check_out, embed_new, load_decision, write_out
    from commands.workspace import chosen_streams
    from fusion.classifier import CalibratedSVM

    check_out(out)
    workspace = Workspace(run, cache)
    arrays, config = load_decision(workspace.fusion_dir / "svm", run)
    machine = CalibratedSVM.from_arrays(arrays, config)
    names = list(machine.svm.standardiser.columns)
    wanted = chosen_streams(stream_list)
    if wanted and set(wanted) - set(names):
        raise screen.Mistake(f"the SVM does not know '{(set(wanted) - set(names)).pop()}'; it has {', '.join(names)}")
    limit = None if max_error is None else machine.rejection(max_error).confidence  # refused before any work
    new = embed_new(paths, workspace, config["spaces"], names, device=device, workers=workers, flow_from=flow_from)
    masks = new.masks & (machine.svm.standardiser.known if len(new.X) else True)
    if wanted:
        masks = masks & [name in wanted for name in names]
    margins = machine.svm.decision_function(new.X, masks=masks) if len(new.X) else np.zeros((0, 0))
    rows = [
        {"path": new.name(result), **_decided(machine, margin, mask, names, top=top, limit=limit)}
        for result, margin, mask in zip(new.usable, margins, masks, strict=True)
    ]
    failed = {new.name(r): r.rejected_reason for r in new.results if r.rejected}
    _say_scores(machine, max_error, limit)
    for row in rows if not as_json else ():
        typer.echo(screen.printable(_line(row)))
    write_out(out, rows, _flat)
    screen.emit({"predictions": rows, "rejected": failed}, as_json=as_json)
    return screen.SOME_REJECTED if failed else screen.OK


def _decided(
    machine: CalibratedSVM, margin: np.ndarray, mask: np.ndarray, names: list[str], *, top: int, limit: float | None
) -> dict[str, Any]:
    """What one video is called and how sure that is; no label where it has no stream or is below the limit."""
    sure = machine.probabilities(margin[None])[0] if machine.calibration else None
    best = np.argsort(-margin, kind="stable")[:top]
    entries: list[dict[str, Any]] = []
    for k in best:
        entry = {"label": str(machine.svm.classes_[k]), "score": round(float(margin[k]), 6)}
        entries.append(entry if sure is None else {**entry, "probability": round(float(sure[k]), 6)})
    not_sure = bool(limit is not None and sure is not None and sure[best[0]] < limit)
    return {
        "label": entries[0]["label"] if mask.any() and not not_sure else None,
        "not_sure": not_sure,
        "top": entries,
        "streams": [name for name, used in zip(names, mask, strict=True) if used],
        "masked": [name for name, used in zip(names, mask, strict=True) if not used],
    }


def _say_scores(machine: CalibratedSVM, max_error: float | None, limit: float | None) -> None:
    """What the numbers are."""
    if machine.calibration is None:
        screen.note("the numbers are margins of the SVM, not probabilities: fuse had no validation videos")
        return
    screen.note(f"the numbers are probabilities, calibrated on {len(machine.hits)} validation videos")
    if max_error is not None and limit is not None:
        from fusion.intervals import wilson_interval

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
    cells = {"path": row["path"], "label": row["label"] or "", "not_sure": str(row["not_sure"]).lower()}
    for place, entry in enumerate(row["top"], start=1):
        cells |= {f"{name}_{place}": value for name, value in entry.items()}
    return cells | {"streams": " ".join(row["streams"]), "masked": " ".join(row["masked"])}
