"""Threshold grids: the magnitudes at which hits are counted, and how a threshold meets floating point.

A hit is `|x| >= threshold`, exactly as written: the grid keeps for each threshold the smallest float32 that satisfies
it. A definition that rounds activations to bfloat16 first is the same comparison at a slightly smaller value, which the
grid holds too, so one pass serves both.
"""

from collections.abc import Iterable

import numpy as np

from outlier_features.errors import ConfigError

TWIN = "_rms"
"""Ends the name of a scale-free twin: the same definition with the threshold in RMS of each tensor."""

SMALLEST_RMS = 5e-38
"""A tensor of a smaller RMS counts as zeros: its inverse is beyond float32."""

BFLOAT16_STEP = 1 << 16
"""One unit in the last place of bfloat16, counted in units of float32."""


def grid(thresholds: Iterable[float]) -> tuple[float, ...]:
    """Return all values at which hits are counted for `thresholds`, ascending, each exact in float32."""
    wanted = sorted(set(thresholds))
    return tuple(sorted({exact(t) for t in wanted} | {rounded(t) for t in wanted}))


def exact(threshold: float) -> float:
    """Return the smallest float32 that is at least `threshold`."""
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) >= threshold else np.nextafter(nearest, np.float32(np.inf)))


def rounded(threshold: float) -> float:
    """Return the smallest float32 that is at least `threshold` once rounded to bfloat16 (to nearest, ties to even)."""
    bits = int(np.float32(exact(threshold)).view(np.uint32))
    step = -(-bits // BFLOAT16_STEP)  # the smallest bfloat16 at or above the threshold
    middle = step * BFLOAT16_STEP - BFLOAT16_STEP // 2
    tie_goes_up = step % 2 == 0
    return float(np.uint32(middle if tie_goes_up else middle + 1).view(np.float32))


def level(threshold: float, values: tuple[float, ...], *, round_to_bfloat16: bool = False) -> int:
    """Return the index of `threshold` in the grid `values`. Raises ConfigError if it is not on the grid."""
    wanted = rounded(threshold) if round_to_bfloat16 else exact(threshold)
    if wanted not in values:
        offered = ", ".join(f"{value:g}" for value in values if rounded(value) in values and rounded(value) != value)
        raise ConfigError(
            f"threshold {threshold:g} is not on the grid of this capture ({offered}); "
            "choose one of these, or add it under capture in config.yaml and capture again."
        )
    return values.index(wanted)


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return finite float32 values rounded to bfloat16 (to nearest, ties to even), as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    even = (bits >> 16) & 1
    return ((bits + 0x7FFF + even) & 0xFFFF0000).view(np.float32)


def inverse_rms(rms: np.ndarray | np.float64) -> np.ndarray:
    """Return 1 / rms as the float32 that magnitudes are scaled by; 0 for a tensor of zeros (or of subnormal values)."""
    inverse = 1 / np.maximum(rms, SMALLEST_RMS)
    return np.where(rms > SMALLEST_RMS, inverse, 0.0).astype(np.float32)
