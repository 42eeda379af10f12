"""The correlation of two feature maps over a window of displacements, as matrix products.

ptlflow's own layer (`ptlflow.utils.correlation`, kernel 1, stride 1) samples the second map once for each of FlowNetC's
441 displacements, which is more than half of FlowNet2's time on a CPU. The same numbers come from one product of
matrices for each row offset, of which the band of wanted column offsets is kept.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tristream.errors import TristreamError


class SpatialCorrelation(nn.Module):
    """Scalar products of each pixel of the first map with the displaced pixels of the second; outside of it is 0.

    Args:
        patch_size: displacements each way, odd.
        step: px between them.

    Raises:
        TristreamError: an even `patch_size`.
    """

    def __init__(self, patch_size: int, step: int = 1) -> None:
        super().__init__()
        if patch_size % 2 == 0:
            raise TristreamError(
                f"patch_size is {patch_size}; it must be odd, so that no displacement is in the middle"
            )
        self.patch_size, self.step = patch_size, step

    def forward(
        self, first: Float[Tensor, "B C H W"], second: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B patch patch H W"]:
        """The displacement down is on axis 1, to the right on axis 2, each from the most negative."""
        height, width = first.shape[2:]
        n, reach = self.patch_size, self.patch_size // 2 * self.step
        padded = nn.functional.pad(second, (reach, reach, reach, reach)).permute(
            0, 2, 1, 3
        )  # (B, H+, C, W+)
        rows = first.permute(0, 2, 3, 1)  # (B, H, W, C)
        # Of a row's products (W, W+) pixel x needs columns x, x + step, …: its own place in `padded` is x + reach.
        x = torch.arange(width, device=first.device)[:, None]
        columns = x + self.step * torch.arange(n, device=first.device)  # (W, patch)
        columns = columns.expand(first.shape[0], height, width, n)
        bands = [
            torch.gather(rows @ padded[:, y : y + height], 3, columns)  # (B, H, W, patch)
            for y in range(0, 2 * reach + 1, self.step)
        ]
        return torch.stack(bands, dim=1).permute(0, 1, 4, 2, 3).contiguous()


class FlowNetCorrelation(nn.Module):
    """FlowNetC's: 21 × 21 displacements of up to 20 px, mean over channels, one channel for each displacement."""

    def __init__(self) -> None:
        super().__init__()
        self.products = SpatialCorrelation(21, step=2)

    def forward(
        self, first: Float[Tensor, "B C H W"], second: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B displacements H W"]:
        return self.products(first, second).flatten(1, 2) / first.shape[1]
