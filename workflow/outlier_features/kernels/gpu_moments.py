"""GPU moments: the kernel that reads every value, for sums and extremes by tiles of rows and channels."""

# Shapes: T position, C channel, P program, S segment of a row.

import triton
import triton.language as tl

from outlier_features.kernels.gpu_load import finite, load


@triton.jit
def moments(
    x, stride, sums_C, extremes_C, sums_T, totals_P, largest_TS, positions, channels, first_rows, rows,
    STEP: tl.constexpr, HALF: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """Leave sums and extremes of a tile of rows and channels; the last program along T has those of position 0.

    A tile is worked on in two halves, each as wide as what a warp loads at once: a row is then in one warp, whose lanes
    add up two values of it before they add up among themselves.
    """
    tile, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    is_first = tile == tl.num_programs(0) - 1
    start = tl.where(is_first, 0, first_rows + tile * rows)
    stop = tl.where(is_first, first_rows, tl.minimum(first_rows + (tile + 1) * rows, positions))
    left = block * 2 * HALF + tl.arange(0, HALF)
    right = left + HALF
    sums_T += block.to(tl.int64) * 4 * positions
    zero = tl.zeros((STEP, HALF), tl.float32)
    high, low = zero - float("inf"), zero + float("inf")
    a1, a2, a4, a_high, a_low = zero, zero, zero, high, low
    b1, b2, b4, b_high, b_low = zero, zero, zero, high, low
    cubes = zero
    whole = start + (stop - start) // STEP * STEP
    for first in range(start, whole, STEP):
        a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes = _add_rows(
            x, stride, first, stop, left, right, sums_T, largest_TS, positions, channels,
            a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes, STEP, HALF, SEGMENT, False,
        )  # fmt: skip
    if whole < stop:
        a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes = _add_rows(
            x, stride, whole, stop, left, right, sums_T, largest_TS, positions, channels,
            a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes, STEP, HALF, SEGMENT, True,
        )  # fmt: skip
    total_2 = tl.sum(tl.sum(a2 + b2, 1), 0).to(tl.float64)
    total_3 = tl.sum(tl.sum(cubes, 1), 0).to(tl.float64)
    nan, inf = tl.full((), 0, tl.int32), tl.full((), 0, tl.int32)
    sums, extremes = sums_C + tile * 3 * channels, extremes_C + tile * 2 * channels
    if tl.sum(tl.sum(a4 + b4, 1), 0) < float("inf"):
        _store_channels(sums, extremes, left, is_first, channels, a1, a2, a4, a_high, a_low)
        _store_channels(sums, extremes, right, is_first, channels, b1, b2, b4, b_high, b_low)
    else:
        total_2, total_3, nan, inf = _sum_rows_wide(
            x, stride, start, stop, left, right, sums_T, largest_TS, positions, channels, STEP, HALF, SEGMENT
        )
        for segment in range(2 * HALF // SEGMENT):
            c = block * 2 * HALF + segment * SEGMENT + tl.arange(0, SEGMENT)
            _sum_channels_wide(x, stride, start, stop, c, is_first, sums, extremes, channels, STEP, SEGMENT)
    programs = tl.num_programs(0) * tl.num_programs(1)
    totals = totals_P + tile * tl.num_programs(1) + block
    tl.store(totals, total_2)
    tl.store(totals + programs, total_3)
    tl.store(totals + 2 * programs, nan.to(tl.float64))
    tl.store(totals + 3 * programs, inf.to(tl.float64))


@triton.jit
def _add_rows(
    x, stride, first, stop, left, right, sums_T, largest_TS, positions, channels,
    a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes,
    STEP: tl.constexpr, HALF: tl.constexpr, SEGMENT: tl.constexpr, IS_LAST: tl.constexpr,
):  # fmt: skip
    """Add STEP rows to what is kept per channel in float32, and store what is kept of each row."""
    t = first + tl.arange(0, STEP)
    is_row = t < stop
    a = load(x, stride, t, is_row, left, channels, IS_LAST)
    b = load(x, stride, t, is_row, right, channels, IS_LAST)
    _store_largest(tl.abs(a), tl.abs(b), t, is_row, largest_TS, STEP, HALF, SEGMENT)
    a_square, b_square = a * a, b * b
    _store_sums(sums_T, t, is_row, a + b, a_square + b_square, tl.fma(a_square, a_square, b_square * b_square))
    cubes = tl.fma(a_square, a, tl.fma(b_square, b, cubes))
    a1, a2, a4 = a1 + a, a2 + a_square, tl.fma(a_square, a_square, a4)
    b1, b2, b4 = b1 + b, b2 + b_square, tl.fma(b_square, b_square, b4)
    if IS_LAST:
        a_high = tl.maximum(a_high, tl.where(is_row[:, None], a, -float("inf")))
        b_high = tl.maximum(b_high, tl.where(is_row[:, None], b, -float("inf")))
        a_low = tl.minimum(a_low, tl.where(is_row[:, None], a, float("inf")))
        b_low = tl.minimum(b_low, tl.where(is_row[:, None], b, float("inf")))
    else:
        a_high, a_low = tl.maximum(a_high, a), tl.minimum(a_low, a)
        b_high, b_low = tl.maximum(b_high, b), tl.minimum(b_low, b)
    return a1, a2, a4, a_high, a_low, b1, b2, b4, b_high, b_low, cubes


@triton.jit
def _store_sums(sums_T, t, is_row, value, square, fourth):
    """Store the sums of rows in float64, in one piece: a store has its price however small it is."""
    sum_2 = tl.sum(square, 1)
    sums = tl.join(tl.join(tl.sum(value, 1), sum_2), tl.join(tl.sum(fourth, 1), sum_2))  # the last is not read
    pair = tl.arange(0, 2)
    at = t[:, None, None] * 4 + pair[None, :, None] + 2 * pair[None, None, :]
    tl.store(sums_T + at, sums.to(tl.float64), mask=is_row[:, None, None])


@triton.jit
def _store_channels(sums, extremes, c, is_first, channels, value, square, fourth, high, low):
    """Store what is kept per channel of a tile, which position 0 is no part of."""
    mask = (c < channels) & (not is_first)
    tl.store(sums + c, tl.sum(value, 0).to(tl.float64), mask=mask)
    tl.store(sums + channels + c, tl.sum(square, 0).to(tl.float64), mask=mask)
    tl.store(sums + 2 * channels + c, tl.sum(fourth, 0).to(tl.float64), mask=mask)
    tl.store(extremes + c, tl.max(high, 0), mask=mask)
    tl.store(extremes + channels + c, tl.min(low, 0), mask=mask)


@triton.jit
def _sum_rows_wide(
    x, stride, start, stop, left, right, sums_T, largest_TS, positions, channels,
    STEP: tl.constexpr, HALF: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """Store what is kept of rows, summed in float64; return the sums of x^2 and x^3, and how many NaN and inf."""
    total_2, total_3 = tl.full((), 0, tl.float64), tl.full((), 0, tl.float64)
    nan, inf = tl.full((), 0, tl.int32), tl.full((), 0, tl.int32)
    for first in range(start, stop, STEP):
        t = first + tl.arange(0, STEP)
        is_row = t < stop
        raw_a, raw_b = load(x, stride, t, is_row, left, channels), load(x, stride, t, is_row, right, channels)
        nan += _how_many(raw_a != raw_a) + _how_many(raw_b != raw_b)
        inf += _how_many(tl.abs(raw_a) == float("inf")) + _how_many(tl.abs(raw_b) == float("inf"))
        a, b = finite(raw_a), finite(raw_b)
        _store_largest(tl.abs(a), tl.abs(b), t, is_row, largest_TS, STEP, HALF, SEGMENT)
        a_wide, b_wide = a.to(tl.float64), b.to(tl.float64)
        a_square, b_square = a_wide * a_wide, b_wide * b_wide
        fourth = a_square * a_square + b_square * b_square
        _store_sums(sums_T, t, is_row, a_wide + b_wide, a_square + b_square, fourth)
        total_2 += tl.sum(tl.sum(a_square + b_square, 1), 0)
        total_3 += tl.sum(tl.sum(a_square * a_wide + b_square * b_wide, 1), 0)
    return total_2, total_3, nan, inf


@triton.jit
def _sum_channels_wide(
    x, stride, start, stop, c, is_first, sums, extremes, channels, STEP: tl.constexpr, SEGMENT: tl.constexpr
):  # fmt: skip
    """Store what is kept of a segment's channels, summed in float64."""
    sum_1, sum_2 = tl.zeros((STEP, SEGMENT), tl.float64), tl.zeros((STEP, SEGMENT), tl.float64)
    sum_4, zero = tl.zeros((STEP, SEGMENT), tl.float64), tl.zeros((STEP, SEGMENT), tl.float32)
    high, low = zero - float("inf"), zero + float("inf")
    for first in range(start, stop, STEP):
        t = first + tl.arange(0, STEP)
        is_row = t < stop
        value = finite(load(x, stride, t, is_row, c, channels))
        square = value.to(tl.float64) * value.to(tl.float64)
        sum_1, sum_2, sum_4 = sum_1 + value.to(tl.float64), sum_2 + square, sum_4 + square * square
        high = tl.maximum(high, tl.where(is_row[:, None], value, -float("inf")))
        low = tl.minimum(low, tl.where(is_row[:, None], value, float("inf")))
    _store_channels(sums, extremes, c, is_first, channels, sum_1, sum_2, sum_4, high, low)


@triton.jit
def _how_many(mask):
    return tl.sum(tl.sum(mask.to(tl.int32), 1), 0)


@triton.jit
def _store_largest(a, b, t, is_row, largest_TS, STEP: tl.constexpr, HALF: tl.constexpr, SEGMENT: tl.constexpr):
    """Store the largest magnitude of every segment of these rows."""
    OF_HALF: tl.constexpr = HALF // SEGMENT
    of_a = tl.max(tl.reshape(a, (STEP, OF_HALF, SEGMENT)), 2)
    of_b = tl.max(tl.reshape(b, (STEP, OF_HALF, SEGMENT)), 2)
    s = (tl.program_id(1) * 2 * OF_HALF + tl.arange(0, OF_HALF))[None, :, None] + OF_HALF * tl.arange(0, 2)[
        None, None, :
    ]
    at = t[:, None, None] * (tl.num_programs(1) * 2 * OF_HALF) + s
    tl.store(largest_TS + at, tl.join(of_a, of_b), mask=is_row[:, None, None])
