"""FlowNet 2.0 (Ilg et al. 2017, arXiv:1612.01925), the paper's estimator; its five parts; any other network of ptlflow.

The networks are ptlflow's own; only their correlation layers are exchanged for `flow.correlation`, which gives the same
numbers. FlowNets resize the pictures to multiples of 64 px and scale the vectors back; other networks pad.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from tristream.errors import TristreamError

if TYPE_CHECKING:
    import torch

NAMES = ("flownet2", "flownetc", "flownetcs", "flownetcss", "flownets", "flownetsd")


def network(name: str) -> torch.nn.Module:
    """Pairs (B, 2, H, W, 3) uint8 RGB → flow (B, 2, H, W), random weights.

    Raises:
        TristreamError: ptlflow is not installed, or has no network of this name.
    """
    import torch

    core = stock(name)
    _exchange_correlations(core)
    for module in core.modules():
        if hasattr(
            module, "_jit_is_scripting"
        ):  # lightning's: or a module that has no trainer cannot be traced
            setattr(module, "_jit_is_scripting", True)  # noqa: B010
    if name in NAMES:  # a sixth of the time; networks that take views of their maps do not bear it
        core = core.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _pair_network(core)


def stock(name: str) -> torch.nn.Module:
    """Return ptlflow's network of this name, unchanged, with random weights."""
    library = _ptlflow()
    if name not in library.get_model_names():
        raise TristreamError(
            f"unknown flow estimator '{name}'; ptlflow {library.__version__} has {', '.join(library.get_model_names())}"
        )
    return library.get_model_reference(name)()


def _pair_network(core: torch.nn.Module) -> torch.nn.Module:
    from torch import Tensor, nn

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = core

        def forward(self, pairs: Tensor) -> Tensor:
            pictures = pairs.permute(0, 1, 4, 2, 3).flip(2).float() / 255  # (B, 2, 3, H, W), BGR
            return self.core({"images": pictures})["flows"][:, 0]

    return Pair()


def _exchange_correlations(core: torch.nn.Module) -> None:
    """Replace ptlflow's Python correlations by ours."""
    from ptlflow.models.flownet.flownetc import FlowNetC
    from ptlflow.utils.correlation import IterSpatialCorrelationSampler

    from tristream.flow.correlation import FlowNetCorrelation, SpatialCorrelation

    for parent in list(core.modules()):
        if isinstance(parent, FlowNetC):
            parent.corr = FlowNetCorrelation()
        for child_name, child in list(parent.named_children()):
            if isinstance(child, IterSpatialCorrelationSampler) and _is_plain(child):
                setattr(
                    parent,
                    child_name,
                    SpatialCorrelation(child.patch_size, step=child.dilation_patch),
                )


def _is_plain(sampler: torch.nn.Module) -> bool:
    settings = (sampler.kernel_size, sampler.stride, sampler.padding, sampler.dilation)
    return (
        settings == (1, 1, 0, 1)
        and isinstance(sampler.patch_size, int)
        and isinstance(sampler.dilation_patch, int)
    )


def _ptlflow() -> ModuleType:
    """Return ptlflow, imported when first needed (4 s: it imports all its networks).

    Raises:
        TristreamError: it is not installed.
    """
    try:
        with _quiet(), _without_a_faiss_that_has_no_gpu():
            import ptlflow
    except ModuleNotFoundError as error:
        raise TristreamError(
            f"this flow estimator is ptlflow's, which cannot be imported ({error}); install it: "
            "pip install 'tristream[flow]'"
        ) from error
    return ptlflow


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ptlflow prints on stdout, which belongs to results, and its networks log what else could be installed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _without_a_faiss_that_has_no_gpu() -> Iterator[None]:
    """ptlflow 0.4.2 uses faiss's GPU part where there is a faiss, and fails at import on one that is for the CPU."""
    if "ptlflow" in sys.modules:
        yield
        return
    before = sys.modules.get("faiss")
    sys.modules["faiss"] = None  # type: ignore[assignment]  # importing it now raises ImportError, which ptlflow expects
    try:
        yield
    finally:
        if before is None:
            del sys.modules["faiss"]
        else:
            sys.modules["faiss"] = before
