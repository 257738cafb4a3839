"""Smoothed: SmoothQuant at attn_in and mlp_in; what inputs are divided by, their matrices are multiplied by."""

# Shapes: R row of a window, O output channel, C channel that a product sums over.

from dataclasses import dataclass
from functools import cached_property

import torch

from outlier_features.variants.options import smooth
from outlier_features.variants.options.treatment import Treatment

SITES = ("attn_in", "mlp_in")


@dataclass
class Smoothed(Treatment):
    """Divides inputs by s = max|x|^strength / max|w|^(1 - strength) of each channel (Xiao et al. 2023, Eq. 4)."""

    strength: float

    @cached_property
    def scale(self) -> torch.Tensor:
        """The divisor of each channel (C,); 1 at other sites."""
        if self.known.site not in SITES:
            return torch.ones_like(self.known.largest_C)
        return smooth.scales(self.known.largest_C, self.known.largest_weight_C(), self.strength)

    def learn(self, whole_RC: torch.Tensor) -> None:
        """Take in a calibration window as it will be rounded."""
        super().learn(whole_RC / self.scale)

    def input(self, x_RC: torch.Tensor, whole_RC: torch.Tensor) -> torch.Tensor:
        """Return the rounded input, divided."""
        return super().input(x_RC / self.scale, whole_RC / self.scale)

    def weights(self, w: torch.Tensor, whole_RC: torch.Tensor | None = None) -> torch.Tensor:
        """Return the rounded matrix, multiplied."""
        return super().weights(w * self.scale)

    def back(self, x_RC: torch.Tensor) -> torch.Tensor:
        """Multiply an input again."""
        return x_RC * self.scale
