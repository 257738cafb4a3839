"""Microscaling: OCP MX, blocks of 32 channels with a power of two as scale, elements e4m3 or e2m1."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from outlier_features.variants.rounding import blocks, floor_exponent, joined, largest

BLOCK = 32
LEAST, MOST = -127, 127
"""Exponents that E8M0 has."""


@dataclass(frozen=True)
class Mx:
    """One shared exponent a block: floor(log2(largest)) minus the largest exponent of an element."""

    element: Callable[[torch.Tensor], torch.Tensor]
    element_exponent: int
    is_blocked = True

    def round_trip(self, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return `x` as it comes back."""
        groups = blocks(x, BLOCK)
        exponent = (floor_exponent(largest(groups)) - self.element_exponent).clamp(LEAST, MOST)
        # two steps: 2^127 times an element's own range is beyond float32, and 2^-127 a subnormal that loses bits
        scaled = torch.ldexp(groups, -exponent)
        return joined(torch.ldexp(self.element(scaled), exponent), x.shape[-1])
