"""Tables of `fuse` about the classifier, from its report."""

from __future__ import annotations

from typing import Any

from tristream.commands import screen

LATE_WORDS = {
    "mean": "mean of the streams' own scores",
    "weighted": "weighted mean",
    "simonyan": "SVM on the scores",
}
MOST_HARD = 10  # videos in the table
MOST_CONFUSED = 8  # pairs of classes in the table

Figure = dict[str, Any]


def classification(report: dict[str, Any], *, verbose: bool) -> None:
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
        f"classes, chance {100 / n_classes:.1f}",
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
        f"l2 = {report['l2']:g} read as {report['reading']}: C = {report['C']:.6g}; train accuracy "
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


def _interval(figure: Figure) -> str:
    return f"{100 * figure['value']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def _loss(gain: Figure) -> str:
    """Loss without a stream in points of accuracy: the sign of the gain reversed."""
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
