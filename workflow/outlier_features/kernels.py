"""The fast form of the reduction for the device at hand.

On a CPU one compiled pass (Numba) reads each activation while it is in cache; a chain of torch operations reads it
twenty times and costs four times as much. On any other device the torch reference runs. Sums are float32 over at most
64 rows and float64 beyond, so a sum is within 64 float32 roundings of the exact one, relative to its sum of magnitudes.
"""

# Shapes: T position in a sequence, C channel, G value of a threshold grid.

from functools import cache

import numpy as np
import torch
from numba import njit

from outlier_features import statistics
from outlier_features.grid import inverse_rms
from outlier_features.statistics import Grids, Histogram, MedianStatistics, Reached, SiteStatistics

_MAGNITUDE = np.int32(0x7FFFFFFF)  # drops the sign bit; finite magnitudes order as these integers do
_STRIDE = 16  # values looked at together for whether any can be a hit
_SUMS = {"reassoc", "nsz", "contract"}  # lets sums vectorise; NaN and infinity keep their meaning


def reduce_site(x_TC: torch.Tensor, grids: Grids, reached: Reached | None = None) -> SiteStatistics:
    """Do what `statistics.reduce_site` does, as fast as the device allows; agrees with it to float32 rounding."""
    if x_TC.device.type != "cpu":
        return statistics.reduce_site(x_TC, grids, reached)
    x_TC = x_TC.float().contiguous()
    values, bits = _array(x_TC), _array(x_TC.view(torch.int32))
    positions, channels = values.shape
    sums_C = np.zeros((3, channels))
    extremes_C = np.empty((2, channels), np.float32)
    sums_T = np.empty((3, positions), np.float32)
    maximum_T, channel_T = np.empty(positions, np.int32), np.empty(positions, np.int32)
    sum_3 = _moments(values, bits, sums_C, extremes_C, sums_T, maximum_T, channel_T)
    if not np.isfinite(sums_T).all():  # NaN, infinity, or x^4 beyond float32: rare, so the reference may be slow
        return statistics.reduce_site(x_TC, grids, reached)
    rms = float(np.sqrt(sums_T[1].sum(dtype=np.float64) / values.size))
    result = {
        "first_C": x_TC[0].clone(),
        "max_C": torch.from_numpy(extremes_C[0]),
        "min_C": torch.from_numpy(extremes_C[1]),
        "sum_C": torch.from_numpy(sums_C[0]),
        "sum_2_C": torch.from_numpy(sums_C[1]),
        "sum_4_C": torch.from_numpy(sums_C[2]),
        "sum_3": sum_3,
        "rms": rms,
        "position_max_abs_T": torch.from_numpy(maximum_T.view(np.float32)),
        "position_channel_T": torch.from_numpy(channel_T),
        "position_rms_T": torch.from_numpy(np.sqrt(sums_T[1] / np.float32(channels))),
        "position_kurtosis_T": torch.from_numpy(_excess_kurtosis(*sums_T, channels)),
    }
    if reached is not None:
        absolute_G, relative_G = _grid_arrays(grids)
        counts = [np.zeros((channels, len(grid) + 1), np.int32) for grid in (absolute_G, relative_G)]
        scale = inverse_rms(np.float64(rms))
        reached_TC = reached.absolute_TC.numpy(), reached.relative_TC.numpy()
        _hits(values, bits, absolute_G, relative_G, scale, maximum_T, *counts, *reached_TC)
        result["hits"], result["rms_hits"] = (_histogram(count) for count in counts)
    return SiteStatistics(**result)


def reduce_medians(x_TC: torch.Tensor, site: SiteStatistics) -> MedianStatistics:
    """Do what `statistics.reduce_medians` does, as fast as the device allows; the results are equal."""
    if x_TC.device.type != "cpu" or site.nan_count + site.inf_count:
        return statistics.reduce_medians(x_TC, site)
    bits_TC = _array(x_TC.float().contiguous().view(torch.int32)) & _MAGNITUDE
    bits_TC.sort(axis=1)  # integers: numpy orders them with vector instructions
    channels = bits_TC.shape[1]
    low_T, high_T = bits_TC[:, (channels - 1) // 2].copy(), bits_TC[:, channels // 2].copy()
    # the median of all values lies between the smallest and the largest median of a row
    middles = np.array(_middles(bits_TC, low_T.min(), high_T.max()), np.int32)
    median_abs = float(middles.view(np.float32).mean(dtype=np.float64))
    median_T = (low_T.view(np.float32).astype(np.float64) + high_T.view(np.float32)) / 2
    return statistics.medians(x_TC, site, median_abs, torch.from_numpy(median_T))


def _array(x_TC: torch.Tensor) -> np.ndarray:
    """Return the values of a tensor where they are; after .numpy() its storage could never be emptied again."""
    return np.from_dlpack(x_TC)


@cache
def _grid_arrays(grids: Grids) -> tuple[np.ndarray, np.ndarray]:
    return np.array(grids.absolute, np.float32), np.array(grids.relative, np.float32)


def _histogram(count_CG: np.ndarray) -> Histogram:
    return Histogram(*(torch.from_numpy(entries) for entries in _filled(count_CG)))


@njit(fastmath=_SUMS, boundscheck=False, nogil=True, cache=True)
def _moments(x, bits, sums_C, extremes_C, sums_T, maximum_T, channel_T):  # type: ignore[no-untyped-def]
    """Fill sums of x, x^2 and x^4 and the extremes; return the sum of x^3."""
    positions, channels = x.shape
    sum_3 = 0.0
    for t in range(positions):
        a1 = np.float32(0)
        a2 = np.float32(0)
        a3 = np.float32(0)
        a4 = np.float32(0)
        top = np.int32(0)
        for c in range(channels):
            v = x[t, c]
            q = v * v
            a1 += v
            a2 += q
            a3 += v * q
            a4 += q * q
            top = max(top, bits[t, c] & _MAGNITUDE)
        sums_T[0, t] = a1
        sums_T[1, t] = a2
        sums_T[2, t] = a4
        sum_3 += a3
        maximum_T[t] = top
        channel_T[t] = _first_equal(bits[t], top)
    _column_moments(x, sums_C, extremes_C)
    return sum_3


@njit(nogil=True, cache=True)
def _excess_kurtosis(sum_T, sum_2_T, sum_4_T, channels):  # type: ignore[no-untyped-def]
    """Do what `statistics.excess_kurtosis` does, without a dozen small array operations."""
    kurtosis_T = np.zeros(len(sum_T), np.float32)
    for t in range(len(sum_T)):
        mean = np.float64(sum_T[t]) / channels
        variance = np.float64(sum_2_T[t]) / channels - mean * mean
        if variance > 0:
            kurtosis_T[t] = max(np.float64(sum_4_T[t]) / channels / variance**2 - 3, 0.0)
    return kurtosis_T


@njit(boundscheck=False, nogil=True, cache=True)
def _first_equal(row, top):  # type: ignore[no-untyped-def]
    start = 0
    while start + 64 <= row.shape[0]:
        found = 0
        for j in range(64):
            found |= (row[start + j] & _MAGNITUDE) == top
        if found:
            break
        start += 64
    while row[start] & _MAGNITUDE != top:
        start += 1
    return start


@njit(fastmath=_SUMS, boundscheck=False, nogil=True, cache=True)
def _column_moments(x, sums_C, extremes_C):  # type: ignore[no-untyped-def]
    """Fill per channel sums (3, C) and largest and smallest value (2, C) over rows 1.. of x (T, C)."""
    positions, channels = x.shape
    part = np.zeros((3, channels), np.float32)
    extremes_C[0] = -np.inf
    extremes_C[1] = np.inf
    t = 1
    while t < positions:
        stop = min(t + 64, positions)
        while t + 4 <= stop:  # four rows at once: a partial sum is read and written once for four values
            for c in range(channels):
                v0, v1, v2, v3 = x[t, c], x[t + 1, c], x[t + 2, c], x[t + 3, c]
                q0, q1, q2, q3 = v0 * v0, v1 * v1, v2 * v2, v3 * v3
                part[0, c] += (v0 + v1) + (v2 + v3)
                part[1, c] += (q0 + q1) + (q2 + q3)
                part[2, c] += (q0 * q0 + q1 * q1) + (q2 * q2 + q3 * q3)
                extremes_C[0, c] = max(extremes_C[0, c], max(max(v0, v1), max(v2, v3)))
                extremes_C[1, c] = min(extremes_C[1, c], min(min(v0, v1), min(v2, v3)))
            t += 4
        while t < stop:
            for c in range(channels):
                v = x[t, c]
                q = v * v
                part[0, c] += v
                part[1, c] += q
                part[2, c] += q * q
                extremes_C[0, c] = max(extremes_C[0, c], v)
                extremes_C[1, c] = min(extremes_C[1, c], v)
            t += 1
        for k in range(3):
            for c in range(channels):
                sums_C[k, c] += part[k, c]
                part[k, c] = 0


@njit(boundscheck=False, nogil=True, cache=True)
def _hits(x, bits, grid, rms_grid, scale, maximum_T, count, rms_count, reached, rms_reached):  # type: ignore[no-untyped-def]
    """Count hits per channel and level, and raise the levels reached; most values are below both grids and skipped."""
    positions, channels = x.shape
    low = np.float32(grid[0]).view(np.int32)
    if scale > 0:
        low = min(low, np.float32(rms_grid[0] / scale * np.float32(0.999)).view(np.int32))
    whole = channels // _STRIDE
    for t in range(positions):
        if maximum_T[t] < low:
            continue
        blocks = bits[t, : whole * _STRIDE].reshape(whole, _STRIDE)
        for b in range(whole):
            top = np.int32(0)
            for j in range(_STRIDE):
                top = max(top, blocks[b, j] & _MAGNITUDE)
            if top >= low:
                for c in range(b * _STRIDE, (b + 1) * _STRIDE):
                    if bits[t, c] & _MAGNITUDE >= low:
                        _hit(abs(x[t, c]), c, grid, rms_grid, scale, count, rms_count, reached[t], rms_reached[t])
        for c in range(whole * _STRIDE, channels):
            if bits[t, c] & _MAGNITUDE >= low:
                _hit(abs(x[t, c]), c, grid, rms_grid, scale, count, rms_count, reached[t], rms_reached[t])


@njit(boundscheck=False, nogil=True, cache=True)
def _hit(magnitude, channel, grid, rms_grid, scale, count, rms_count, reached, rms_reached):  # type: ignore[no-untyped-def]
    _raise(channel, _level(magnitude, grid), count, reached)
    _raise(channel, _level(magnitude * scale, rms_grid), rms_count, rms_reached)


@njit(boundscheck=False, nogil=True, cache=True)
def _level(magnitude, grid):  # type: ignore[no-untyped-def]
    level = 0
    while level < grid.shape[0] and grid[level] <= magnitude:
        level += 1
    return level


@njit(boundscheck=False, nogil=True, cache=True)
def _raise(channel, level, count, reached):  # type: ignore[no-untyped-def]
    if level > 0:
        count[channel, level] += 1
        reached[channel] = max(reached[channel], level)


@njit(boundscheck=False, nogil=True, cache=True)
def _middles(ordered, low, high):  # type: ignore[no-untyped-def]
    """Return the two middle values, known to be in low..high, of a table of integers whose rows are in order."""
    rows, columns = ordered.shape
    rank = (ordered.size - 1) // 2
    start, stop = np.zeros(rows, np.int64), np.full(rows, columns)  # what is still open of each row
    split = np.empty(rows, np.int64)
    low, high = np.int64(low), np.int64(high)
    while low < high:
        middle = (low + high) // 2
        reached = 0
        for t in range(rows):
            split[t] = start[t] + np.searchsorted(ordered[t, start[t] : stop[t]], middle, side="right")
            reached += split[t]
        if reached > rank:
            high = middle
            stop[:] = split
        else:
            low = middle + 1
            start[:] = split
    reached = 0
    following = np.int64(_MAGNITUDE)
    for t in range(rows):
        after = np.searchsorted(ordered[t], low, side="right")
        reached += after
        if after < columns:
            following = min(following, np.int64(ordered[t, after]))
    return low, low if reached > ordered.size // 2 else following


@njit(boundscheck=False, nogil=True, cache=True)
def _filled(count):  # type: ignore[no-untyped-def]
    """Return channel, level and count of every cell that is not zero."""
    channels, cells = count.shape
    found = 0
    for c in range(channels):
        for g in range(cells):
            found += count[c, g] != 0
    channel, level, counted = np.empty(found, np.int32), np.empty(found, np.uint8), np.empty(found, np.int32)
    found = 0
    for c in range(channels):
        for g in range(cells):
            if count[c, g]:
                channel[found], level[found], counted[found] = c, g, count[c, g]
                found += 1
    return channel, level, counted
