"""Files of weights become safetensors; what could run code, or is damaged, does not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load, load_file, save, save_file

from tristream.store.weights import convert
from tristream.store.weights import convert_child as child
from tristream.store.weights.convert import ImportRefused, format_of, to_safetensors

HOME = Path(__file__).parents[1]
SHARED = HOME.parent / "shared" / "weights"

needs_yamnet = pytest.mark.skipif(
    not (SHARED / "yamnet.tflite").exists(), reason="needs ../shared/weights/yamnet.tflite"
)


class Tells:
    """A pickle of it writes a file when it is opened by a careless reader."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "bn.num_batches_tracked": torch.tensor(7),
        "half": torch.randn(5, generator=generator).bfloat16(),
    }


def read_here(kind, data):
    """As the child process does, in this one: starting a process that imports torch takes seconds."""
    return load(child.READERS[kind]()(data))


def bytes_of(content, **kwargs):
    buffer = io.BytesIO()
    torch.save(content, buffer, **kwargs)
    return buffer.getvalue()


def test_a_pytorch_file_comes_out_with_the_same_tensors(state, tmp_path):
    torch.save(state, tmp_path / "net.whatever")
    assert format_of(tmp_path / "net.whatever") == "torch"
    to_safetensors(tmp_path / "net.whatever", tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.whatever", "out.safetensors"]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("wrapped", ["state_dict", "model_state_dict", "model"])
def test_what_training_programs_wrap_around_a_state_dict_is_left_out(
    state, tmp_path, zipped, wrapped
):
    content = {wrapped: state, "epoch": 3, "hyper_parameters": {"lr": 0.1}}
    data = bytes_of(content, _use_new_zipfile_serialization=zipped)
    (tmp_path / "f").write_bytes(data)
    assert format_of(tmp_path / "f") == "torch"
    found = read_here("torch", data)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_tensors_that_share_memory_or_are_views_come_out_whole():
    base = torch.arange(12.0).reshape(3, 4)
    found = read_here("torch", bytes_of({"a": base, "b": base, "turned": base.T, "part": base[1]}))
    assert torch.equal(found["turned"], base.T)
    assert torch.equal(found["part"], base[1])
    assert torch.equal(found["a"], found["b"])


def test_safetensors_and_npz_come_out_with_the_same_arrays(state, tmp_path):
    save_file(state, tmp_path / "a")
    np.savez(tmp_path / "b.npz", means=np.linspace(0, 1, 7), codes=np.arange(3, dtype=np.int16))
    assert (format_of(tmp_path / "a"), format_of(tmp_path / "b.npz")) == ("safetensors", "npz")
    found = read_here("safetensors", (tmp_path / "a").read_bytes())
    assert all(torch.equal(state[name], tensor) for name, tensor in found.items())
    to_safetensors(tmp_path / "b.npz", tmp_path / "b.safetensors")
    arrays = load_numpy(tmp_path / "b.safetensors")
    assert np.array_equal(arrays["means"], np.linspace(0, 1, 7))
    assert arrays["codes"].dtype == np.int16


def scripted(tmp_path):
    with zipfile.ZipFile(tmp_path / "f", "w") as archive:
        for name in ("net/constants.pkl", "net/data.pkl", "net/code/__torch__.py"):
            archive.writestr(name, b"x")


def other_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "f", "w") as archive:
        archive.writestr("readme.txt", b"x")


def bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "f", "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo("a.npy")
        with archive.open(member, "w", force_zip64=True) as out:
            out.write(b"\0" * 100)
        archive.infolist()[0].file_size = (
            convert.MAX_BYTES + 1
        )  # what the directory at the end will say


def plain(data):
    return lambda tmp_path: (tmp_path / "f").write_bytes(data)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (plain(b""), r"f is empty; it must be one of: safetensors, PyTorch"),
        (plain(b"\x80\x04\x95\x10"), r"f is a pickle, which can run code, and is not opened"),
        (plain(b"  <!DOCTYPE html><p>404"), r"f is a web page, not weights"),
        (plain(b"version https://git-lfs.github.com/spec/v1\n"), r"f is a Git LFS pointer"),
        (plain(b"\x89HDF\r\n"), r"f is an HDF5 file"),
        (plain(b"GIF89a"), r"f is of no known format \(it starts with b'GIF89a'\)"),
        (plain(b"PK\x03\x04 and nothing more"), r"f is a broken zip archive"),
        (scripted, r"f is a TorchScript archive: a program, not plain weights"),
        (other_zip, r"f is a zip archive of other files \(first: \['readme\.txt'\]\)"),
        (bomb, r"f unpacks to more than 4 GiB"),
    ],
)
def test_what_is_no_weights_is_refused_by_what_it_is(tmp_path, make, sentence):
    make(tmp_path)
    with pytest.raises(ImportRefused, match=sentence):
        to_safetensors(tmp_path / "f", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def objects():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([{}], dtype=object))
    return buffer.getvalue()


def flipped():
    data = bytearray(save({"a": torch.zeros(64)}))
    data[20] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("kind", "data", "sentence"),
    [
        ("tflite", b"\0\0\0\0TFL3" + b"\xff" * 99, "^TFLite cannot parse it"),
        ("safetensors", save({"fine": torch.zeros(2), "broken": torch.tensor([1.0, float("nan")])}),
         "^its tensor 'broken' holds values that are not finite"),
        ("safetensors", save({"fine": torch.zeros(2), "broken": torch.tensor([1.0, float("inf")]).bfloat16()}),
         "^its tensor 'broken' holds values that are not finite"),
        ("safetensors", flipped(), "^it is damaged"),
        ("npz", objects(), "^NumPy reads no plain arrays from it"),
        ("torch", bytes_of({"a": 3}), "^its entry 'a' is int, not a tensor"),
        ("torch", bytes_of([torch.zeros(1)]), "^it holds list, not a dictionary"),
        ("torch", bytes_of({"state_dict": {}}), "^it holds dict, not"),
        ("torch", bytes_of({"a": torch.tensor([float("inf")])}), "^its tensor 'a' holds values that are not finite"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_plain_finite_tensors_is_refused(kind, data, sentence):
    if kind == "tflite":
        pytest.importorskip("ai_edge_litert")
    with pytest.raises(child.Refused, match=sentence):
        read_here(kind, data)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_does_not_run_it(tmp_path, zipped):
    data = bytes_of(
        {"a": torch.zeros(1), "b": Tells(tmp_path / "canary")},
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(child.Refused, match=r"^PyTorch reads no plain tensors from it \("):
        read_here("torch", data)
    (tmp_path / "f").write_bytes(data)
    if zipped:  # its bytes tell, before PyTorch is asked
        with pytest.raises(ImportRefused, match=r"f would call '\w+\.mkdir' when it is loaded"):
            to_safetensors(tmp_path / "f", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


CAN_IT = """
import runpy, socket, sys
child = runpy.run_path({child!r})
child["_take_rights_away"](1000)
for name, act in {{"file": lambda: open("/etc/hostname"), "socket": socket.socket,
                  "memory": lambda: bytearray(1 << 30)}}.items():
    try:
        act()
        print(name, "yes")
    except (OSError, MemoryError) as error:
        print(name, "no")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of processes there")
def test_the_process_that_reads_can_open_no_file_and_no_socket():
    code = CAN_IT.format(child=str(HOME / "store" / "weights" / "convert_child.py"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["file no", "socket no", "memory no"]


@needs_yamnet
def test_every_constant_of_a_tflite_file_is_dequantised_as_the_runtime_says(tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(
        str(SHARED / "yamnet.tflite")
    )
    metadata = to_safetensors(SHARED / "yamnet.tflite", tmp_path / "yamnet.safetensors")
    found = load_numpy(tmp_path / "yamnet.safetensors")
    details = {
        f"{tensor['index']}:{tensor['name']}": tensor for tensor in interpreter.get_tensor_details()
    }
    produced = {int(i) for op in interpreter._get_ops_details() for i in op["outputs"]}
    assert found.keys() == {
        name for name, tensor in details.items() if tensor["index"] not in {0, *produced}
    }
    assert len(found) == 73
    for name, array in found.items():
        tensor = details[name]
        codes, quantised = (
            interpreter.get_tensor(tensor["index"]),
            tensor["quantization_parameters"],
        )
        assert array.shape == codes.shape
        if len(quantised["scales"]) == 0:
            assert np.array_equal(array, codes)
            continue
        for channel, (scale, zero) in enumerate(zip(quantised["scales"], quantised["zero_points"])):
            axis = quantised["quantized_dimension"]
            one = np.take(codes, channel, axis) if len(quantised["scales"]) > 1 else codes
            assert np.allclose(
                np.take(array, channel, axis) if len(quantised["scales"]) > 1 else array,
                float(scale) * (one.astype(float) - float(zero)), rtol=1e-6, atol=0,
            )  # fmt: skip
    graph = json.loads(metadata["graph"])
    assert graph["tensors"]["115"]["name"].endswith("layer28/reduce_mean")
    assert graph["tensors"]["115"]["zero_point"] == [-128]
    assert graph["tensors"]["115"]["scale"] == pytest.approx([0.0223284], rel=1e-5)
    assert [op["name"] for op in graph["operators"]].count("CONV_2D") == 14
    assert graph["operators"][-1] == {"name": "DEQUANTIZE", "inputs": [119], "outputs": [120]}


def test_a_reader_that_dies_is_one_refused_file(tmp_path, monkeypatch):
    save_file({"a": torch.zeros(1)}, tmp_path / "f")
    child = tmp_path / "child.py"
    child.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setattr(convert, "_CHILD", child)
    with pytest.raises(
        ImportRefused, match=r"the process that read it ended with -9 \(it said nothing\)"
    ):
        to_safetensors(tmp_path / "f", tmp_path / "out")
    child.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(convert, "MAX_SECONDS", 0.2)
    with pytest.raises(ImportRefused, match=r"reading it took more than 0\.2 s"):
        to_safetensors(tmp_path / "f", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["child.py", "f"]


def test_a_file_larger_than_any_weights_is_not_read(tmp_path, monkeypatch):
    save_file({"a": torch.zeros(100)}, tmp_path / "f")
    monkeypatch.setattr(convert, "MAX_BYTES", 300)
    with pytest.raises(ImportRefused, match=r"f has \d{3} bytes; weights may have 300 at most"):
        to_safetensors(tmp_path / "f", tmp_path / "out")
