"""Table of all settings: complete, true to the presets, and the same in the docs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tristream import settings, streams
from tristream.keys import nearest, value_text
from tristream.settings_table import all_settings, markdown

HOME = Path(__file__).parents[1]
PRESETS = sorted(path.stem for path in settings.PRESETS.glob("*.toml"))


def test_the_document_is_what_the_command_prints():
    assert (HOME / "docs/settings.md").read_text(encoding="utf-8") == markdown(), (
        "run: tristream settings --markdown > docs/settings.md"
    )


def test_every_setting_has_a_meaning_and_values():
    assert [key.path for key in all_settings() if not key.meaning or not key.values] == []
    assert [key.path for key in all_settings() if "[" in key.values or "typing" in key.values] == []


def test_every_section_and_stream_is_listed_once():
    paths = [key.path for key in all_settings()]
    assert len(set(paths)) == len(paths)
    sections = {path.split(".")[0] for path in paths}
    assert sections == {*settings.SECTIONS, "streams"}
    assert {path.split(".")[1] for path in paths if path.startswith("streams.")} == set(
        streams.names()
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_values_of_a_preset_are_those_that_are_loaded(preset):
    from tristream.pretrained import Pretrained

    loaded = settings.load(
        preset, stream_names=streams.names(), pretrained=Pretrained(random_weights=0)
    ).to_json()
    for key in all_settings(preset):
        value = loaded
        for part in key.path.split("."):
            value = value[part]
        if not key.path.endswith(("_weights", "weights_seed")):  # random ones were loaded
            assert json.loads(json.dumps(key.value)) == value, key.path


def test_every_value_of_the_table_can_be_assigned_again():
    keys = [key for key in all_settings("light") if not key.path.endswith("_weights")]
    assignments = [f"{key.path}={value_text(key.value)}" for key in keys]
    settings.check("light", None, assignments, stream_names=streams.names())
    chosen = settings.load("light", None, assignments, stream_names=streams.names())
    plain = settings.load("light", stream_names=streams.names())
    assert chosen.streams == plain.streams
    assert chosen.sampler == plain.sampler
    assert chosen.detector == plain.detector


def test_the_config_of_a_stream_is_the_same_class_without_torch():
    for name in streams.names():
        assert streams.config_class(name) is streams.stream_class(name).Config
    with pytest.raises(ValueError, match="unknown stream 'smell'; available: "):
        streams.config_class("smell")


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ("epochs", "streams.audio.encoder_training.epochs"),
        ("sampler.n_sample", "sampler.n_samples"),
        ("n_sampels", "sampler.n_samples"),
        ("spatial.encoder_training.epochs", "streams.spatial.encoder_training.epochs"),
        ("streams.spatial.encoder_trainin.epochs", "streams.spatial.encoder_training.epochs"),
        ("limits.max_byte", "limits.max_bytes"),
        ("quantile", "detector.quantile"),
    ],
)
def test_the_nearest_full_keys_are_suggested(wanted, first):
    paths = [key.path for key in all_settings()]
    assert nearest(wanted, paths)[0] == first
    assert nearest("zzzz", paths) == []


def test_an_unknown_key_of_a_file_is_answered_with_the_full_keys(tmp_path):
    (tmp_path / "mine.toml").write_text("[training]\nepochs = 3\n")
    with pytest.raises(settings.UsageError, match=r"\[training\].*encoder_training\.epochs"):
        settings.check("light", tmp_path / "mine.toml")


def test_the_command_prints_one_line_or_object_per_setting(command_line, tmp_path):
    line = command_line(tmp_path)
    lines = line("settings").splitlines()
    assert len(lines) == len(all_settings())
    assert any(text.startswith("sampler.n_samples = 180 ") for text in lines)
    found = line.json("settings", "--preset", "workshop")
    assert found["preset"] == "workshop"
    values = {entry["key"]: entry["value"] for entry in found["settings"]}
    assert values == {
        key.path: json.loads(json.dumps(key.to_json()["value"])) for key in all_settings("workshop")
    }
    assert line("settings", "--markdown") == markdown()
    line("settings", "--markdown", "--json", code=2)
    assert "--markdown prints the defaults alone" in line.said
