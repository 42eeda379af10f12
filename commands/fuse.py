"""tristream fuse: linear SVM, anomaly detector, and the effect of each stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.commands import options, screen

LATE_WORDS = {
    "mean": "mean of the streams' own scores",
    "weighted": "weighted mean",
    "simonyan": "SVM on the scores",
}
MOST_HARD = 10  # videos in the table
MOST_CONFUSED = 8  # pairs of classes in the table

Figure = dict[str, Any]


@screen.command
def run(
    data: options.Data = None,
    run: options.Run = options.RUN,
    stream_list: options.Streams = None,
    normal: Annotated[
        list[str] | None,
        typer.Option(
            "--normal",
            metavar="LABEL,…",
            help="Labels that are normal, for the anomaly detector; repeatable.",
        ),
    ] = None,
    preset: options.Preset = "light",
    config: options.ConfigFile = None,
    assignments: options.Set = None,
    window: Annotated[
        float,
        typer.Option(
            "--window",
            min=0,
            help="Fit the detector on windows of so many seconds; 0: whole videos.",
        ),
    ] = 0.0,
    hop: Annotated[
        float | None,
        typer.Option("--hop", help="Seconds from one window to the next; default: half a window."),
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(
            "--regions", metavar="ROWSxCOLUMNS", help="Cells that each frame is cut into."
        ),
    ] = None,
    frame_labels: Annotated[
        Path | None,
        typer.Option(
            "--frame-labels",
            metavar="FILE.json",
            help="{video_id: [[start, stop], …]} in seconds: abnormal intervals, to measure with.",
        ),
    ] = None,
    follow_links: options.FollowLinks = False,
    cache: options.CacheDir = options.CACHE,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    seed: options.Seed = 0,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Also show classes, confusions, hardest videos and baselines."
        ),
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Fit the linear SVM and the anomaly detector on the concatenated streams; show the effect of each.

    The SVM learns on train and is measured on test: every stream, every pair and all of them, with
    95 % intervals. The detector learns on normal training videos; its threshold comes from normal
    validation videos. Normal are the labels of --normal; without it, rows with anomaly = 0; without
    that column, every training video. With --window the detector learns on windows of the videos
    and reports when and why a video is abnormal (timelines.json).
    """
    from tristream.fuse import FuseOptions, fuse, parse_regions
    from tristream.settings import check

    chosen = FuseOptions(
        streams=options.names(stream_list),
        normal=normal or None,
        window_seconds=window,
        hop_seconds=hop,
        regions=parse_regions(regions),
        frame_labels=frame_labels,
        preset=preset,
        config=config,
        assignments=tuple(assignments or ()),
        seed=seed,
    )
    workspace = options.existing(
        run, cache, follow_links=follow_links, device=device, workers=workers
    )
    check(preset, config, chosen.assignments)
    screen.begin(f"fusing the streams of {run}")
    report = fuse(workspace, chosen, data=data)
    if report.get("classification"):
        show_classification(report["classification"], verbose=verbose)
    if report["detection"]:
        _show_detection(report["detection"])
    screen.note(
        f"wrote {workspace.fusion_dir}; next: tristream report, predict FILE or detect FILE, "
        f"with --run {run}"
    )
    screen.emit(report, as_json=as_json)
    return screen.OK


def _show_detection(detection: dict[str, Any]) -> None:
    """Print the detectors side by side, by video and by frame, where both kinds are labelled."""
    if rows := detection.get("rivals"):
        by = ", by their highest window" if "windows" in detection else ""
        n_abnormal = detection["n_abnormal"]
        screen.table(
            f"What is abnormal? {detection['n_test']} test videos, {n_abnormal} abnormal{by}",
            ["detector", "AUROC", "average precision", "equal error rate", "FPR at 95 % TPR"],
            [
                [
                    name,
                    _with_bounds(m["auroc"], m.get("auroc_interval")),
                    f"{m['average_precision']:.3f}",
                    f"{m['equal_error_rate']:.3f}",
                    f"{m['fpr_at_95_tpr']:.3f}",
                ]
                for name, m in rows.items()
            ],
            caption=f"95 % intervals over {rows[next(iter(rows))].get('n_groups', '?')} groups; "
            f"prevalence {n_abnormal / detection['n_test']:.3f}: the average precision of "
            "chance; equal error rate by interpolation of the ROC curve",
        )
    if frames := detection.get("frames"):
        n_undefined = next(iter(frames.values()))["n_undefined"]
        screen.table(
            "When? Frame-level AUROC, 10 instants a second",
            ["detector", "micro", "macro"],
            [
                [name, f"{m['micro']:.3f}", "-" if m["macro"] is None else f"{m['macro']:.3f}"]
                for name, m in frames.items()
            ],
            caption="micro: all instants of all test videos together; macro: mean over the videos "
            f"where it is defined ({n_undefined} have only one kind of frames)",
        )


def show_classification(report: dict[str, Any], *, verbose: bool) -> None:
    """Print accuracy, effects of streams, baselines and warnings; with `verbose` all details."""
    _subsets(report)
    _gains(report)
    _baselines(report)
    if verbose:
        _details(report)
    for sentence in report["warnings"]:
        screen.warn(sentence)
    if not verbose:
        screen.note(
            "classes, confusions, hardest videos, each late fusion: --verbose, or "
            "fusion/report.json"
        )


def _subsets(report: dict[str, Any]) -> None:
    subsets: dict[str, Any] = report["subsets"]
    n_classes = len(report["classes"])
    n_test = list(subsets.values())[-1]["test_top1"]["n"]
    screen.table(
        f"Accuracy of the linear SVM, % [95 % interval]; {n_test} test videos, {n_classes} "
        f"classes, always the commonest class {100 * report['presence']['commonest']:.1f}",
        ["streams", "train top-1", "test top-1", "mean of classes", "test top-5"],
        [
            [
                name,
                f"{100 * row['train_top1']:.1f}",
                _interval(row["test_top1"]),
                f"{100 * row['mean_class']:.1f}",
                _interval(row["test_top5"]) if row["test_top5"] else "-",
            ]
            for name, row in subsets.items()
        ],
        caption="hinge loss, one class against the rest, bias not penalised; "
        f"l2 = {report['l2']:g} read as {report['reading']}: C = {report['C']:.6g}{_gap(report)}; train accuracy "
        "is too high: the networks have fitted those videos",
    )
    if len({row["l2"] for row in subsets.values()}) > 1:
        chosen = ", ".join(f"{name} {row['l2']:g}" for name, row in subsets.items())
        screen.note(f"l2 of each, by cross-validation over the groups of train: {chosen}")


def _gains(report: dict[str, Any]) -> None:
    """Print the effect of each stream, and of its absence where videos lack it."""
    for name, gain in report["gains"].items():
        screen.note(
            f"without {name}: {_loss(gain['retrained'])} retrained, "
            f"{_loss(gain['withheld'])} withheld at test"
        )
    for name, view in report["views"].items():
        if view["d"] is None:
            continue
        having = view["b"]
        on_those = (
            f"{_interval(having)} on the {having['n']} that have it" if having else "none has it"
        )
        screen.note(
            f"{name} is missing from {view['n_test_without']} of {view['a']['n']} test videos: "
            f"{_interval(view['a'])} on all, {on_those}, {_interval(view['c'])} with it withheld "
            f"from all, {_interval(view['d'])} by its presence alone"
        )
    screen.note(report["presence"]["words"])


def _baselines(report: dict[str, Any]) -> None:
    others = [f"softmax head {_percent(report['softmax'])}"]
    others += [f"{LATE_WORDS[name]} {_percent(value)}" for name, value in report["late"].items()]
    whole = list(report["subsets"].values())[-1]
    screen.note(
        f"beside the SVM's {_percent(whole['test_top1'])} on all streams: {', '.join(others)}"
    )
    for name, share in report["segments"].items():
        screen.note(
            f"{name}: {100 * share['value']:.1f} % of the {share['n']} test segments are labelled like their video"
        )
    calibration = report["calibration"]
    if calibration and "nll_after" in calibration:
        screen.note(
            f"probabilities ({calibration['method']}, {calibration['n_val']} validation videos): "
            f"on test, NLL {calibration['nll_before']:.2f} → {calibration['nll_after']:.2f}, "
            f"calibration error {100 * calibration['ece_before']:.1f} → "
            f"{100 * calibration['ece_after']:.1f} %"
        )
    for rule in report["rejection"][:1]:
        screen.note(_rejection(rule))


def _details(report: dict[str, Any]) -> None:
    if report["differences"]:
        screen.table(
            "One stream more: points of accuracy [95 % interval], paired over the test videos",
            ["streams", "against", "gain"],
            [[d["more"], d["less"], _signed(d)] for d in report["differences"]],
        )
    alone = list(next(iter(report["per_class"].values()))["alone"])
    screen.table(
        "Each class: % of its test videos that are correct, and by one stream alone",
        ["class", "videos", "correct", "precision", *alone],
        [
            [
                name,
                str(c["n"]),
                _percent(c["accuracy"]),
                "-" if c["precision"] is None else f"{100 * c['precision']:.1f}",
                *(f"{100 * c['alone'][stream]:.1f}" for stream in alone),
            ]
            for name, c in report["per_class"].items()
        ],
    )
    screen.table(
        "Confused most often", ["class", "predicted", "videos"], _confused(report["confusion"])
    )
    screen.table(
        "Hardest test videos: margin of the true class over the best other",
        ["video", "class", "predicted", "margin"],
        [
            [
                v["video_id"],
                v["label"],
                v["predicted"],
                "-" if v["margin"] is None else f"{v['margin']:+.2f}",
            ]
            for v in report["hardest"][:MOST_HARD]
        ],
    )
    baselines = {"softmax head on all streams": ("softmax", report["softmax"])}
    baselines |= {LATE_WORDS[name]: (name, value) for name, value in report["late"].items()}
    rows = [
        [words, _percent(value), _signed(report["minus_svm"][name])]
        for words, (name, value) in baselines.items()
    ]
    rows += [
        [f"{name}: its own softmax layer", _percent(value), "-"]
        for name, value in report["heads"].items()
    ]
    screen.table(
        "Baselines of the SVM, % correct on test", ["", "test top-1", "minus SVM, points"], rows
    )
    if report["late_weights"]:
        weights = ", ".join(f"{name} {w:.2f}" for name, w in report["late_weights"].items())
        screen.note(f"weights of the weighted mean, found on val: {weights}")
    for rule in report["rejection"][1:]:
        screen.note(_rejection(rule))


def _gap(report: dict[str, Any]) -> str:
    """Return the distance to the optimum of a fit on many rows, as words."""
    gap = report.get("duality_gap")
    return "" if gap is None else f"; at most {100 * gap:.2g} % above the optimum"


def _interval(figure: Figure) -> str:
    """Return a share in % with its interval, or alone where one group gives no interval."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if low is None or high is None:
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _with_bounds(value: float, bounds: list[float] | None) -> str:
    return f"{value:.3f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")


def _loss(gain: Figure) -> str:
    """Return the loss without a stream in points of accuracy: the negative gain."""
    ends = (gain["value"], gain["high"], gain["low"])
    if None in ends:
        return f"{0.0 - round(100 * gain['value'], 1):+.1f} points"
    value, low, high = (0.0 - round(100 * part, 1) for part in ends)
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}] points"


def _percent(figure: Figure) -> str:
    return f"{100 * figure['value']:.1f}"


def _signed(figure: Figure) -> str:
    if figure["low"] is None:
        return f"{100 * figure['value']:+.1f}"
    return f"{100 * figure['value']:+.1f} [{100 * figure['low']:+.1f}, {100 * figure['high']:+.1f}]"


def _rejection(rule: dict[str, Any]) -> str:
    option = f"predict --max-error {rule['max_error']:g}"
    if rule["confidence"] is None:
        return f"{option} cannot work: {rule['words']}"
    on_test = f"of test {100 * rule['test_kept']:.0f} %"
    if rule["test_error"] is not None:
        on_test += f", {100 * rule['test_error']:.1f} % of those wrongly"
    return (
        f"{option} answers 'not sure' below {rule['confidence']:.2f}, chosen on val, of which "
        f"{100 * rule['val_kept']:.0f} % are named, {100 * rule['val_error']:.1f} % of those "
        f"wrongly; {on_test}"
    )


def _confused(confusion: dict[str, Any]) -> list[list[str]]:
    pairs = [
        (n, true, predicted)
        for true, row in zip(confusion["classes"], confusion["matrix"], strict=True)
        for predicted, n in zip(confusion["classes"], row, strict=True)
        if true != predicted and n
    ]
    first = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:MOST_CONFUSED]
    return [[true, predicted, str(n)] for n, true, predicted in first]
