"""Names, places, licences and pins of pretrained weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tristream.store import weights

SHARED = Path(__file__).parents[2] / "shared" / "weights"


@pytest.mark.skipif(
    not (SHARED / "vggish_pca_params.npz").exists(), reason="needs ../shared/weights"
)
def test_weights_in_a_folder_are_imported_once_and_what_is_known_stands_beside_them(tmp_path):
    where, said = weights.Places(SHARED, tmp_path), []
    path = weights.get("vggish_pca", where=where, say=said.append)
    assert path == tmp_path / "vggish_pca.safetensors"
    assert load_file(path)["pca_eigen_vectors"].shape == (128, 128)
    beside = json.loads((tmp_path / "vggish_pca.json").read_text())
    assert (
        beside["original_sha256"]
        == "4d878af3e306defbfb37095365aa7e5a6cecb86bad13e859e626151c4e6a8b9d"
    )
    assert beside["licence"] == "apache-2.0"
    assert beside == weights.about(path)
    assert "sha256 4d878af3" in said[0]
    assert "licence apache-2.0" in said[0]
    before = path.stat().st_mtime_ns
    assert weights.get("vggish_pca", where=where, say=said.append) == path
    assert (path.stat().st_mtime_ns, len(said)) == (before, 1)
