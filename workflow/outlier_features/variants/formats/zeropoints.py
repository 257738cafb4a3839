"""Zeropoints: asymmetric int8 as LLM.int8() has it, with one range a tensor or a row."""

from dataclasses import dataclass

import torch

from outlier_features.variants.rounding import asymmetric


@dataclass(frozen=True)
class Asymmetric:
    """One range over these axes of a window or a matrix."""

    is_per_row: bool
    is_blocked = False

    def round_trip(self, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return `x` as it comes back."""
        if x.numel() == 0:
            return x
        spanned, dims = (x, (-1,)) if self.is_per_row else (whole, (-2, -1))
        return asymmetric(x, spanned.amin(dims, keepdim=True), spanned.amax(dims, keepdim=True))
