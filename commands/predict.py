"""tristream predict: the action in new videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from commands import options, screen
from commands.workspace import Workspace


@screen.command
def run(
    paths: Annotated[list[Path], typer.Argument(help="Video files.")],
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    top: Annotated[int, typer.Option("--top", min=1, help="How many labels to name for each video.")] = 5,
    stream_list: options.Streams = None,
    flow_from: options.FlowFrom = None,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the result to FILE.csv or FILE.json.")] = None,
    as_json: options.Json = False,
) -> int:
    """Name the action in new videos, with the margins of the linear SVM (not probabilities: any real number).

    A stream that a video does not have is masked, and said to be; --streams masks the others on purpose.
    """
    from commands.decide import check_out, embed_new, load_decision, write_out
    from commands.workspace import chosen_streams
    from fusion.svm import LinearSVM

    check_out(out)
    workspace = Workspace(run, cache)
    arrays, config = load_decision(workspace.fusion_dir / "svm", run)
    svm = LinearSVM.from_arrays(arrays, config)
    names = list(svm.standardiser.columns)
    wanted = chosen_streams(stream_list)
    if wanted and set(wanted) - set(names):
        raise screen.Mistake(f"the SVM does not know '{(set(wanted) - set(names)).pop()}'; it has {', '.join(names)}")
    new = embed_new(paths, workspace, config["spaces"], names, device=device, workers=workers, flow_from=flow_from)
    masks = new.masks.copy()
    if wanted:
        masks[:, [name not in wanted for name in names]] = False
    margins = svm.decision_function(new.X, masks=masks) if len(new.X) else np.zeros((0, len(svm.classes_)))
    rows: list[dict[str, Any]] = []
    for result, margin, mask in zip(new.usable, margins, masks, strict=True):
        best = margin.argsort()[::-1][:top]
        rows.append(
            {
                "path": new.name(result),
                "label": str(svm.classes_[best[0]]) if mask.any() else None,
                "top": [{"label": str(svm.classes_[k]), "score": round(float(margin[k]), 6)} for k in best],
                "streams": [name for name, used in zip(names, mask, strict=True) if used],
                "masked": [name for name, used in zip(names, mask, strict=True) if not used],
            }
        )
    failed = {new.name(r): r.rejected_reason for r in new.results if r.rejected}
    for row in rows:
        scores = "  ".join(f"{entry['label']} {entry['score']:+.2f}" for entry in row["top"])
        masked = f"  (masked: {', '.join(row['masked'])})" if row["masked"] else ""
        if not as_json:
            typer.echo(screen.printable(f"{row['path']}: {row['label'] or 'nothing to go by'}  [{scores}]{masked}"))
    write_out(out, rows, _flat)
    screen.emit({"predictions": rows, "rejected": failed}, as_json=as_json)
    return screen.SOME_REJECTED if failed else screen.OK


def _flat(row: Any) -> dict[str, Any]:
    cells = {"path": row["path"], "label": row["label"] or ""}
    for place, entry in enumerate(row["top"], start=1):
        cells |= {f"label_{place}": entry["label"], f"score_{place}": entry["score"]}
    return cells | {"streams": " ".join(row["streams"]), "masked": " ".join(row["masked"])}
