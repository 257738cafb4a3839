"""Rotated: inputs and matrices turned by the same Hadamard matrix before they are rounded: y = Q(X H) Q(W H)^T."""

# Shapes: R row of a window, O output channel, C channel that a product sums over.

from dataclasses import dataclass

import torch

from outlier_features.variants.options.hadamard import rotated, rotated_back
from outlier_features.variants.options.treatment import Treatment


@dataclass
class Rotated(Treatment):
    """Spreads every channel over its width, or over its block of so many channels."""

    block: int | None

    def learn(self, whole_RC: torch.Tensor) -> None:
        """Take in a calibration window as it will be rounded."""
        super().learn(rotated(whole_RC, self.block))

    def input(self, x_RC: torch.Tensor, whole_RC: torch.Tensor) -> torch.Tensor:
        """Return the rounded rotated input."""
        turned_RC = rotated(whole_RC, self.block)
        return super().input(turned_RC if x_RC is whole_RC else rotated(x_RC, self.block), turned_RC)

    def weights(self, w: torch.Tensor, whole_RC: torch.Tensor | None = None) -> torch.Tensor:
        """Return the rounded rotated matrix."""
        return super().weights(rotated(w, self.block))

    def back(self, x_RC: torch.Tensor) -> torch.Tensor:
        """Turn an input back."""
        return rotated_back(x_RC, self.block)
