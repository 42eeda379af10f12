from __future__ import annotations

import numpy as np
import pytest

from tristream.fusion.action.leaks import presence_gauge
from tristream.fusion.action.rows import FusedRows
from tristream.fusion.action.stream_views import stream_views
from tristream.fusion.action.svm import fit_svm

COLUMNS = {"sight": slice(0, 6), "sound": slice(6, 12)}


def data(lacking: np.ndarray) -> dict:
    """Four classes, two told apart by each stream; `lacking` have no sound."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 4
    X = np.hstack([2.0 * np.eye(2, 6)[y // 2], 2.0 * np.eye(2, 6)[y % 2]]) + 0.5 * rng.normal(
        size=(240, 12)
    )
    masks = np.column_stack([np.ones(240, bool), ~lacking])
    X[lacking, COLUMNS["sound"]] = np.nan
    return {
        "X": X,
        "masks": masks,
        "columns": COLUMNS,
        "labels": np.array(list("abcd"))[y],
        "splits": np.array(["train", "test"])[np.arange(240) // 4 % 2],
        "groups": np.arange(240) // 2,
    }


def views(given: dict) -> dict:
    train = given["splits"] == "train"
    svm = fit_svm(
        given["X"][train], given["labels"][train], columns=COLUMNS, masks=given["masks"][train]
    )
    return {view.stream: view for view in stream_views(svm, FusedRows(**given))}


def test_the_four_views_of_a_stream_that_half_of_the_videos_lack_at_random() -> None:
    given = data(np.random.default_rng(1).random(240) < 0.5)
    test = given["splits"] == "test"
    sound = views(given)["sound"]
    assert sound.n_test_without == int((~given["masks"][test, 1]).sum())
    assert sound.n_train_without == int((~given["masks"][~test, 1]).sum())
    assert sound.having is not None
    assert sound.having.n == 120 - sound.n_test_without
    assert sound.having.value == pytest.approx(
        1, abs=0.06
    )  # with both streams everything is told apart
    assert sound.withheld.value == pytest.approx(0.5, abs=0.1)  # sight alone tells two of four
    n = sound.n_test_without
    assert sound.everything.value == pytest.approx(((120 - n) + 0.5 * n) / 120, abs=0.06)
    assert sound.presence is not None
    assert sound.presence.accuracy.value == pytest.approx(0.25, abs=0.12)


def test_presence_that_tells_the_class_is_seen_though_the_machine_is_told_nothing_of_it() -> None:
    given = data(np.arange(240) % 4 < 2)  # a and b are silent
    found = views(given)
    assert found["sound"].presence is not None
    assert found["sound"].presence.accuracy.value == 0.5
    assert found["sound"].presence.gain.low > 0
    assert found["sight"].presence is None  # every video has it
    assert found["sight"].having == found["sight"].everything


def test_the_gauge_of_a_stream_sees_that_stream_alone() -> None:
    """Sound is missing where it tells the class, sight at random: sight's own gauge must stay at chance."""
    given = data(np.arange(240) % 4 < 2)
    blind = (np.arange(240) // 8 % 3 == 0) & given["masks"][:, 1]
    given["masks"][blind, 0] = False
    given["X"][blind, COLUMNS["sight"]] = np.nan
    found = views(given)
    sight, sound = found["sight"].presence, found["sound"].presence
    assert sight is not None
    assert sound is not None
    assert sound.accuracy.value == 0.5
    only = presence_gauge(
        given["masks"][:, [0]], **{k: given[k] for k in ("labels", "splits", "groups")}
    )
    both = presence_gauge(given["masks"], **{k: given[k] for k in ("labels", "splits", "groups")})
    assert sight.accuracy == only.accuracy
    assert both.accuracy.value > only.accuracy.value  # what the streams would tell together


def test_a_stream_that_no_test_video_has_has_no_second_view() -> None:
    given = data(np.arange(240) // 4 % 2 == 1)
    sound = views(given)["sound"]
    assert sound.having is None
    assert sound.withheld == sound.everything


def test_a_stream_that_training_lacked_is_left_out_and_videos_are_needed_on_both_sides() -> None:
    given = data(np.ones(240, bool))
    assert list(views(given)) == ["sight"]
    given["splits"] = np.full(240, "train")
    with pytest.raises(ValueError, match="240 labelled training and 0 test videos"):
        views(given)
