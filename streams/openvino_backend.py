"""Networks on OpenVINO: converted once from torch, checked against it, cached, run on all cores."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import queue
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tristream.errors import TristreamError
from tristream.media.machine import n_cores
from tristream.streams.backend import Network, Precision

if TYPE_CHECKING:
    import openvino

    from tristream.store.cache import Cache

# of a request: enough to keep one core busy, few enough to share a short video among cores
ROWS = 8
TOLERANCE = 1e-4  # relative to the size of torch's output; 1e-7 to 1e-5 were measured
SCHEMA = 1  # raised by hand when the same module is converted differently


class ConversionError(TristreamError):
    """OpenVINO does not reproduce torch's result."""


class OpenVinoBackend:
    """One inference stream per core, one thread each: the bits do not depend on the number of cores.

    Args:
        cache: of converted networks; None: converted anew in every process.
        n_streams: batches computed at the same time; None: one per core.
    """

    name = "openvino"
    device = torch.device("cpu")

    def __init__(self, *, cache: Cache | None = None, n_streams: int | None = None) -> None:
        import openvino

        self._core = openvino.Core()
        self._cache = cache
        self._n_streams = n_streams or n_cores()

    def identity(self) -> dict[str, Any]:
        import openvino

        return {"backend": f"openvino {openvino.__version__}"}

    def batch_size(self, configured: int) -> int:
        return min(configured, ROWS)

    def compile(
        self, module: nn.Module, *example: np.ndarray, precision: Precision = "float32"
    ) -> Network:
        """See `streams.backend.Backend`.

        Raises:
            ConversionError: on the example, OpenVINO's output in float32 is not torch's.
            TristreamError: bf16 on a CPU that has none.
        """
        if precision == "bf16" and "BF16" not in self._core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise TristreamError(
                "precision bf16: this CPU has no bf16, it would be slower and less exact; take float32"
            )
        module = module.cpu().eval()
        key = None if self._cache is None else self._cache.key(
            network=network_digest(module),
            example=[[array.dtype.str, array.shape] for array in example],
            libraries=[self.identity()["backend"], torch.__version__],
            schema=SCHEMA,
        )  # fmt: skip
        entry = (
            self._cache.get("compiled", key)
            if self._cache is not None and key is not None
            else None
        )
        if entry is None:
            entry = convert(module, *example)
            self._check(entry, module, *example)
            if self._cache is not None and key is not None:
                self._cache.put("compiled", key, entry)
        return self._load(entry, precision)

    def _load(self, entry: dict[str, np.ndarray], precision: Precision) -> OpenVinoNetwork:
        import openvino

        weights = entry["weights"]
        # OpenVINO accepts only writable arrays but does not write to them, so the mapped file is not copied.
        writable = np.ctypeslib.as_array(
            (ctypes.c_uint8 * weights.nbytes).from_address(weights.ctypes.data)
        )
        model = self._core.read_model(
            entry["graph"].tobytes(), openvino.Tensor(writable, shared_memory=True)
        )
        settings = {
            "NUM_STREAMS": self._n_streams,
            "INFERENCE_NUM_THREADS": self._n_streams,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "ENABLE_CPU_PINNING": False,  # decode processes and others share these cores
        }
        compiled = self._core.compile_model(model, "CPU", settings)
        _leave_on_disk(weights)
        return OpenVinoNetwork(compiled, self._n_streams, weights)

    def _check(self, entry: dict[str, np.ndarray], module: nn.Module, *example: np.ndarray) -> None:
        result = self._load(entry, "float32").submit(*example).result()
        with torch.inference_mode():
            expected = module(*(torch.from_numpy(array) for array in example)).numpy()
        error = relative_error(result, expected)
        if not error <= TOLERANCE:
            raise ConversionError(
                f"OpenVINO computes {type(module).__name__} with a relative error of {error:.2g} against torch; at "
                f"most {TOLERANCE:g} is accepted. Use --backend torch, and report it"
            )


class OpenVinoNetwork:
    """Compiled model and its requests; thread-safe.

    Args:
        compiled: the model.
        n_streams: requests computed at the same time; as many again may wait.
        weights: memory from which the model reads its constants; kept as long as the model.
    """

    def __init__(
        self, compiled: openvino.CompiledModel, n_streams: int, weights: np.ndarray
    ) -> None:
        self._weights = weights
        self._idle: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        for _ in range(2 * n_streams):
            request = compiled.create_infer_request()
            request.set_callback(self._done, request)
            self._idle.put(request)
        self.busy_seconds = 0.0
        self._n_streams = n_streams
        self._since, self._lock = time.perf_counter(), threading.Lock()
        self._pending: dict[int, tuple[Future[np.ndarray], tuple[np.ndarray, ...]]] = {}

    def submit(self, *inputs: np.ndarray) -> Future[np.ndarray]:
        request = self._idle.get()
        future: Future[np.ndarray] = Future()
        inputs = tuple(np.ascontiguousarray(array) for array in inputs)
        self._count()
        self._pending[id(request)] = future, inputs  # the request reads the arrays where they are
        request.start_async(dict(enumerate(inputs)), share_inputs=True)
        return future

    def _count(self) -> None:
        """Add the computing time of all streams since the last change; waiting requests do not count."""
        with self._lock:
            now = time.perf_counter()
            self.busy_seconds += (now - self._since) * min(len(self._pending), self._n_streams)
            self._since = now

    def _done(self, request: openvino.InferRequest) -> None:
        """Deliver a result; called in a thread of OpenVINO."""
        self._count()
        future, _ = self._pending.pop(id(request))
        try:
            result = request.get_output_tensor(0).data.astype(np.float32, copy=True)
            future.set_result(result)
        except RuntimeError as error:
            future.set_exception(error)
        finally:
            self._idle.put(request)


def _leave_on_disk(weights: np.ndarray) -> None:
    """Release the memory of an array mapped from a file: the model has its own copy of nearly all of it."""
    owner: Any = weights
    while isinstance(owner, np.ndarray):
        owner = owner.base
    owner = owner.obj if isinstance(owner, memoryview) else owner
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def convert(module: nn.Module, *example: np.ndarray) -> dict[str, np.ndarray]:
    """Return a network as two byte arrays: OpenVINO's graph (XML) and float32 weights, for inputs of this shape."""
    import openvino

    with warnings.catch_warnings(), torch.inference_mode(), _traceable(module):
        warnings.simplefilter(
            "ignore"
        )  # tracing is deprecated; what should replace it imports torch's compiler: 10 s
        tensors = tuple(torch.from_numpy(array) for array in example)
        traced = torch.jit.trace(module, tensors, check_trace=False)
        try:
            model = openvino.convert_model(
                traced, example_input=tensors, input=[array.shape for array in example]
            )
        except Exception as error:  # of many kinds, by what it stumbles over
            raise ConversionError(
                f"OpenVINO cannot convert this {type(module).__name__} ({str(error).splitlines()[0]}); take "
                "--backend torch"
            ) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return {
            "graph": np.frombuffer(path.read_bytes(), np.uint8),
            "weights": np.frombuffer(path.with_suffix(".bin").read_bytes(), np.uint8),
        }


@contextlib.contextmanager
def _traceable(module: nn.Module) -> Iterator[None]:
    """Let Lightning's modules (ptlflow's networks) be traced without a trainer."""
    parts = [part for part in module.modules() if hasattr(type(part), "_jit_is_scripting")]
    for part in parts:
        part._jit_is_scripting = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for part in parts:
            part._jit_is_scripting = False  # type: ignore[assignment]


def network_digest(module: nn.Module) -> str:
    """Return the sha256 over all that determines a module's results: structure, weights, constants, code."""
    sha = hashlib.sha256(repr(module).encode())
    for kind in sorted(
        {type(part) for part in module.modules()}, key=lambda kind: (kind.__module__, kind.__name__)
    ):
        sha.update(f"{kind.__module__}.{kind.__qualname__}".encode())
        for name, method in sorted(vars(kind).items()):
            if isinstance(method, types.FunctionType):
                sha.update(
                    name.encode()
                    + method.__code__.co_code
                    + repr(method.__code__.co_names).encode()
                )
    # Constants that are no parameters count too: buffers that are not saved, and numbers that a part keeps.
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        array = tensor.detach().cpu().contiguous().numpy()
        sha.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        sha.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    for name, part in module.named_modules():
        plain = {
            key: value
            for key, value in vars(part).items()
            if isinstance(value, bool | int | float | str | tuple)
        }
        sha.update(f"{name}|{sorted(plain.items(), key=lambda item: item[0])}".encode())
    return sha.hexdigest()


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return ‖found − expected‖ / ‖expected‖; 0 if both are 0."""
    size = float(np.linalg.norm(expected))
    error = float(np.linalg.norm(found.astype(np.float64) - expected))
    return error / size if size else error
