"""GPU spread: the kernel that counts magnitudes, and the largest of neighbouring channels, by half octaves."""

# Shapes: T position, C channel.

import triton
import triton.language as tl

from outlier_features import magnitude_bins
from outlier_features.kernels.gpu_load import finite, load

_BITS = tl.constexpr(magnitude_bins.BITS)
_FIRST = tl.constexpr(magnitude_bins.FIRST_KEY)
_CELLS = tl.constexpr(magnitude_bins.CELLS)
_BINS = tl.constexpr(128)  # a power of two; the last stands for no value


@triton.jit
def spread(x, stride, counts, positions, channels, first_rows, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Add the counts of a tile of rows and channels, those of position 0 (`first_rows`) apart from the rest."""
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_row, is_there = t < positions, (t < positions)[:, None] & (c < channels)[None, :]
    value = finite(load(x, stride, t, is_row, c, channels))
    key = tl.where(is_there, tl.abs(value).to(tl.int32, bitcast=True), -1)
    of_16 = tl.max(tl.reshape(key, (ROWS, BLOCK // 16, 16)), 2)
    of_32 = tl.max(tl.reshape(key, (ROWS, BLOCK // 32, 32)), 2)
    is_first = (t < first_rows)[:, None]
    if tl.program_id(0) * ROWS < first_rows:
        _add(tl.where(is_first, key, -1), counts)
        _add(tl.where(is_first, of_16, -1), counts + _CELLS)
        _add(tl.where(is_first, of_32, -1), counts + 2 * _CELLS)
    _add(tl.where(is_first, -1, key), counts + 3 * _CELLS)
    _add(tl.where(is_first, -1, of_16), counts + 4 * _CELLS)
    _add(tl.where(is_first, -1, of_32), counts + 5 * _CELLS)


@triton.jit
def _add(key, counts):
    """Count the cells of magnitudes, given by their bits; -1 stands for no value."""
    cell = tl.minimum(tl.maximum((key >> _BITS) - _FIRST + 2, 1), _CELLS - 1)
    cell = tl.where(key < 0, _BINS - 1, tl.where(key == 0, 0, cell))
    found = tl.histogram(tl.reshape(cell, (key.shape[0] * key.shape[1],)), _BINS)
    n = tl.arange(0, _BINS)
    tl.atomic_add(counts + n, found, mask=(n < _CELLS) & (found > 0), sem="relaxed")
