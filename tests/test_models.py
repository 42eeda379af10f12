"""The table of models: counts against networks that were built, and the page made from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tristream import models, streams
from tristream.settings import PRESETS, load

HOME = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rows() -> list[models.ModelRow]:
    return models.rows()


def test_parameters_and_widths_are_those_of_networks_that_were_built(rows):
    settings = load("light", stream_names=streams.names())
    for name in streams.names():
        encoder = streams.load(name, settings.streams[name], settings.sampler).build_encoder(
            models.N_CLASSES
        )
        [row] = [row for row in rows if row.stream == name and "light" in row.presets]
        assert row.parameters == sum(p.numel() for p in encoder.parameters())
        assert row.width == encoder.embedding_dim


@pytest.mark.skipif("spatial" not in streams.names(), reason="needs the spatial stream")
def test_the_operations_of_a_resnet_are_the_published_ones():
    """InceptionResNetV2: 13.2 billion multiplications and additions at 299 px (timm's table)."""
    [row] = [row for row in models.rows() if row.name == "inception_resnet_v2"]
    assert row.gflop == pytest.approx(2 * 13.18, rel=0.01)


def test_every_preset_and_every_kind_has_rows(rows):
    assert {preset for row in rows for preset in row.presets} == {
        path.stem for path in PRESETS.glob("*.toml")
    }
    assert {row.kind for row in rows} == {"encoder", "aggregator", "flow estimator", "detector"}
    named = [(row.kind, row.name, row.stream, row.input, row.width, row.parameters) for row in rows]
    assert len(named) == len(set(named))


def test_a_measured_row_has_milliseconds():
    import torch
    from torch import nn

    layer = nn.Linear(512, 512).eval()
    fast = models._milliseconds(layer, torch.zeros(1, 512))
    slow = models._milliseconds(layer, torch.zeros(40_000, 512))
    assert 0 < fast < slow
    assert models._gflop(layer, torch.zeros(3, 512)) == pytest.approx(2 * 3 * 512**2 / 1e9)
    assert np.isfinite(slow)


def test_the_page_of_models_is_the_one_that_the_command_prints():
    page = (HOME / "docs" / "models.md").read_text(encoding="utf-8")
    assert page == models.markdown(), "renew it: tristream models --markdown > docs/models.md"
