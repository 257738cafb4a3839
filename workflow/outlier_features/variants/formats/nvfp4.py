"""NVFP4: blocks of 16 channels with an e4m3 scale over the tensor's own, elements e2m1."""

from dataclasses import dataclass

import torch

from outlier_features.variants.rounding import E2M1_LARGEST, E4M3_LARGEST, blocks, e2m1, e4m3, joined, largest

BLOCK = 16


@dataclass(frozen=True)
class Nvfp4:
    """One tensor scale for all rows of a window, or for a matrix."""

    is_blocked = True

    def round_trip(self, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return `x` as it comes back; 0 in blocks whose scale e4m3 rounds to 0."""
        of_tensor = largest(whole, (-2, -1))[..., None] / (E4M3_LARGEST * E2M1_LARGEST)
        of_tensor = torch.where(of_tensor == 0, 1.0, of_tensor)
        groups = blocks(x, BLOCK)
        scale = e4m3(largest(groups) / E2M1_LARGEST / of_tensor) * of_tensor
        units = groups / torch.where(scale == 0, 1.0, scale)
        return joined(torch.where(scale == 0, torch.zeros_like(units), e2m1(units) * scale), x.shape[-1])
