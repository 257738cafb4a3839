"""Rounding: values to the grids of number formats, in float32, as quantised hardware would; ties go to even."""

# Shapes: R row, C channel, B block of neighbouring channels, K channel of a block.

import torch

E4M3_LARGEST, E2M1_LARGEST = 448.0, 6.0


def symmetric(x: torch.Tensor, largest: torch.Tensor, q: int) -> torch.Tensor:
    """Return `x` on the integers from -q to q in steps of largest / q (DEFINITIONS: sym)."""
    scale = largest / q
    scale = torch.where(scale == 0, 1.0, scale)  # also where the quotient of a subnormal is 0
    return (x / scale).round().clamp(-q, q) * scale


def asymmetric(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Return `x` on 255 steps from low to high, of which 0 need not be one (LLM.int8(), zeropoint).

    A range that is a single value, or beyond float32, comes back as it is.
    """
    span = high - low
    # a tensor on the left: a Python number is multiplied with the reciprocal, and rounded twice
    steps = torch.full_like(span, 254.0) / torch.where(span > 0, span, 254.0)
    zero = (steps * low).round()
    q = ((steps * x).round() - (zero + 127)).clamp(-127, 127)
    return torch.where((span > 0) & span.isfinite() & steps.isfinite(), (q + 127 + zero) / steps, x)


def e4m3(x: torch.Tensor) -> torch.Tensor:
    """Return `x` as float8 e4m3fn, saturating at 448."""
    # clamped first: the cast saturates on a CPU, and gives NaN elsewhere
    return x.clamp(-E4M3_LARGEST, E4M3_LARGEST).to(torch.float8_e4m3fn).float()


def e2m1(x: torch.Tensor) -> torch.Tensor:
    """Return `x` as float4 e2m1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, saturating."""
    size = x.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return torch.copysign(((size / step).round() * step).clamp(max=E2M1_LARGEST), x)


def floor_exponent(x: torch.Tensor) -> torch.Tensor:
    """Return floor(log2(x)) of positive values, exactly; -128 of 0."""
    _, exponent = torch.frexp(x)
    return torch.where(x > 0, exponent - 1, -128)


def blocks(x: torch.Tensor, size: int) -> torch.Tensor:
    """Return `x` (..., C) as (..., B, K) with blocks of `size` channels, the last filled up with 0."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % size))
    return padded.unflatten(-1, (-1, size))


def joined(x: torch.Tensor, channels: int) -> torch.Tensor:
    """Return blocks (..., B, K) as (..., C), without what filled them up."""
    return x.flatten(-2)[..., :channels]


def largest(x: torch.Tensor, dims: tuple[int, ...] = (-1,)) -> torch.Tensor:
    """Return the largest |x| over some axes, which stay with length 1; 0 where there is nothing."""
    if x.numel() == 0:
        return x.new_zeros(())
    return torch.linalg.vector_norm(x, torch.inf, dim=dims, keepdim=True)
