"""GPU hits: the kernel that adds up what the moments left and counts hits, where segments of a row can have one."""

# Shapes: T position, C channel, G value of a threshold grid, P program, S segment of a row.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl

from outlier_features.kernels.gpu_load import finite, load


@dataclass(frozen=True)
class Thresholds:
    """A grid on the device, and what finds the level of a magnitude in it without a search."""

    values_G: torch.Tensor
    levels: torch.Tensor
    """For the upper half of every float32 magnitude, how many thresholds the smallest such value reaches."""
    refine: int
    """How many further thresholds a value of the same upper half can reach."""

    @classmethod
    def of(cls, values: Sequence[float], device: torch.device) -> "Thresholds":
        """Return the grid of some values, ascending, on a device."""
        upper = np.arange(1 << 15, dtype=np.uint32) << 16
        smallest = np.where(upper < 0x7F800000, upper, 0x7F800000).astype(np.uint32).view(np.float32)
        levels = np.searchsorted(np.array(values, np.float32), smallest, side="right")
        table = torch.from_numpy(levels.astype(np.uint8)).to(device)
        return cls(torch.tensor(values, dtype=torch.float32, device=device), table, int(np.diff(levels).max()))


@triton.jit
def finish(
    x, stride, sums_C, extremes_C, sums_T, totals_P, largest_TS, wanted, content, real, whole,
    absolute_TC, relative_TC, absolute_G, relative_G, absolute_levels, relative_levels,
    positions, channels, first_rows, row_tiles, absolutes, relatives,
    ROWS: tl.constexpr, BATCH: tl.constexpr, SEGMENTS: tl.constexpr, PROGRAMS: tl.constexpr, COUNTING: tl.constexpr,
    REFINE: tl.constexpr, SMALLEST: tl.constexpr, ALIKE: tl.constexpr, FAINT: tl.constexpr,
    BLOCK: tl.constexpr, SEGMENT: tl.constexpr, PARTIALS: tl.constexpr,
):  # fmt: skip
    """Add up what `moments` left, and count hits where a segment's largest magnitude says that there are any."""
    tile, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    programs = (row_tiles + 1) * tl.num_programs(1)
    total_2 = _total(totals_P, programs, PROGRAMS)
    rms = tl.sqrt(total_2 / (tl.cast(positions, tl.float64) * channels))
    narrow = (first_rows + 2) * channels + 5 * positions
    if (tile == 0) & (block == 0):
        tl.store(content + 3 * channels, _total(totals_P + programs, programs, PROGRAMS))
        tl.store(content + 3 * channels + 1, rms)
        tl.store(whole + narrow, _total(totals_P + 2 * programs, programs, PROGRAMS).to(tl.int32))
        tl.store(whole + narrow + 1, _total(totals_P + 3 * programs, programs, PROGRAMS).to(tl.int32))
    own = (tile * tl.num_programs(1) + block) * SEGMENT
    for first in range(own, channels, tl.num_programs(0) * tl.num_programs(1) * SEGMENT):
        _finish_channels(
            x, stride, sums_C, extremes_C, content, real, first, channels, first_rows, row_tiles, SEGMENT, PARTIALS
        )
    if block == 0:
        _finish_positions(
            x, stride, tile, sums_T, largest_TS, real, whole, positions, channels, first_rows,
            ROWS, SEGMENTS, ALIKE, FAINT, BLOCK, SEGMENT,
        )  # fmt: skip
    if COUNTING:
        inverse = tl.where(rms > SMALLEST, 1.0 / tl.maximum(rms, SMALLEST), 0.0).to(tl.float32)
        found = _list_segments(
            tile, largest_TS, wanted, absolute_G, relative_G, inverse, positions, ROWS, BLOCK, SEGMENT
        )
        counts = whole + narrow + 3
        wanted += _own(tile, ROWS, BLOCK, SEGMENT)
        for first in range(0, found, BATCH):
            n = first + tl.arange(0, BATCH)
            entry = tl.load(wanted + n, mask=n < found, other=0)
            t = tile * ROWS + entry // (BLOCK // SEGMENT)
            c = block * BLOCK + entry % (BLOCK // SEGMENT) * SEGMENT
            c = c[:, None] + tl.arange(0, SEGMENT)[None, :]
            mask = (n < found)[:, None] & (c < channels)
            raw = tl.load(x + t[:, None] * stride + c, mask=mask, other=0.0).to(tl.float32)
            magnitude = tl.abs(finite(raw))
            place = t[:, None] * channels + c
            _count(magnitude, place, c, mask, absolute_G, absolute_levels, absolute_TC, counts, absolutes, REFINE)
            _count(
                magnitude * inverse, place, c, mask, relative_G, relative_levels, relative_TC,
                counts + channels * absolutes, relatives, REFINE,
            )  # fmt: skip


@triton.jit
def _total(values, programs, PROGRAMS: tl.constexpr):
    p = tl.arange(0, PROGRAMS)
    return tl.sum(tl.load(values + p, mask=p < programs, other=0.0), 0)


@triton.jit
def _finish_channels(
    x, stride, sums_C, extremes_C, content, real, first, channels, first_rows, row_tiles,
    SEGMENT: tl.constexpr, PARTIALS: tl.constexpr,
):  # fmt: skip
    """Add up a segment of channels over all tiles of rows, many tiles at once: one after another they only wait."""
    c = first + tl.arange(0, SEGMENT)
    mask = c < channels
    zero = tl.zeros((PARTIALS, SEGMENT), tl.float64)
    sum_1, sum_2, sum_4 = zero, zero, zero
    high = tl.full((PARTIALS, SEGMENT), -float("inf"), tl.float32)
    low = tl.full((PARTIALS, SEGMENT), float("inf"), tl.float32)
    for begin in range(0, row_tiles, PARTIALS):
        tile = begin + tl.arange(0, PARTIALS).to(tl.int64)
        is_there = (tile < row_tiles)[:, None] & mask[None, :]
        at = sums_C + tile[:, None] * 3 * channels + c[None, :]
        sum_1 += tl.load(at, mask=is_there, other=0.0)
        sum_2 += tl.load(at + channels, mask=is_there, other=0.0)
        sum_4 += tl.load(at + 2 * channels, mask=is_there, other=0.0)
        at_extremes = extremes_C + tile[:, None] * 2 * channels + c[None, :]
        high = tl.maximum(high, tl.load(at_extremes, mask=is_there, other=-float("inf")))
        low = tl.minimum(low, tl.load(at_extremes + channels, mask=is_there, other=float("inf")))
    tl.store(content + c, tl.sum(sum_1, 0), mask=mask)
    tl.store(content + channels + c, tl.sum(sum_2, 0), mask=mask)
    tl.store(content + 2 * channels + c, tl.sum(sum_4, 0), mask=mask)
    for t in range(first_rows):
        row = tl.load(x + tl.cast(t, tl.int64) * stride + c, mask=mask, other=0.0).to(tl.float32)
        tl.store(real + t * channels + c, finite(row), mask=mask)
    tl.store(real + first_rows * channels + c, tl.max(high, 0), mask=mask)
    tl.store(real + (first_rows + 1) * channels + c, tl.min(low, 0), mask=mask)


@triton.jit
def _finish_positions(
    x, stride, tile, sums_T, largest_TS, real, whole, positions, channels, first_rows,
    ROWS: tl.constexpr, SEGMENTS: tl.constexpr, ALIKE: tl.constexpr, FAINT: tl.constexpr,
    BLOCK: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    t = tile * ROWS + tl.arange(0, ROWS)
    is_row = t < positions
    sum_1, sum_2 = tl.zeros((ROWS,), tl.float64), tl.zeros((ROWS,), tl.float64)
    sum_4 = tl.zeros((ROWS,), tl.float64)
    for block in range(tl.num_programs(1)):
        at = sums_T + tl.cast(block, tl.int64) * 4 * positions + 4 * t
        sum_1 += tl.load(at, mask=is_row, other=0.0)
        sum_2 += tl.load(at + 1, mask=is_row, other=0.0)
        sum_4 += tl.load(at + 2, mask=is_row, other=0.0)
    mean, square, fourth = sum_1 / channels, sum_2 / channels, sum_4 / channels
    variance = square - mean * mean
    is_unclear = is_row & ((variance <= ALIKE * square) | (fourth < FAINT))
    if tl.sum(is_unclear.to(tl.int32), 0) > 0:
        of_unclear, fourth_of_unclear = _spread(x, stride, t, is_unclear, channels, ROWS, SEGMENT)
        variance = tl.where(is_unclear, of_unclear, variance)
        fourth = tl.where(is_unclear, fourth_of_unclear, fourth)
    ratio = fourth / tl.where(variance > 0, variance * variance, 1.0)
    kurtosis = tl.where(variance > 0, tl.maximum(ratio - 3, 0.0), 0.0)
    segments = tl.num_programs(1) * (BLOCK // SEGMENT)
    s = tl.arange(0, SEGMENTS)
    of_row = largest_TS + t[:, None] * segments + s[None, :]
    largest = tl.load(of_row, mask=is_row[:, None] & (s < segments)[None, :], other=-1.0)
    top = tl.max(largest, 1)
    segment = tl.min(tl.where(largest == top[:, None], s[None, :], SEGMENTS), 1)
    c = segment[:, None] * SEGMENT + tl.arange(0, SEGMENT)[None, :]
    mask = is_row[:, None] & (c < channels)
    raw = tl.load(x + t[:, None] * stride + c, mask=mask, other=0.0).to(tl.float32)
    same = mask & (tl.abs(finite(raw)) == top[:, None])
    channel = tl.min(tl.where(same, c, channels), 1)
    out = real + (first_rows + 2) * channels + t
    tl.store(out, top, mask=is_row)
    tl.store(out + positions, tl.sqrt(sum_2 / channels).to(tl.float32), mask=is_row)
    tl.store(out + 2 * positions, kurtosis.to(tl.float32), mask=is_row)
    tl.store(whole + (first_rows + 2) * channels + 4 * positions + t, channel, mask=is_row)


@triton.jit
def _spread(x, stride, t, is_wanted, channels, ROWS: tl.constexpr, SEGMENT: tl.constexpr):
    """Return the variance of rows, from their deviations, and their mean of x^4; the mean of equal values is exact."""
    total, squares = tl.zeros((ROWS,), tl.float64), tl.zeros((ROWS,), tl.float64)
    fourths = tl.zeros((ROWS,), tl.float64)
    for first in range(0, channels, SEGMENT):
        c = first + tl.arange(0, SEGMENT)
        total += tl.sum(finite(load(x, stride, t, is_wanted, c, channels)).to(tl.float64), 1)
    mean = total / channels
    for first in range(0, channels, SEGMENT):
        c = first + tl.arange(0, SEGMENT)
        value = finite(load(x, stride, t, is_wanted, c, channels)).to(tl.float64)
        deviation = tl.where((c < channels)[None, :], value - mean[:, None], 0.0)
        squares += tl.sum(deviation * deviation, 1)
        fourths += tl.sum(value * value * value * value, 1)
    return squares / channels, fourths / channels


@triton.jit
def _own(tile, ROWS: tl.constexpr, BLOCK: tl.constexpr, SEGMENT: tl.constexpr):
    """Return where a program's part of a table of segments (T, S) begins, if every program had one piece of it."""
    programs = tl.num_programs(1)
    return (tile * programs + tl.program_id(1)) * (ROWS * (BLOCK // SEGMENT))


@triton.jit
def _list_segments(
    tile, largest_TS, wanted, absolute_G, relative_G, inverse, positions,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """List the segments of a tile that hold any hit, as row times segments of a block plus segment; return how many."""
    PER_ROW: tl.constexpr = BLOCK // SEGMENT
    entry = tl.arange(0, ROWS * PER_ROW)
    t = tile * ROWS + entry // PER_ROW
    at = t * (tl.num_programs(1) * PER_ROW) + tl.program_id(1) * PER_ROW + entry % PER_ROW
    largest = tl.load(largest_TS + at, mask=t < positions, other=0.0)
    is_hit = (largest >= tl.load(absolute_G)) | (largest * inverse >= tl.load(relative_G))
    is_hit = (is_hit & (t < positions)).to(tl.int32)
    place = _own(tile, ROWS, BLOCK, SEGMENT) + tl.cumsum(is_hit, 0) - 1
    tl.store(wanted + place, entry, mask=is_hit > 0)
    tl.debug_barrier()  # the list is read by other threads than those that wrote it
    return tl.sum(is_hit, 0)


@triton.jit
def _count(magnitude, place, c, mask, grid_G, levels, reached_TC, counts, thresholds, REFINE: tl.constexpr):
    """Count hits per channel and level, and raise the levels reached."""
    mask = mask & (magnitude >= tl.load(grid_G))
    level = tl.load(levels + (magnitude.to(tl.int32, bitcast=True) >> 16), mask=mask, other=0).to(tl.int32)
    for _ in tl.static_range(REFINE):
        following = tl.load(grid_G + level, mask=mask & (level < thresholds), other=float("inf"))
        level += (magnitude >= following).to(tl.int32)
    tl.atomic_add(counts + c * thresholds + level - 1, 1, mask=mask, sem="relaxed")
    before = tl.load(reached_TC + place, mask=mask, other=0).to(tl.int32)
    tl.store(reached_TC + place, level.to(tl.uint8), mask=mask & (level > before))
