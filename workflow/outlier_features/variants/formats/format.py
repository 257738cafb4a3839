"""Format: how the two operands of a product are rounded, and with how many bits; the interface of every format."""

# Shapes: R row (position of X, output channel of W), C channel that the product sums over. Axes before R, such as that
# of experts, are separate matrices.

from dataclasses import dataclass
from typing import Protocol

import torch


class Quantiser(Protocol):
    """Rounds one operand; stateless unless it has a range to learn."""

    is_blocked: bool
    """Whether neighbouring channels share scales, so that channels may be blanked but not taken out."""

    def round_trip(self, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return `x` (..., R, C), float32, as it comes back; `whole` has all rows that one scale of a window spans."""


@dataclass(frozen=True)
class Format:
    """One row of the table in DEFINITIONS; None leaves an operand in the model's precision."""

    activations: Quantiser | None
    weights: Quantiser | None
    activation_bits: float
    """Bits a value takes, its share of block scales included; 16 where it is not quantised."""
    weight_bits: float
    needs_calibration: bool = False
    """Whether `activations` has `begin()`, which returns a quantiser for one matrix input that learns its range."""
