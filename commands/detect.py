"""tristream detect: how abnormal new videos are, and which stream says so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from commands import options, screen
from commands.workspace import Workspace


@screen.command
def run(
    paths: Annotated[list[Path], typer.Argument(help="Video files.")],
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Anomaly score an alarm starts at; default: the stored one.")
    ] = None,
    flow_from: options.FlowFrom = None,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the result to FILE.csv or FILE.json.")] = None,
    as_json: options.Json = False,
) -> int:
    """Score how abnormal whole videos are: the autoencoder's reconstruction error, and each stream's share of it.

    Higher is more anomalous; 1 is a usual normal video. The threshold comes from
    normal validation videos (fuse --set detector.quantile=...); --threshold replaces it for this call.
    """
    from commands.decide import check_out, embed_new, load_decision, write_out
    from fusion.autoencoder import AutoencoderDetector

    check_out(out)
    workspace = Workspace(run, cache)
    arrays, config = load_decision(workspace.fusion_dir / "detector", run)
    detector = AutoencoderDetector.from_arrays(arrays, config)
    names = list(config["spaces"])
    new = embed_new(paths, workspace, config["spaces"], names, device=device, workers=workers, flow_from=flow_from)
    limit = detector.threshold_.value if threshold is None else threshold
    rows: list[dict[str, Any]] = []
    if len(new.X):
        scores, shares = detector.anomaly_score(new.X), detector.attribution(new.X)
        for result, score, share, mask in zip(new.usable, scores, shares, new.masks, strict=True):
            rows.append(
                {
                    "path": new.name(result),
                    "anomaly_score": round(float(score), 6),
                    "threshold": round(float(limit), 6),
                    "abnormal": bool(score >= limit),
                    "shares": {name: round(float(part), 4) for name, part in zip(names, share, strict=True)},
                    "masked": [name for name, there in zip(names, mask, strict=True) if not there],
                }
            )
    failed = {new.name(r): r.rejected_reason for r in new.results if r.rejected}
    for row in rows if not as_json else ():
        word = "ABNORMAL" if row["abnormal"] else "normal"
        shares_text = "  ".join(f"{name} {part:.0%}" for name, part in row["shares"].items())
        masked = f"  (masked: {', '.join(row['masked'])})" if row["masked"] else ""
        typer.echo(
            screen.printable(
                f"{row['path']}: {word}  {row['anomaly_score']:.3f} (threshold {limit:.3f})  [{shares_text}]{masked}"
            )
        )
    write_out(out, rows, _flat)
    screen.emit({"detections": rows, "rejected": failed}, as_json=as_json)
    return screen.SOME_REJECTED if failed else screen.OK


def _flat(row: Any) -> dict[str, Any]:
    shares = {f"share_{name}": part for name, part in row["shares"].items()}
    return {
        **{k: v for k, v in row.items() if k not in ("shares", "masked")},
        **shares,
        "masked": " ".join(row["masked"]),
    }
