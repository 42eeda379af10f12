from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest

from tristream.store.checkpoint import ArtifactError, load_artifact, load_config, save_artifact

ARRAYS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4).T,  # not contiguous
    "count": np.array(7),
    "empty": np.zeros((0, 5), np.float16),
    "mask": np.array([True, False]),
}


@pytest.fixture
def artifact(tmp_path):
    save_artifact(tmp_path / "model", ARRAYS, {"classes": ["ä", "b"], "rate": 0.1})
    return tmp_path / "model"


def test_an_artifact_comes_back_as_it_was_saved(artifact):
    arrays, config = load_artifact(artifact)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert np.array_equal(arrays[name], array)
    assert (config["classes"], config["rate"]) == (["ä", "b"], 0.1)


def test_the_configuration_holds_the_sha256_of_the_arrays_file(artifact):
    found = hashlib.sha256(artifact.with_name("model.safetensors").read_bytes()).hexdigest()
    assert load_config(artifact)["sha256"] == found
    assert save_artifact(artifact, ARRAYS, {}) == found, "the same arrays are the same bytes"


def test_the_configuration_may_have_a_name_of_its_own(tmp_path):
    save_artifact(tmp_path / "checkpoint", ARRAYS, {"a": 1}, config_file="config.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
    ]
    assert load_artifact(tmp_path / "checkpoint", config_file="config.json")[1]["a"] == 1


@pytest.mark.parametrize("position", [0, 7, 8, 40, 200, -40, -1])
def test_a_flipped_bit_is_refused_and_both_sums_are_named(artifact, position):
    file = artifact.with_name("model.safetensors")
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)
    found, expected = hashlib.sha256(data).hexdigest()[:12], load_config(artifact)["sha256"][:12]
    sentence = f"^{re.escape(str(file))} is corrupt: .*{found}…, model.json says {expected}…"
    with pytest.raises(ArtifactError, match=sentence):
        load_artifact(artifact)


def test_a_truncated_file_is_refused(artifact):
    file = artifact.with_name("model.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="is corrupt: its sha256 is"):
        load_artifact(artifact)


def test_damaged_bytes_are_not_parsed(artifact, monkeypatch):
    artifact.with_name("model.safetensors").write_bytes(b"x" * 100)
    monkeypatch.setattr(
        "safetensors.numpy.load", lambda data: pytest.fail("parsed before it was checked")
    )
    with pytest.raises(ArtifactError, match="is corrupt"):
        load_artifact(artifact)


def test_arrays_of_one_training_beside_the_configuration_of_another_are_refused(artifact, tmp_path):
    """A crash between the two files leaves this behind."""
    save_artifact(tmp_path / "other", {"weight": np.ones(3, np.float32)}, {})
    artifact.with_name("model.safetensors").write_bytes(
        (tmp_path / "other.safetensors").read_bytes()
    )
    with pytest.raises(ArtifactError, match=r"model\.safetensors is corrupt"):
        load_artifact(artifact)


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(
        ArtifactError, match=f"^{re.escape(str(tmp_path / 'model.json'))} does not exist$"
    ):
        load_artifact(tmp_path / "model")


def test_a_missing_arrays_file_is_named(artifact):
    artifact.with_name("model.safetensors").unlink()
    with pytest.raises(
        ArtifactError, match=r"model\.safetensors does not exist, though model\.json does"
    ):
        load_artifact(artifact)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"sha256": 5}', "\udcff", ""])
def test_a_configuration_that_is_none_is_refused(artifact, text):
    artifact.with_name("model.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match=r"model\.json is corrupt"):
        load_artifact(artifact)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path, bad, dtype):
    save_artifact(
        tmp_path / "model", {"good": np.ones(2), "full7.weight": np.array([1, bad], dtype)}, {}
    )
    with pytest.raises(
        ArtifactError, match=r"array 'full7\.weight' holds values that are not finite"
    ):
        load_artifact(tmp_path / "model")


def test_a_configuration_that_cannot_be_saved_leaves_the_old_artifact(artifact):
    with pytest.raises(TypeError, match="JSON"):
        save_artifact(artifact, {"weight": np.zeros(2)}, {"object": object()})
    assert json.loads(artifact.with_name("model.json").read_text())["rate"] == 0.1
    load_artifact(artifact)


def test_every_flipped_bit_of_the_configuration_is_refused(artifact):
    file = artifact.with_name("model.json")
    data = file.read_bytes()
    for index in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            file.write_bytes(damaged)
            with pytest.raises(ArtifactError, match=r"model\.json is corrupt"):
                load_config(artifact)


def test_every_thousandth_byte_of_a_large_artifact_is_watched(tmp_path):
    weight = np.random.default_rng(0).normal(size=50_000)
    save_artifact(tmp_path / "large", {"weight": weight}, {"a": list(range(5000))})
    n_refused = n_flipped = 0
    for name in ("large.safetensors", "large.json"):
        file = tmp_path / name
        data = file.read_bytes()
        for index in range(0, len(data), 1000):
            damaged = bytearray(data)
            damaged[index] ^= 0xFF
            file.write_bytes(damaged)
            n_flipped += 1
            with pytest.raises(ArtifactError, match=f"{name} is corrupt"):
                load_artifact(tmp_path / "large")
            n_refused += 1
        file.write_bytes(data)
    assert n_refused == n_flipped > 400
    load_artifact(tmp_path / "large")


@pytest.mark.parametrize("n_bytes", [1, 10, 60, 100, 150])
def test_a_configuration_cut_short_is_refused(artifact, n_bytes):
    file = artifact.with_name("model.json")
    file.write_bytes(file.read_bytes()[:-n_bytes])
    with pytest.raises(ArtifactError, match=r"model\.json is corrupt"):
        load_config(artifact)


def test_a_damaged_configuration_is_not_parsed(artifact, monkeypatch):
    file = artifact.with_name("model.json")
    file.write_bytes(file.read_bytes().replace(b"0.1", b"0.2"))
    monkeypatch.setattr("json.loads", lambda text: pytest.fail("parsed"))
    with pytest.raises(ArtifactError, match="its sha256 is not the one on its last line"):
        load_config(artifact)


def test_an_artifact_of_the_first_release_is_still_read(artifact):
    """Version 0.1.0 did not seal the JSON."""
    file = artifact.with_name("model.json")
    config = load_config(artifact)
    file.write_text(json.dumps(config, indent=1, sort_keys=True))
    assert load_artifact(artifact)[1] == config


LYING = b'{"w": {"dtype": "F32", "shape": [1048576, 1048576], "data_offsets": [0, 4398046511104]}}'


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80\x04K*.", len(LYING).to_bytes(8, "little") + LYING + bytes(64), b"\xff" * 16],
)
def test_arrays_whose_sum_is_right_and_that_are_no_safetensors_file_are_refused(tmp_path, data):
    """A writer of one file can write the other: the checksum is no second wall."""
    (tmp_path / "model.safetensors").write_bytes(data)
    (tmp_path / "model.json").write_text(json.dumps({"sha256": hashlib.sha256(data).hexdigest()}))
    with pytest.raises(ArtifactError, match=r"model\.safetensors is no safetensors file"):
        load_artifact(tmp_path / "model")
