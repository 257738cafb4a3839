"""Kept: rounding that leaves some channels alone, all scales over the rest only."""

# Shapes: R row of a window, C channel that a product sums over.

import torch

from outlier_features.variants.formats.format import Quantiser


def quantised_rest(quantiser: Quantiser, x: torch.Tensor, whole: torch.Tensor, is_kept_C: torch.Tensor) -> torch.Tensor:
    """Return `x` (..., R, C) rounded, the kept channels as they are; `whole` is what one scale of a window spans."""
    if quantiser.is_blocked:
        blank = torch.where(is_kept_C, 0.0, x)
        back = quantiser.round_trip(blank, blank if whole is x else torch.where(is_kept_C, 0.0, whole))
        return torch.where(is_kept_C, x, back)
    if is_kept_C.all():
        return x
    rest = x[..., ~is_kept_C]
    out = x.clone()
    out[..., ~is_kept_C] = quantiser.round_trip(rest, rest if whole is x else whole[..., ~is_kept_C])
    return out


def above(whole_RC: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the channels (C,) with any |x| above a threshold."""
    return (whole_RC.abs() > threshold).any(0)


def largest(largest_C: torch.Tensor, count: int) -> torch.Tensor:
    """Return the so many channels (C,) of largest |x|; of equal ones the first."""
    is_kept_C = torch.zeros_like(largest_C, dtype=torch.bool)
    is_kept_C[largest_C.argsort(descending=True, stable=True)[:count]] = True
    return is_kept_C
