"""Integers: symmetric int8 and int4, with one scale a tensor, a row, or a block of channels of a row."""

from dataclasses import dataclass

import torch

from outlier_features.variants.rounding import blocks, joined, largest, symmetric


@dataclass(frozen=True)
class PerTensor:
    """One scale for all rows of a window, or for a matrix."""

    q: int
    is_blocked = False

    def round_trip(self, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return `x` as it comes back."""
        return symmetric(x, largest(whole, (-2, -1)), self.q)


@dataclass(frozen=True)
class PerRow:
    """One scale for each token, or for each output channel."""

    q: int
    is_blocked = False

    def round_trip(self, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return `x` as it comes back."""
        return symmetric(x, largest(x), self.q)


@dataclass(frozen=True)
class PerGroup:
    """One scale for each output channel and so many neighbouring input channels."""

    q: int
    size: int
    is_blocked = True

    def round_trip(self, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return `x` as it comes back."""
        groups = blocks(x, self.size)
        return joined(symmetric(groups, largest(groups), self.q), x.shape[-1])
