"""What `fuse` says about the classifier: one table, a few lines, and with --verbose the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tristream.commands import screen

if TYPE_CHECKING:
    from tristream.fusion.action.ablation import Ablation
    from tristream.fusion.action.stream_views import StreamViews
    from tristream.fusion.intervals import Estimate

LATE_WORDS = {
    "mean": "mean of the streams' own scores",
    "weighted": "weighted mean",
    "simonyan": "SVM on the scores",
}
MOST_HARD = 10  # videos on screen
MOST_CONFUSED = 8  # pairs of classes on screen


def table_of_subsets(found: Ablation, n_classes: int) -> None:
    """Accuracy of every subset of streams."""
    rows = [
        ["+".join(r.streams), f"{100 * r.train_top1:.1f}", percent(r.test_top1), f"{100 * r.mean_class:.1f}",
         percent(r.test_top5) if r.test_top5 else "-"]
        for r in found.subsets
    ]  # fmt: skip
    n_test = found.subsets[-1].test_top1.n
    screen.table(
        f"Accuracy of the linear SVM, % [95 % interval]; {n_test} test videos, {n_classes} classes, "
        f"chance {100 / n_classes:.1f}",
        ["streams", "train top-1", "test top-1", "mean of classes", "test top-5"],
        rows,
        caption=f"hinge loss, one class against the rest, bias not penalised; l2 = {found.svm.l2:g} read as "
        f"{found.svm.reading}: C = {found.svm.C_:.6g}; train is flattered: the networks have fitted those videos",
    )
    if len({r.l2 for r in found.subsets}) > 1:
        chosen = ", ".join(f"{'+'.join(r.streams)} {r.l2:g}" for r in found.subsets)
        screen.note(f"l2 of each, by cross-validation over the groups of train: {chosen}")


def gains(found: Ablation, views: list[StreamViews]) -> None:
    """What each stream brings, and how it looks where videos lack one."""
    for gain in found.gains:
        screen.note(
            f"without {gain.stream}: {points(gain.retrained)} retrained, {points(gain.withheld)} withheld at test"
        )
    for view in views:
        if view.presence is None:
            continue
        having = (
            f"{percent(view.having)} on the {view.having.n} that have it"
            if view.having
            else "none has it"
        )
        screen.note(
            f"{view.stream} is missing from {view.n_test_without} of {view.everything.n} test videos: "
            f"{percent(view.everything)} on all, {having}, {percent(view.withheld)} with it withheld from all, "
            f"{percent(view.presence.accuracy)} by its presence alone"
        )
    screen.note(found.presence.words)


def rivals_and_calibration(report: dict[str, Any]) -> None:
    """Other ways to decide, and what the probabilities are worth; a line each."""
    others = [f"softmax head {short(report['softmax'])}"]
    others += [f"{LATE_WORDS[name]} {short(figure)}" for name, figure in report["late"].items()]
    whole = list(report["subsets"].values())[-1]
    screen.note(f"beside the SVM's {short(whole['test_top1'])} on all streams: {', '.join(others)}")
    calibration = report["calibration"]
    if calibration and "nll_after" in calibration:
        screen.note(
            f"probabilities ({calibration['method']}, {calibration['n_val']} validation videos): on test, NLL "
            f"{calibration['nll_before']:.2f} → {calibration['nll_after']:.2f}, calibration error "
            f"{100 * calibration['ece_before']:.1f} → {100 * calibration['ece_after']:.1f} %"
        )
    for rule in report["rejection"][:1]:
        screen.note(_rejection(rule))


def details(report: dict[str, Any]) -> None:
    """Differences, classes, confusions, hardest videos, late fusion and the reject option, in tables."""
    if report["differences"]:
        screen.table(
            "One stream more: points of accuracy [95 % interval], paired over the test videos",
            ["streams", "against", "gain"],
            [[d["more"], d["less"], _signed(d)] for d in report["differences"]],
        )
    alone = list(next(iter(report["per_class"].values()))["alone"])
    screen.table(
        "Each class, % of its test videos named right; and by one stream alone",
        ["class", "videos", "right", "precision", *alone],
        [
            [name, str(c["n"]), short(c["accuracy"]), "-" if c["precision"] is None else f"{100 * c['precision']:.1f}",
             *(f"{100 * c['alone'][stream]:.1f}" for stream in alone)]
            for name, c in report["per_class"].items()
        ],
    )  # fmt: skip
    screen.table(
        "Confused most often", ["class", "called", "videos"], _confused(report["confusion"])
    )
    screen.table(
        "Hardest test videos: margin of the true class over the best other",
        ["video", "class", "called", "margin"],
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
    rivals = {"softmax head on all streams": ("softmax", report["softmax"])}
    rivals |= {LATE_WORDS[name]: (name, figure) for name, figure in report["late"].items()}
    rows = [
        [words, short(figure), _signed(report["minus_svm"][name])]
        for words, (name, figure) in rivals.items()
    ]
    rows += [
        [f"{name}: its own softmax layer", short(figure), "-"]
        for name, figure in report["heads"].items()
    ]
    screen.table(
        "Other ways to decide, % right on test", ["", "test top-1", "minus SVM, points"], rows
    )
    if report["late_weights"]:
        weights = ", ".join(
            f"{name} {weight:.2f}" for name, weight in report["late_weights"].items()
        )
        screen.note(f"weights of the weighted mean, found on val: {weights}")
    for rule in report["rejection"][1:]:
        screen.note(_rejection(rule))


def percent(estimate: Estimate) -> str:
    """An accuracy in %, with its interval."""
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(gain: Estimate) -> str:
    """What is lost without a stream, in points of accuracy."""
    value, low, high = (0.0 - round(100 * part, 1) for part in (gain.value, gain.high, gain.low))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}] points"


def short(figure: dict[str, Any]) -> str:
    """An accuracy of the report in %."""
    return f"{100 * figure['value']:.1f}"


def _signed(figure: dict[str, Any]) -> str:
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
        f"{option} says 'not sure' below {rule['confidence']:.2f}, chosen on val, of which "
        f"{100 * rule['val_kept']:.0f} % are named, {100 * rule['val_error']:.1f} % of those wrongly; {on_test}"
    )


def _confused(confusion: dict[str, Any]) -> list[list[str]]:
    pairs = [
        (n, true, called)
        for true, row in zip(confusion["classes"], confusion["matrix"], strict=True)
        for called, n in zip(confusion["classes"], row, strict=True)
        if true != called and n
    ]
    return [
        [true, called, str(n)]
        for n, true, called in sorted(pairs, key=lambda p: (-p[0], p[1:]))[:MOST_CONFUSED]
    ]
