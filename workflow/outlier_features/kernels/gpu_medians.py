"""GPU medians: the kernels that find medians of rows and of a tensor digit by digit, and list massive activations."""

# Shapes: T position, C channel.

import triton
import triton.language as tl

from outlier_features.kernels.gpu_load import finite

DIGIT = 8  # bits of a magnitude that one pass of the tensor's median decides
BINS = 1 << DIGIT
_NONE = tl.constexpr(0x7FFFFFFF)  # stands for no magnitude


@triton.jit
def _keys(x, stride, t, positions, channels, CHANNELS: tl.constexpr, BITS: tl.constexpr):
    """Return the magnitudes of rows as integers that order as they do; NaN and infinity as 0, and none as _NONE."""
    c = tl.arange(0, CHANNELS)
    mask = (t < positions)[:, None] & (c < channels)[None, :]
    value = tl.load(x + t[:, None] * stride + c[None, :], mask=mask, other=0.0)
    is_finite = tl.abs(value.to(tl.float32)) < float("inf")
    if BITS == 31:
        key = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    else:
        key = value.to(tl.int16, bitcast=True).to(tl.int32) & 0x7FFF
    return tl.where(mask, tl.where(is_finite, key, 0), _NONE)


@triton.jit
def _value(x, key, BITS: tl.constexpr):
    """Return the magnitude, in float64, that a key of the activation `x` stands for."""
    if BITS == 31:
        value = key.to(tl.float32, bitcast=True)
    else:
        value = key.to(tl.int16).to(x.dtype.element_ty, bitcast=True).to(tl.float32)
    return value.to(tl.float64)


@triton.jit
def row_medians(
    x, stride, real, counts, positions, channels, first_rows,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr, DIGIT: tl.constexpr,
):  # fmt: skip
    """Find the median magnitude of rows by bisection, and count the first digit of all their magnitudes."""
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    key = _keys(x, stride, t, positions, channels, CHANNELS, BITS)
    rank = (channels - 1) // 2
    low = tl.zeros((ROWS,), tl.int32)
    high = tl.full((ROWS,), 0, tl.int32) + ((1 << BITS) - 1)
    for _ in range(BITS):
        middle = low + (high - low) // 2
        is_above = tl.sum((key <= middle[:, None]).to(tl.int32), 1) <= rank
        low = tl.where(is_above, middle + 1, low)
        high = tl.where(is_above, high, middle)
    count = tl.sum((key <= low[:, None]).to(tl.int32), 1)
    following = tl.min(tl.where(key > low[:, None], key, _NONE), 1)
    upper = tl.where(count > channels // 2, low, following)
    median = (_value(x, low, BITS) + _value(x, upper, BITS)) / 2
    of_row = real + (first_rows + 2) * channels + t
    top = tl.load(of_row, mask=t < positions, other=0.0).to(tl.float64)
    tl.store(of_row + 3 * positions, (top / median).to(tl.float32), mask=t < positions)
    _add_digits(key, key != _NONE, counts, 0, BITS, DIGIT)


@triton.jit
def count_digit(
    x, stride, counts, positions, channels,
    LEVEL: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr, DIGIT: tl.constexpr,
):  # fmt: skip
    """Count a further digit of the magnitudes that begin as the two middle ones do."""
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    key = _keys(x, stride, t, positions, channels, CHANNELS, BITS)
    size = tl.cast(positions, tl.int64) * channels
    lower = _prefix(counts, (size - 1) // 2, 0, LEVEL, BITS, DIGIT)
    upper = _prefix(counts, size // 2, 1, LEVEL, BITS, DIGIT)
    begun = tl.where(key == _NONE, -1, key >> (BITS - LEVEL * DIGIT))
    own = counts + LEVEL * 2 * (1 << DIGIT)
    _add_digits(key, begun == lower, own, LEVEL, BITS, DIGIT)
    if upper != lower:
        _add_digits(key, begun == upper, own + (1 << DIGIT), LEVEL, BITS, DIGIT)


@triton.jit
def _add_digits(key, mask, counts, LEVEL: tl.constexpr, BITS: tl.constexpr, DIGIT: tl.constexpr):
    BINS: tl.constexpr = 1 << DIGIT
    LEFT: tl.constexpr = BITS - LEVEL * DIGIT
    WIDTH: tl.constexpr = DIGIT if LEFT >= DIGIT else LEFT
    digit = tl.where(mask, (key >> (LEFT - WIDTH)) & ((1 << WIDTH) - 1), BINS)
    found = tl.histogram(tl.reshape(digit, (key.shape[0] * key.shape[1],)), 2 * BINS)
    n = tl.arange(0, 2 * BINS)
    tl.atomic_add(counts + n, found, mask=(n < BINS) & (found > 0), sem="relaxed")


@triton.jit
def _prefix(counts, rank, WHICH: tl.constexpr, LEVEL: tl.constexpr, BITS: tl.constexpr, DIGIT: tl.constexpr):
    """Return how the magnitude of a rank begins, by LEVEL digits that were counted.

    Digits after the lower of the two middle magnitudes are in the first row of a level, those after the upper one
    (WHICH = 1) in the second, if the two part before.
    """
    BINS: tl.constexpr = 1 << DIGIT
    n = tl.arange(0, BINS)
    prefix = tl.full((), 0, tl.int32)
    for level in tl.static_range(LEVEL):
        found = tl.load(counts + level * 2 * BINS + n).to(tl.int64)
        if WHICH == 1:
            apart = tl.load(counts + (level * 2 + 1) * BINS + n).to(tl.int64)
            found = tl.where(tl.sum(apart, 0) > 0, apart, found)
        digit = tl.sum((tl.cumsum(found, 0) <= rank).to(tl.int32), 0)
        rank -= tl.sum(tl.where(n < digit, found, 0), 0)
        prefix = (prefix << (DIGIT if BITS - level * DIGIT >= DIGIT else BITS - level * DIGIT)) | digit
    return prefix


@triton.jit
def massive(
    x, stride, content, real, whole, counts, positions, channels, first_rows, list_at, room,
    ROWS: tl.constexpr, FLOOR: tl.constexpr, RATIO: tl.constexpr,
    CHANNELS: tl.constexpr, BITS: tl.constexpr, DIGIT: tl.constexpr,
):  # fmt: skip
    """Store the median magnitude of the whole tensor, and list its massive activations."""
    DIGITS: tl.constexpr = (BITS + DIGIT - 1) // DIGIT
    size = tl.cast(positions, tl.int64) * channels
    lower = _prefix(counts, (size - 1) // 2, 0, DIGITS, BITS, DIGIT)
    upper = _prefix(counts, size // 2, 1, DIGITS, BITS, DIGIT)
    median = (_value(x, lower, BITS) + _value(x, upper, BITS)) / 2
    tile = tl.program_id(0).to(tl.int64)
    if tile == 0:
        tl.store(content + 3 * channels + 2, median)
    c = tl.arange(0, CHANNELS)
    rows = tile * ROWS + tl.arange(0, ROWS)
    of_T = (first_rows + 2) * channels
    tops = tl.load(real + of_T + rows, mask=rows < positions, other=0.0)
    if tl.max(tops, 0) > FLOOR:  # else none of the rows is looked at, each of which would wait for memory
        for t in range(tile * ROWS, tl.minimum((tile + 1) * ROWS, positions)):
            top = tl.load(real + of_T + t)
            if (top > FLOOR) & (top.to(tl.float64) >= RATIO * median):
                value = finite(tl.load(x + t * stride + c, mask=c < channels, other=0.0).to(tl.float32))
                magnitude = tl.abs(value)
                is_massive = ((magnitude > FLOOR) & (magnitude.to(tl.float64) >= RATIO * median)).to(tl.int32)
                begin = tl.atomic_add(whole + of_T + 5 * positions + 2, tl.sum(is_massive, 0))
                place = begin + tl.cumsum(is_massive, 0) - 1
                mask = (is_massive > 0) & (place < room)
                tl.store(whole + list_at + place, (t * channels + c).to(tl.int32), mask=mask)
                tl.store(real + list_at + room + place, value, mask=mask)
