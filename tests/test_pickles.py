"""Calls of a pickle are read from its bytes, without loading it."""

from __future__ import annotations

import io
import zipfile

import pytest

from tristream.store.weights.convert import ImportRefused, format_of
from tristream.store.weights.pickle_scan import calls_in, forbidden

# Written by hand: each would call something if it were loaded.
SYSTEM = b"cposix\nsystem\n(S'true'\ntR."
OPEN_4 = b"\x80\x04\x8c\x08builtins\x94\x8c\x04open\x94\x93\x94\x8c\x01x\x94\x85\x94R\x94."
INSTANCE = b"(S'true'\nios\nsystem\n."
# module and name stored first and fetched later, between other strings
FROM_MEMO = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x05torch\x94h\x00h\x01\x93."
NOT_STRINGS = b"\x80\x04K\x01K\x02\x93."


@pytest.mark.parametrize(
    ("data", "calls"),
    [
        (SYSTEM, {"posix.system"}),
        (OPEN_4, {"builtins.open"}),
        (INSTANCE, {"os.system"}),
        (FROM_MEMO, {"os.system"}),
        (NOT_STRINGS, {"?"}),
        (b"\x80\x02\x82\x01.", {"?"}),
        (b"\x80\x02}.", set()),
    ],
)
def test_every_way_to_name_a_function_is_seen(data, calls):
    assert calls_in(data) == calls
    assert forbidden(calls) == sorted(calls)


def test_what_plain_weights_refer_to_is_allowed_and_nothing_like_it():
    plain = {
        "torch._utils._rebuild_tensor_v2",
        "torch.FloatStorage",
        "collections.OrderedDict",
        "builtins.set",
    }
    assert forbidden(plain) == []
    assert forbidden({"torchish.x", "builtins.eval", "os.system", "builtins.getattr", "torch.?"}) == [
        "builtins.eval", "builtins.getattr", "os.system", "torch.?", "torchish.x",
    ]  # fmt: skip


def archive(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            SYSTEM,
            r"would call 'posix\.system' when it is loaded, as no plain weights do; it is not opened",
        ),
        (OPEN_4, r"would call 'builtins\.open'"),
        (b"no pickle", "holds no pickle that can be read"),
        (b"", "holds no pickle that can be read"),
    ],
)
def test_a_file_of_pytorch_that_would_call_something_is_refused_before_pytorch_sees_it(
    tmp_path, data, said
):
    (tmp_path / "a.pt").write_bytes(archive(data))
    with pytest.raises(ImportRefused, match=said):
        format_of(tmp_path / "a.pt")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("is_old", [False, True])
def test_state_dicts_that_pytorch_writes_pass(tmp_path, protocol, is_old):
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(
        network.state_dict(), tmp_path / "a.pth", pickle_protocol=protocol,
        _use_new_zipfile_serialization=not is_old,
    )  # fmt: skip
    if is_old and protocol == 4:
        with pytest.raises(ImportRefused):
            format_of(tmp_path / "a.pth")
    else:
        assert format_of(tmp_path / "a.pth") == "torch"
