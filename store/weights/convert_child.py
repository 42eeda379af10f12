"""Reads one file of weights in a process of its own; the only place where PyTorch's pickles are opened.

    python -I convert_child.py KIND MAX_BYTES < FILE > OUT.safetensors

KIND is torch, tflite, npz or safetensors. It is run as a script and imports nothing of ours. Once the libraries are
loaded it takes from itself the right to open anything (no file, no socket, no pipe) and most of its memory, then reads.
What it cannot take ends with code 3 and one sentence, the last line of standard error.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

REFUSED = 3
Tensors = dict[str, Any]
Read = Callable[[bytes], bytes]  # a file in its own format → the same as safetensors
Write = Callable[[Tensors, dict[str, str]], bytes]


class Refused(Exception):
    """The file is not what it must be; the message goes to the user."""


def main() -> None:
    kind, max_bytes = sys.argv[1], int(sys.argv[2])
    warnings.simplefilter("ignore")
    try:
        read = READERS[kind]()
        data = sys.stdin.buffer.read(max_bytes + 1)
        _take_rights_away(max_bytes)
        if len(data) > max_bytes:
            raise Refused(f"it holds more than {max_bytes} bytes")
        sys.stdout.buffer.write(read(data))
        sys.stdout.buffer.flush()
    except Refused as refusal:
        sys.stderr.write(f"\n{refusal}\n")
        sys.exit(REFUSED)
    except MemoryError:
        sys.stderr.write("\nreading it takes more memory than a file of its size may need\n")
        sys.exit(REFUSED)


def _take_rights_away(max_bytes: int) -> None:
    """Nothing can be opened from here on, nothing larger than the input written, and little more memory taken."""
    if sys.platform == "win32":  # no such limits there
        return
    import resource

    memory = _memory_used() + 12 * max_bytes + (512 << 20)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    resource.setrlimit(resource.RLIMIT_CPU, (600, 600))
    # int8 codes become float32: four times the bytes
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (4 * max_bytes + (1 << 20), 4 * max_bytes + (1 << 20))
    )
    if sys.platform.startswith("linux"):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _memory_used() -> int:
    """Bytes of address space: PyTorch alone takes gigabytes of it."""
    if not sys.platform.startswith("linux"):
        return 0
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf(
        "SC_PAGE_SIZE"
    )


def _torch() -> Read:
    import torch

    def load(data: bytes) -> bytes:
        try:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # whatever a file of a stranger's makes of the reader
            raise Refused(
                f"PyTorch reads no plain tensors from it ({_first_line(error)})"
            ) from error
        return write(_state_dict(content), {})

    write = _torch_writer()
    warm = io.BytesIO()
    torch.save({"warm": torch.zeros(1)}, warm)
    load(warm.getvalue())  # what is imported late is imported now
    return load


def _state_dict(found: Any) -> Tensors:
    """The tensors by name: the file's own dictionary, or the one that training programs wrap."""
    import torch

    if isinstance(found, Mapping):
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(found.get(key), Mapping):
                found = found[key]
                break
    if not isinstance(found, Mapping) or not found:
        raise Refused(f"it holds {type(found).__name__}, not a dictionary of tensors by name")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise Refused(
                f"its entry {key!r} is {type(value).__name__}, not a tensor; a state dict holds tensors only"
            )
    return dict(found)


def _npz() -> Read:
    import zipfile

    import numpy as np

    def load(data: bytes) -> bytes:
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
            raise Refused(f"NumPy reads no plain arrays from it ({_first_line(error)})") from error
        return write(arrays, {})

    write = _numpy_writer()
    warm = io.BytesIO()
    np.savez(warm, warm=np.zeros(1))
    load(warm.getvalue())
    return load


def _safetensors() -> Read:
    import numpy as np
    from safetensors import SafetensorError, deserialize

    views = {"F64": np.float64, "F32": np.float32, "F16": np.float16}

    def is_finite(tensor: dict[str, Any]) -> bool:
        if (
            tensor["dtype"] == "BF16"
        ):  # NumPy has no such type: an exponent of ones is infinite or no number
            return bool(((np.frombuffer(tensor["data"], "<u2") & 0x7F80) != 0x7F80).all())
        kind = views.get(tensor["dtype"])
        return kind is None or bool(np.isfinite(np.frombuffer(tensor["data"], kind)).all())

    def load(data: bytes) -> bytes:
        try:
            tensors = dict(deserialize(data))
        except (SafetensorError, ValueError, KeyError) as error:
            raise Refused(f"it is damaged ({_first_line(error)})") from error
        _check(tensors, is_finite)
        return data

    return load


def _tflite() -> Read:
    import numpy as np

    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise Refused(
            "reading TFLite needs ai-edge-litert; pip install 'tristream[tflite]'"
        ) from None

    def load(data: bytes) -> bytes:
        try:
            model = Interpreter(model_content=data, num_threads=1)
        except (ValueError, RuntimeError) as error:
            raise Refused(f"TFLite cannot parse it ({_first_line(error)})") from error
        details = {int(tensor["index"]): tensor for tensor in model.get_tensor_details()}
        operators = model._get_ops_details()
        changing = {int(i) for op in operators for i in op["outputs"]} | {
            int(t["index"]) for t in model.get_input_details()
        }
        constants = {
            f"{index}:{tensor['name']}": _dequantised(model.get_tensor(index), tensor)
            for index, tensor in details.items()
            if index not in changing
        }
        graph = {
            "operators": [
                {
                    "name": op["op_name"],
                    "inputs": op["inputs"].tolist(),
                    "outputs": op["outputs"].tolist(),
                }
                for op in operators
            ],
            "tensors": {
                index: {
                    "name": tensor["name"],
                    "shape": tensor["shape"].tolist(),
                    "dtype": np.dtype(tensor["dtype"]).name,
                    "scale": tensor["quantization_parameters"]["scales"].tolist(),
                    "zero_point": tensor["quantization_parameters"]["zero_points"].tolist(),
                }
                for index, tensor in details.items()
                if index in changing
            },
        }
        return write(constants, {"graph": json.dumps(graph)})

    write = _numpy_writer()
    return load


def _dequantised(codes: Any, tensor: Mapping[str, Any]) -> Any:
    """scale × (code − zero point) along the axis the scales belong to; what is not quantised stays as it is."""
    import numpy as np

    quantisation = tensor["quantization_parameters"]
    scales, zero_points = quantisation["scales"], quantisation["zero_points"]
    if not len(scales):
        return np.array(codes)
    shape = [1] * codes.ndim
    if len(scales) > 1:
        shape[quantisation["quantized_dimension"]] = len(scales)
    centred = codes.astype(np.float64) - zero_points.reshape(shape)
    return (centred * scales.astype(np.float64).reshape(shape)).astype(np.float32)


def _torch_writer() -> Write:
    import torch
    from safetensors.torch import save

    def write(tensors: Tensors, metadata: dict[str, str]) -> bytes:
        _check(
            tensors,
            lambda tensor: not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()),
        )
        # safetensors refuses tensors that share memory
        return save(
            {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()},
            metadata,
        )

    write({"warm": torch.zeros(1)}, {})  # what is imported late is imported now
    return write


def _numpy_writer() -> Write:
    import numpy as np
    from safetensors.numpy import save

    def write(tensors: Tensors, metadata: dict[str, str]) -> bytes:
        _check(tensors, lambda array: array.dtype.kind != "f" or bool(np.isfinite(array).all()))
        return save(
            {name: np.asarray(array, order="C") for name, array in tensors.items()}, metadata
        )

    write({"warm": np.zeros(1)}, {})
    return write


def _check(tensors: Tensors, is_finite: Callable[[Any], bool]) -> None:
    if not tensors:
        raise Refused("it holds no tensor")
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise Refused(f"its tensor '{name}' holds values that are not finite")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


READERS: dict[str, Callable[[], Read]] = {
    "torch": _torch,
    "npz": _npz,
    "safetensors": _safetensors,
    "tflite": _tflite,
}

if __name__ == "__main__":
    main()
