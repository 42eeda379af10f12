"""Alarm thresholds from scores of normal videos or windows."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.anomaly.normal_scores import EventRule, NormalScores

RULES = ("quantile", "mean_sd", "per_hour")
CONFIDENCE = 0.9  # that a budget of false alarms an hour is kept; ours
RANK_STEP = 0.02  # of the scores above a threshold: by how many the search for a budget steps


@dataclass(frozen=True)
class Threshold:
    """An alarm threshold and its origin.

    Attributes:
        value: alarm at score ≥ value.
        n: scores that it comes from.
        remark: what the reader must know about it; "" for nothing.
        n_videos: videos that the scores come from; 0: unknown (an artifact of an earlier version).
        n_alarms: how many of the scores reach it.
        n_events: events that these make; 0 for whole videos.
    """

    value: float
    rule: str
    level: float
    n: int
    remark: str = ""
    n_videos: int = 0
    n_alarms: int = 0
    n_events: int = 0


def choose_threshold(
    scores: ArrayLike | NormalScores,
    *,
    rule: str = "quantile",
    level: float = 0.95,
    hop_seconds: float | None = None,
    events: EventRule | None = None,
) -> Threshold:
    """Return the threshold from anomaly scores of normal videos that nothing was fitted on.

    Args:
        scores: higher = more anomalous. An array: of whole videos or, with `hop_seconds`, of consecutive windows of
            one source.
        rule: 'quantile': 1 − level of new normal videos (or windows) alarm, in expectation: the ⌈(n + 1) level⌉-th
            smallest of n exchangeable scores is the last that does not (conformal prediction, for any distribution).
            Windows of one video are not exchangeable: n is then their number over the design effect of alarms within
            videos. 'mean_sd': mean + level · standard deviation. 'per_hour': at most `level` false *events* an hour, a
            budget that is kept with a confidence of 90 %.
        hop_seconds: seconds from one window to the next, for 'per_hour' without `events`.
        events: what makes windows an event.

    Raises:
        TristreamError: an unknown rule, no scores or scores that are not finite, a level out of range, or a budget of
            alarms per hour that so few hours of normal video cannot support.
    """
    if rule not in RULES:
        raise TristreamError(f"unknown threshold rule '{rule}'; available: {', '.join(RULES)}")
    if events is None and hop_seconds is not None and hop_seconds > 0:
        events = EventRule(hop_seconds, hop_seconds)
    if not isinstance(scores, NormalScores):
        if events is None:
            scores = NormalScores.of_videos(scores)
        else:
            scores = NormalScores.of_one_source(scores, events.hop_seconds)
    _check(scores.values)
    if rule == "mean_sd":
        value = float(scores.values.mean() + level * scores.values.std())
        threshold = Threshold(value, rule, level, len(scores.values))
    elif rule == "quantile":
        threshold = _quantile(scores, level)
    else:
        threshold = _budget(scores, level, events)
    return replace(
        threshold,
        n_videos=scores.n_videos,
        n_alarms=int((scores.values >= threshold.value).sum()),
        n_events=0 if events is None else int(scores.events_at(threshold.value, events).sum()),
    )


def choose_thresholds(
    scores: ArrayLike | NormalScores,
    by_pattern: Mapping[str, ArrayLike | NormalScores],
    *,
    rule: str,
    level: float,
    hop_seconds: float | None = None,
    events: EventRule | None = None,
) -> tuple[Threshold, dict[str, Threshold]]:
    """Return the threshold of the first pattern, and one of each; other arguments as `choose_threshold`.

    Args:
        scores: of normal videos as they are, for the first threshold where there are no patterns.
        by_pattern: {pattern: scores of normal videos masked to it}, the most streams first. A pattern whose
            videos cannot support an hourly budget that all videos together support has no threshold of its own.
    """
    arguments: dict[str, Any] = {
        "rule": rule,
        "level": level,
        "hop_seconds": hop_seconds,
        "events": events,
    }
    thresholds = {}
    for pattern, own in by_pattern.items():
        with contextlib.suppress(UnsupportedBudget):
            thresholds[pattern] = choose_threshold(own, **arguments)
    first = next(iter(by_pattern), None)
    if first in thresholds:
        return thresholds[first], thresholds
    return choose_threshold(scores, **arguments), thresholds


def stored_thresholds(config: Mapping[str, Any]) -> tuple[Threshold, dict[str, Threshold]]:
    """Return what a detector stored; one of an earlier version has one threshold for all patterns."""
    by_pattern = config.get("thresholds", {})
    return Threshold(**config["threshold"]), {
        pattern: Threshold(**one) for pattern, one in by_pattern.items()
    }


class UnsupportedBudget(TristreamError):
    """An hourly budget that too few hours of normal video were given for."""


def _check(values: np.ndarray) -> None:
    if len(values) == 0:
        raise TristreamError(
            "there are 0 normal scores; a threshold needs normal videos that were not trained on"
        )
    if not np.isfinite(values).all():
        raise TristreamError(
            f"a normal score is {values[~np.isfinite(values)][0]}; scores must be finite"
        )


def _quantile(scores: NormalScores, level: float) -> Threshold:
    """Conformal quantile with as many scores as those of several videos are worth.

    The design effect is that of alarms at the plain quantile. Simulated with normal scores of 5 to 50 videos of 30
    windows and intraclass correlations of .05 to .7: asked 5 %, windows of new videos alarm in 4.4–6.2 %; with the
    plain rank in 4.8–8.2 %; with ranks by videos alone (n = videos) in 0.3–3.5 %.
    """
    if not 0 < level < 1:
        raise TristreamError(f"quantile {level} is not between 0 and 1")
    values = np.sort(scores.values)
    n = len(values)
    plain = _after(values, (n + 1) * level)
    worth = n / scores.design_effect((scores.values >= plain).astype(np.float64))
    value = _after(values, (worth + 1) * level / worth * n)
    # Alarms are too rare to show how alike the windows of a video are; ranks show it.
    ranks = np.argsort(np.argsort(scores.values, kind="stable"), kind="stable") / n
    n_independent = min(worth, n / scores.design_effect(ranks))
    wanted = math.ceil(level / (1 - level) - 1e-9)
    remark = ""
    if n_independent < wanted - 1e-9:
        by = "" if scores.n_videos == n else f" of {scores.n_videos} videos"
        worth_words = (
            "" if scores.n_videos == n else f" (worth {n_independent:.0f} independent ones)"
        )
        remark = f"{n} normal scores{by}{worth_words} cannot support a quantile of {level:g}, which needs {wanted}; "
        remark += (
            f"the threshold lies at the largest, and about 1 normal video in {n + 1} will exceed it"
            if scores.n_videos == n
            else "give more normal videos; until then more windows may alarm than were asked for"
        )
    return Threshold(value, "quantile", level, n, remark)


def _after(values: np.ndarray, rank: float) -> float:
    """The smallest number above the rank-th smallest value, counted from 1 and rounded up."""
    place = min(max(math.ceil(rank - 1e-9), 1), len(values))
    return float(np.nextafter(values[place - 1], np.inf))


def _budget(scores: NormalScores, level: float, events: EventRule | None) -> Threshold:
    """Lowest threshold at which so few events would be a surprise if their rate were above the budget.

    The number of events is negative binomial (Poisson where videos do not differ), with the rates' variation among
    videos estimated from lower thresholds, where events are many. Thresholds are tried from above until one fails, so
    the confidence holds for the one chosen (fixed-sequence testing).
    """
    if events is None or level <= 0:
        hop = None if events is None else events.hop_seconds
        raise TristreamError(
            f"{level:g} alarms an hour with a hop of {hop} s: both must be above 0"
        )
    _, sizes = np.unique(scores.video, return_counts=True)
    hours = float(sizes.sum()) * events.hop_seconds / 3600
    tried = _events_by_threshold(scores, sizes, level * hours, events)
    shape = _shape(sizes, [counts for _, counts in tried])
    least = _most_expected(shape)
    if level * hours < least:
        raise UnsupportedBudget(
            f"{level:g} alarms an hour cannot be set from {hours:.2f} h of normal video; "
            f"give {least / level:.2f} h or more, or allow {least / hours:.1f} an hour"
        )
    value = float(np.nextafter(scores.values.max(), np.inf))
    for candidate, counts in tried:
        if _chance(int(counts.sum()), level * hours, shape) > 1 - CONFIDENCE:
            break
        value = candidate
    return Threshold(value, "per_hour", level, len(scores.values))


def _events_by_threshold(
    scores: NormalScores, sizes: np.ndarray, budget: float, rule: EventRule
) -> list[tuple[float, np.ndarray]]:
    """Events per video at falling thresholds, until they are above the budget and many enough to compare videos."""
    values = np.sort(scores.values)[::-1]
    enough, rank, tried = max(budget, 20, 2 * len(sizes)), 0, []
    while rank < len(values) // 2 + 1:
        counts = scores.events_at(float(values[rank]), rule)
        tried.append((float(values[rank]), counts))
        if counts.sum() > enough:
            break
        rank += 1 + int(RANK_STEP * rank)
    return tried


def _shape(sizes: np.ndarray, tried: list[np.ndarray]) -> float:
    """Shape of the negative binomial distribution of all events: effective number of videos over squared variation.

    The variation of rates among videos is taken at its upper bound, as a variance with as many degrees of freedom as
    there are videos less one: a few videos seldom show the worst. Simulated with 10 and 40 videos of 300 windows and
    intraclass correlations of 0 to .6, a budget of 12 events an hour is exceeded in 2–10 % of installations; in
    3–18 % without the bound.
    """
    from scipy.stats import chi2

    variation = 0.0
    for counts in tried:
        expected = counts.sum() * sizes / sizes.sum()
        if len(sizes) > 1 and counts.sum() >= 10:
            excess = ((counts - expected) ** 2 - expected * (1 - sizes / sizes.sum())).sum()
            variation = max(variation, float(excess / (expected**2).sum()))
    effective = float(sizes.sum()) ** 2 / float((sizes**2).sum())
    if variation <= 0:
        return math.inf
    free = len(sizes) - 1
    return effective / variation * float(chi2.ppf(1 - CONFIDENCE, free)) / free


def _chance(n_events: int, expected: float, shape: float) -> float:
    """Probability of so few events or fewer where `expected` are."""
    from scipy.stats import nbinom, poisson

    if math.isinf(shape):
        return float(poisson.cdf(n_events, expected))
    return float(nbinom.cdf(n_events, shape, shape / (shape + expected)))


def _most_expected(shape: float) -> float:
    """Largest expected number of events that none at all is compatible with."""
    miss = 1 - CONFIDENCE
    return -math.log(miss) if math.isinf(shape) else shape * (miss ** (-1 / shape) - 1)
