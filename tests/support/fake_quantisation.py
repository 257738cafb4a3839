"""The round trip of an activation through each format, in NumPy, as DEFINITIONS words it: what predictions are held to.

`X` (T, C) is one window at one matrix input. Scales are float64 here, of values that float32 holds.
"""

# Shapes: T row of a window, C channel, S window.

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TINY = np.finfo(np.float64).tiny


def symmetric(x_TC: np.ndarray, levels: int, axis: int | None = None) -> np.ndarray:
    largest = np.abs(x_TC).max(axis=axis, keepdims=True)
    step = np.where(largest == 0, 1, largest / levels)
    return np.clip(np.round(x_TC / step), -levels, levels) * step


def asymmetric(x_TC: np.ndarray, axis: int | None = None) -> np.ndarray:
    low, high = x_TC.min(axis=axis, keepdims=True), x_TC.max(axis=axis, keepdims=True)
    per_unit = 254 / np.where(high == low, 254, high - low)
    zero = np.round(per_unit * low)
    found = (np.clip(np.round(per_unit * x_TC) - (zero + 127), -127, 127) + 127 + zero) / per_unit
    return np.where(high == low, x_TC, found)


def ranges(x_STC: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the frozen range of `w8a8_static`: the running mean of percentiles, 0 inside."""
    low, high = np.percentile(x_STC[0], [0.001, 99.999])
    for x_TC in x_STC[1:]:
        own = np.percentile(x_TC, [0.001, 99.999])
        low, high = 0.9 * low + 0.1 * own[0], 0.9 * high + 0.1 * own[1]
    return min(low, 0.0), max(high, 0.0)


def static(x_TC: np.ndarray, low: float, high: float) -> np.ndarray:
    step = (high - low) / 255 or 1.0
    zero = np.round(-low / step)
    return (np.clip(np.round(x_TC / step) + zero, 0, 255) - zero) * step


def minifloat(u: np.ndarray, mantissa: int, least_exponent: int, most: float) -> np.ndarray:
    """Return the nearest number of a small float format, ties to even, saturating."""
    size = np.abs(u)
    exponent = np.maximum(np.floor(np.log2(np.maximum(size, TINY))), least_exponent)
    step = 2.0 ** (exponent - mantissa)
    return np.sign(u) * np.minimum(np.round(size / step) * step, most)


def e4m3(u: np.ndarray) -> np.ndarray:
    return minifloat(u, 3, -6, 448.0)


def e2m1(u: np.ndarray) -> np.ndarray:
    return minifloat(u, 1, 0, 6.0)


def fp8(x_TC: np.ndarray, axis: int | None = None) -> np.ndarray:
    largest = np.abs(x_TC).max(axis=axis, keepdims=True)
    scale = np.where(largest == 0, 1, largest / 448)
    return e4m3(x_TC / scale) * scale


def in_blocks(x_TC: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return blocks of neighbouring channels (T, B, size), the last filled with zeros, and their largest |x|."""
    filled = np.pad(x_TC, ((0, 0), (0, -x_TC.shape[1] % size))).reshape(len(x_TC), -1, size)
    return filled, np.abs(filled).max(2, keepdims=True)


def mx(x_TC: np.ndarray, element: Callable[[np.ndarray], np.ndarray], largest_exponent: int) -> np.ndarray:
    blocks, largest = in_blocks(x_TC, 32)
    scale = np.where(largest == 0, 1, 2.0 ** (np.floor(np.log2(np.maximum(largest, TINY))) - largest_exponent))
    return (element(blocks / scale) * scale).reshape(len(x_TC), -1)[:, : x_TC.shape[1]]


def nvfp4(x_TC: np.ndarray) -> np.ndarray:
    blocks, largest = in_blocks(x_TC, 16)
    tensor = np.abs(x_TC).max() / (448 * 6) or 1.0
    scale = e4m3(largest / 6 / tensor) * tensor
    quantised = e2m1(blocks / np.where(scale == 0, 1, scale)) * scale
    return quantised.reshape(len(x_TC), -1)[:, : x_TC.shape[1]]


def grouped(w_OC: np.ndarray, levels: int, size: int = 128) -> np.ndarray:
    """Return a matrix with one scale for each output channel and 128 input channels."""
    filled = np.pad(w_OC, ((0, 0), (0, -w_OC.shape[1] % size))).reshape(len(w_OC), -1, size)
    largest = np.abs(filled).max(2, keepdims=True)
    step = np.where(largest == 0, 1, largest / levels)
    return (np.clip(np.round(filled / step), -levels, levels) * step).reshape(len(w_OC), -1)[:, : w_OC.shape[1]]


ROUND_TRIPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "absmax": lambda x: symmetric(x, 127),
    "row_wise": lambda x: symmetric(x, 127, 1),
    "vector_wise": lambda x: symmetric(x, 127, 1),
    "zeropoint": asymmetric,
    "zeropoint_vector": lambda x: asymmetric(x, 1),
    "int4": lambda x: symmetric(x, 7, 1),
    "fp8_tensor": fp8,
    "fp8_token": lambda x: fp8(x, 1),
    "mxfp8": lambda x: mx(x, e4m3, 8),
    "mxfp4": lambda x: mx(x, e2m1, 2),
    "nvfp4": nvfp4,
}
"""The formats whose scales are of one window; `w8a8_static` needs `ranges` of all first."""


MATRICES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **ROUND_TRIPS,
    "row_wise": lambda w: symmetric(w, 127),
    "vector_wise": lambda w: symmetric(w, 127, 1),
    "w8a8_static": lambda w: symmetric(w, 127),
    "int8_weight_g128": lambda w: grouped(w, 127),
    "int4_weight_g128": lambda w: grouped(w, 7),
}
"""What formats make of a matrix W (O, C); that of `int4` is X's with output channels for tokens."""


def round_trips(x_STC: Sequence[np.ndarray], name: str) -> list[np.ndarray]:
    """Return the windows of a matrix input as a format holds them."""
    if name == "w8a8_static":
        return [static(x_TC, *ranges(x_STC)) for x_TC in x_STC]
    return [ROUND_TRIPS[name](x_TC) for x_TC in x_STC]


def sqnr_db(x_STC: Sequence[np.ndarray], name: str, **options: Any) -> float:
    """Return the SQNR of a format in dB over all windows; options are those of `ratio_db`."""
    return ratio_db(x_STC, round_trips(x_STC, name), **options)


def ratio_db(
    x_STC: Sequence[np.ndarray],
    found_STC: Sequence[np.ndarray],
    *,
    without_channel: bool = False,
    without_first: int = 0,
) -> float:
    """Return the ratio in dB of signal and error, without the largest channel of each window or its first rows."""
    signal = error = 0.0
    for x_TC, found_TC in zip(x_STC, found_STC, strict=True):
        kept_C = np.ones(x_TC.shape[1], bool)
        kept_C[np.abs(x_TC).max(0).argmax()] = not without_channel
        x, found = x_TC[without_first:, kept_C], found_TC[without_first:, kept_C]
        signal, error = signal + (x**2).sum(), error + ((x - found) ** 2).sum()
    return 10 * float(np.log10(signal / error)) if error else np.inf
