"""Floats: float8 e4m3 whose largest value is scaled to 448, with one scale a tensor or a row."""

from dataclasses import dataclass

import torch

from outlier_features.variants.rounding import E4M3_LARGEST, e4m3, largest


@dataclass(frozen=True)
class ScaledE4m3:
    """One scale for all rows of a window or a matrix, or for each row."""

    is_per_row: bool
    is_blocked = False

    def round_trip(self, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return `x` as it comes back."""
        scale = (largest(x) if self.is_per_row else largest(whole, (-2, -1))) / E4M3_LARGEST
        scale = torch.where(scale == 0, 1.0, scale)
        return e4m3(x / scale) * scale
