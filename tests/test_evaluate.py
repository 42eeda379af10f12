from __future__ import annotations

import itertools

import numpy as np
import pytest

from tristream.fusion.evaluate import (
    auroc,
    average_precision,
    class_figures,
    confusion,
    equal_error_rate,
    false_positive_rate_at_tpr,
    frame_auroc,
    hardest_videos,
    mean_class_accuracy,
    per_class_accuracy,
    top_k_accuracy,
    top_k_hits,
)


def tied_scores(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(0, 2, n - 2)]
    return labels, np.round(labels * 0.7 + rng.normal(size=n), 1)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_share_of_pairs_in_order_with_ties_half(seed: int) -> None:
    labels, scores = tied_scores(seed)
    pairs = [
        1.0 if abnormal > normal else 0.5 if abnormal == normal else 0.0
        for abnormal in scores[labels == 1]
        for normal in scores[labels == 0]
    ]
    assert auroc(labels, scores) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_sum_over_recall_steps(seed: int) -> None:
    labels, scores = tied_scores(seed)
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        alarms = scores >= threshold
        recall, precision = labels[alarms].sum() / labels.sum(), labels[alarms].mean()
        total += (recall - recall_before) * precision
        recall_before = recall
    assert average_precision(labels, scores) == pytest.approx(total, abs=1e-12)


def slow_equal_error_rate(labels: np.ndarray, scores: np.ndarray) -> float:
    """Crossing of the polyline through all (false alarms, misses) with the diagonal, by bisection."""
    points = [(0.0, 1.0)]
    for threshold in sorted(set(scores), reverse=True):
        points.append(
            ((scores[labels == 0] >= threshold).mean(), (scores[labels == 1] < threshold).mean())
        )
    lengths = np.r_[
        0, np.cumsum([np.hypot(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(points)])
    ]
    low, high = 0.0, lengths[-1]
    for _ in range(200):
        middle = (low + high) / 2
        alarms, misses = (np.interp(middle, lengths, [p[axis] for p in points]) for axis in (0, 1))
        low, high = (middle, high) if alarms < misses else (low, middle)
    return float(alarms)


@pytest.mark.parametrize("seed", range(5))
def test_equal_error_rate_is_where_the_roc_polyline_crosses(seed: int) -> None:
    labels, scores = tied_scores(seed)
    assert equal_error_rate(labels, scores) == pytest.approx(
        slow_equal_error_rate(labels, scores), abs=1e-9
    )


def test_equal_error_rate_interpolates_where_the_nearest_threshold_would_say_otherwise() -> None:
    labels = [1, 1, 1, 0, 1, 1, 0, 1, 0, 0]
    scores = [9, 9, 9, 9, 5, 5, 5, 1, 1, 1]
    # thresholds: (1/4, 1/2), whose mean is the .375 of torchmetrics, then (1/2, 1/6); the line crosses at 5/14
    assert equal_error_rate(labels, scores) == pytest.approx(5 / 14, abs=1e-12)
    assert equal_error_rate(labels, scores) == pytest.approx(0.357143, abs=1e-6)


def test_perfect_useless_and_inverted_scores_give_the_three_fixed_points() -> None:
    labels = np.repeat([0, 1], 50)
    assert (auroc(labels, labels), equal_error_rate(labels, labels)) == (1, 0)
    assert (auroc(labels, -labels), equal_error_rate(labels, -labels)) == (0, 1)
    assert auroc(labels, np.zeros(100)) == equal_error_rate(labels, np.zeros(100)) == 0.5
    assert average_precision(labels, np.zeros(100)) == 0.5
    assert false_positive_rate_at_tpr(labels, labels) == 0
    assert false_positive_rate_at_tpr(labels, np.zeros(100)) == 1


def test_shuffled_labels_give_half() -> None:
    rng = np.random.default_rng(0)
    assert auroc(rng.integers(0, 2, 4000), rng.normal(size=4000)) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("tpr", [0.5, 0.9, 0.95, 1.0])
def test_false_positive_rate_is_the_least_over_all_thresholds_that_reach_the_tpr(
    tpr: float,
) -> None:
    labels, scores = tied_scores(3)
    reached = [
        (scores[labels == 0] >= threshold).mean()
        for threshold in set(scores)
        if (scores[labels == 1] >= threshold).mean() >= tpr
    ]
    assert false_positive_rate_at_tpr(labels, scores, tpr=tpr) == pytest.approx(min(reached))


def test_frames_micro_and_macro_differ_on_the_same_scores() -> None:
    labels = [[0, 1], [0, 1], [1, 1], [0, 0]]
    scores = [[0, 1], [10, 11], [20, 20], [0, 0]]
    found = frame_auroc(labels, scores)
    assert found.macro == 1
    assert found.n_undefined == 2
    assert found.micro == auroc(np.ravel(labels), np.ravel(scores)) < 1
    assert np.isnan(frame_auroc([[0, 0], [1, 1]], [[0, 0], [1, 1]]).macro)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_top_k_counts_the_labels_among_the_k_first_of_a_stable_sort(k: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3, (40, 4)).astype(float)
    classes = np.array(["a", "b", "c", "d"])
    labels = classes[rng.integers(0, 4, 40)]
    slow = [
        label in [classes[j] for j in sorted(range(4), key=lambda j: (-row[j], j))[:k]]
        for label, row in zip(labels, scores)
    ]
    assert top_k_hits(labels, scores, k=k, classes=classes).tolist() == slow
    assert top_k_accuracy(labels, scores, k=k, classes=classes) == np.mean(slow)
    if k == 1:
        assert slow == (classes[scores.argmax(axis=1)] == labels).tolist()


def test_a_class_that_training_never_saw_is_always_missed() -> None:
    assert not top_k_hits(["z"], np.ones((1, 2)), k=2, classes=["a", "b"]).any()


def test_mean_class_accuracy_weighs_a_rare_class_like_a_common_one() -> None:
    labels, predictions = ["a"] * 9 + ["b"], ["a"] * 10
    assert per_class_accuracy(labels, predictions) == {"a": 1.0, "b": 0.0}
    assert mean_class_accuracy(labels, predictions) == 0.5


def test_confusion_has_true_classes_in_rows() -> None:
    found = confusion(["a", "a", "b"], ["a", "b", "b"], classes=["a", "b", "c"])
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_the_hardest_video_is_the_one_that_is_wrong_by_most() -> None:
    scores = np.array([[3.0, 1.0], [0.0, 5.0], [1.0, 0.5]])
    worst = hardest_videos(["u", "v", "w"], ["a", "a", "a"], scores, classes=["a", "b"], n_videos=2)
    assert [(video.video_id, video.named, video.margin) for video in worst] == [
        ("v", "b", -5.0),
        ("w", "a", 0.5),
    ]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"labels hold 0 abnormal and 3 normal; both are needed"):
        auroc([0, 0, 0], [1, 2, 3])
    with pytest.raises(ValueError, match=r"labels hold 2; they must be 1 \(abnormal\) or 0"):
        average_precision([0, 2], [1, 2])
    with pytest.raises(ValueError, match=r"labels are \(2,\) and scores \(3,\)"):
        equal_error_rate([0, 1], [1, 2, 3])
    with pytest.raises(ValueError, match=r"the score of row 1 is nan"):
        auroc([0, 1], [1, np.nan])
    with pytest.raises(ValueError, match=r"k is 0"):
        top_k_hits(["a"], np.ones((1, 2)), k=0, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"scores are \(1, 2\); 1 labels and 3 classes do not fit"):
        top_k_hits(["a"], np.ones((1, 2)), k=1, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"row 1 has a score that is NaN"):
        top_k_hits(["a", "a"], np.array([[1.0, 2.0], [np.nan, 1.0]]), k=1, classes=["a", "b"])


def test_class_figures_are_recall_and_precision_of_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    rng = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"])[rng.integers(3, size=90)]
    named = np.where(rng.random(90) < 0.7, labels, "a")
    figures = class_figures(labels, named, np.arange(90) // 2)
    precision, recall, _, n = precision_recall_fscore_support(
        labels, named, labels=["a", "b", "c"], zero_division=0
    )
    assert [f.label for f in figures] == ["a", "b", "c"]
    np.testing.assert_allclose([f.accuracy.value for f in figures], recall)
    np.testing.assert_allclose([f.precision for f in figures], precision)
    assert [f.n for f in figures] == n.tolist()
    assert all(f.accuracy.low <= f.accuracy.value <= f.accuracy.high for f in figures)


def test_a_class_that_is_never_named_has_no_precision() -> None:
    figures = class_figures(["a", "b"], ["a", "a"], [1, 2])
    assert [f.precision for f in figures] == [0.5, None]
