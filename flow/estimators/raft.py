"""RAFT (Teed & Deng 2020, arXiv:2003.12039) as torchvision has it, large and small; "raft" is the large one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

NAMES = ("raft", "raft_large", "raft_small")
ALIASES = {"raft": "raft_large"}

_STRIDE = 8
_SMALLEST_SIDE_PX = (
    128  # four halvings of maps at an eighth of the size must leave more than one pixel
)
_N_UPDATES = 12  # torchvision's default


def network(name: str) -> torch.nn.Module:
    """Pairs (B, 2, H, W, 3) uint8 RGB → flow (B, 2, H, W), random weights."""
    from torch import Tensor, nn
    from torchvision.models import optical_flow

    class Raft(nn.Module):
        """RAFT on frames of any size: they are padded by replication, and the field is cropped to the frames."""

        def __init__(self) -> None:
            super().__init__()
            self.core = getattr(optical_flow, name)(weights=None, progress=False)

        def forward(self, pairs: Tensor) -> Tensor:
            height, width = int(pairs.shape[2]), int(pairs.shape[3])
            above, below = _margins(height)
            left, right = _margins(width)
            pictures = pairs.permute(0, 1, 4, 2, 3).float() / 127.5 - 1  # (B, 2, 3, H, W)
            before, after = (
                nn.functional.pad(pictures[:, i], (left, right, above, below), mode="replicate")
                for i in (0, 1)
            )
            flow = self.core(before, after, num_flow_updates=_N_UPDATES)[-1]
            return flow[:, :, above : above + height, left : left + width]

    return Raft()


def _margins(side: int) -> tuple[int, int]:
    """Return the pixels to add on each side of a length."""
    missing = max(_SMALLEST_SIDE_PX, -(-side // _STRIDE) * _STRIDE) - side
    return missing // 2, missing - missing // 2
