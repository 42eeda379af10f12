"""tristream weights list | get | show | add, as they are typed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from tristream.commands.weights import app
from tristream.store.weights import catalogue
from tristream.store.weights.convert import sha256_of


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A name whose file lies in a folder of the user's, and everything else out of reach."""
    (tmp_path / "own").mkdir()
    save_file({"a": np.arange(3.0)}, tmp_path / "own" / "planted-file.safetensors")
    sha256 = sha256_of(tmp_path / "own" / "planted-file.safetensors")
    entry = catalogue.Weight(name="planted", what="three numbers", file="planted-file.safetensors", sha256=sha256,
                             licence="research only", n_bytes=100)  # fmt: skip
    monkeypatch.setitem(catalogue.TABLE, "planted", entry)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRISTREAM_WEIGHTS", raising=False)
    monkeypatch.delenv("TRISTREAM_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    return sha256


def run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def as_json(*arguments):
    code, out, _ = run(*arguments, "--json")
    return code, json.loads(out)


def test_a_licence_is_accepted_once_and_the_weights_come_from_the_users_folder(
    planted, no_network, tmp_path
):
    code, _, said = run("get", "planted", "--weights-dir", "own")
    assert code == 2
    assert "weights 'planted' have the licence 'research only'" in said
    code, found = as_json("get", "planted", "--weights-dir", "own", "--accept-licence")
    assert code == 0
    assert found["original_sha256"] == planted
    assert found["licence"] == "research only"
    assert found["path"] == str(tmp_path / "home" / "tristream" / "weights" / "planted.safetensors")
    assert load_file(found["path"])["a"].tolist() == [0, 1, 2]
    assert run("get", "planted")[0] == 0, "from the cache now, and the licence is remembered"


def test_list_says_what_is_here_and_what_is_not(planted, no_network):
    rows = {row["name"]: row for row in as_json("list", "--weights-dir", "own")[1]["weights"]}
    assert rows["planted"]["state"] == "file, not checked yet"
    assert rows["vggish"]["state"] == "missing"
    assert rows["flownet2"]["research_only"]
    assert not rows["inception_resnet_v2"]["research_only"]
    run("get", "planted", "--weights-dir", "own", "--accept-licence")
    rows = {row["name"]: row for row in as_json("list")[1]["weights"]}
    assert rows["planted"]["state"] == "yes, checked"
    _, _, said = run("list")
    for name in (
        "inception_resnet_v2",
        "mobilenet_v2",
        "vggish",
        "vggish_pca",
        "yamnet",
        "flownet2",
        "raft_large",
    ):
        assert name in said


def test_show_downloads_nothing_and_names_file_sha256_licence_and_address(planted, no_network):
    code, found = as_json("show", "vggish")
    assert code == 0
    assert found["file"] == "vggish-10086976.pth"
    assert found["sha256"] == "10086976"
    assert (
        found["address"]
        == "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"
    )
    assert found["here"] == "missing"


@pytest.mark.parametrize(
    ("name", "file", "sha256", "address"),
    [
        ("inception_resnet_v2", "inception_resnet_v2.safetensors", "",
         "https://huggingface.co/timm/inception_resnet_v2.tf_in1k/resolve/main/model.safetensors"),
        ("resnet18.a1_in1k", "resnet18.a1_in1k.safetensors", "d63eafa0",
         "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"),
        ("mobilenet_v2", "mobilenet_v2-b0353104.pth", "b0353104",
         "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"),
        ("raft", "raft_large_C_T_SKHT_V2-ff5fadd5.pth", "ff5fadd5",
         "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth"),
        ("flownet2", "flownet2-things-d63b53a7.ckpt", "d63b53a7",
         "https://github.com/hmorimitsu/ptlflow/releases/download/weights1/flownet2-things-d63b53a7.ckpt"),
        ("ptlflow:raft", "raft-things-802bbcfd.ckpt", "802bbcfd",
         "https://github.com/hmorimitsu/ptlflow/releases/download/weights1/raft-things-802bbcfd.ckpt"),
        ("pwcnet", "pwcnet-things-6a2e540b.ckpt", "6a2e540b",
         "https://github.com/hmorimitsu/ptlflow/releases/download/weights1/pwcnet-things-6a2e540b.ckpt"),
    ],
)  # fmt: skip
def test_addresses_are_those_the_libraries_say(name, file, sha256, address):
    if "ptlflow" in address:
        pytest.importorskip("importlib.util").find_spec("ptlflow") or pytest.skip(
            "ptlflow is not installed"
        )
    found = catalogue.describe(name)
    assert found.file == file
    assert found.address == address
    assert found.sha256 == (sha256 if "huggingface" not in address else "")


def test_every_entry_of_the_table_has_an_https_address():
    for name, entry in catalogue.TABLE.items():
        if entry.library != "ptlflow":
            assert catalogue.describe(name).address.startswith("https://"), name


def test_a_file_of_the_users_is_taken_in_under_a_name(planted, tmp_path):
    torch.save({"features.0.weight": torch.ones(2)}, tmp_path / "mine.pth")
    code, _, said = run("add", "mine.pth", "--as", "vggish")
    assert code == 2
    assert "mine.pth is not the file of 'vggish' (vggish-10086976.pth): its sha256 is " in said
    assert said.endswith("it must begin with 10086976")
    code, found = as_json(
        "add", "own/planted-file.safetensors", "--as", "planted", "--accept-licence"
    )
    assert (code, found["source"]) == (0, "own/planted-file.safetensors")
    assert run("add", "nowhere.pth", "--as", "planted")[0] == 2


def test_a_file_whose_sha256_nobody_published_is_pinned_by_add(planted, tmp_path, no_network):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "one.safetensors")
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "two.safetensors")
    code, found = as_json("add", "one.safetensors", "--as", "resnet18")
    assert code == 0
    assert found["original_sha256"] == sha256_of(tmp_path / "one.safetensors")
    assert as_json("show", "resnet18")[1]["stored original_sha256"] == found["original_sha256"]
    code, _, said = run("add", "two.safetensors", "--as", "resnet18")
    assert code == 0
    assert f"this file takes the place of the one with sha256 {found['original_sha256']}" in said
    assert load_file(found["path"])["a"].tolist() == [0, 0]


def test_without_a_network_get_ends_with_4_and_names_every_place(planted, no_network):
    code, _, said = run("get", "vggish", "--weights-dir", "own")
    assert code == 4
    for words in ("weights 'vggish' (VGGish, AudioSet, 128-D (the paper's); file vggish-10086976.pth, sha256 10086976…",
                  "--weights-dir own: holds no vggish-10086976.pth and no vggish.safetensors", "cache ", ": not there",
                  "no connection (Connection refused)", "tristream weights add FILE --as vggish"):  # fmt: skip
        assert words in said


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "resnet_18",
            "unknown weights 'resnet_18'; available: inception_resnet_v2, .* \\(like it: resnet18",
        ),
        ("../../etc/passwd", "weights '../../etc/passwd': a name has letters"),
        ("test_nothing_like_it_x", "unknown weights 'test_nothing_like_it_x'"),
    ],
)
def test_an_unknown_name_is_refused_with_those_like_it(planted, name, sentence):
    with pytest.raises(catalogue.UnknownWeights, match=sentence):
        catalogue.describe(name)
    assert run("get", name)[0] == 2
