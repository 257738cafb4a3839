"""Smooth: the scales of SmoothQuant."""

import torch

LEAST = 1e-5


def scales(largest_C: torch.Tensor, largest_weight_C: torch.Tensor, strength: float) -> torch.Tensor:
    """Return max|x|^strength / max|w|^(1 - strength) of each channel (C,), 1 where either is 0 (Xiao et al. 2023)."""
    found_C = largest_C.pow(strength) / largest_weight_C.pow(1 - strength)
    is_used_C = (largest_C > 0) & (largest_weight_C > 0)
    return torch.where(is_used_C, found_C.clamp(min=LEAST), 1.0)
