"""CPU reduction: compiled passes (Numba) over pieces of an activation that stay in cache.

A chain of torch operations would read the activation twenty times. Sums are float32 over at most 64 rows, or over one
row, and float64 beyond, so a sum is within 64 float32 roundings of the exact one, relative to its sum of magnitudes.

One file: Numba keeps what it compiled by the time of the file a function is in, so a function that calls another file's
would stay as it was when that file is edited.
"""

# Shapes: T position in a sequence, C channel, G value of a threshold grid.

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numba import njit, types
from numba.extending import overload

from outlier_features import magnitude_bins
from outlier_features.kernels import reference
from outlier_features.kernels.reference import ALIKE, FAINT, Columns, ExpertSums, Grids, Reached
from outlier_features.thresholds import inverse_rms

_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
_TILE = 16  # rows worked on at once
_FLUSH = 64  # rows after which float32 sums of a channel are added up in float64
_STRIDE = 16  # values looked at together for whether any of them matters
_KEYS = 1 << 15  # magnitudes as bfloat16 holds them
_COPIES = 4  # tables of counts that neighbours are spread over
_HALF_OCTAVE = magnitude_bins.BITS - 16  # bits of such a magnitude below those that tell its half octave
_SUMS = {"reassoc", "nsz", "contract"}  # lets sums vectorise; NaN and infinity keep their meaning


class CpuReduction:
    """Reduces activations in host memory; a result is there at once."""

    def __init__(self, grids: Grids) -> None:
        self._grids = grids
        self._scratch: dict[tuple[int, ...], np.ndarray] = {}
        self._thresholds = [np.array(grid, np.float32) for grid in (grids.absolute, grids.relative)]

    def site(
        self,
        x_TC: torch.Tensor,
        reached: Reached | None = None,
        *,
        medians: bool = False,
        spread: bool = False,
        first: int = 1,
    ) -> Columns:
        """Do what `reference.reduce` does; sums agree with it to float32 rounding, everything else exactly."""
        if len(x_TC) == 0:
            return reference.nothing(x_TC.shape[1], hits=reached is not None, medians=medians, spread=spread)
        if x_TC.dtype not in _BITS:
            x_TC = x_TC.float()
        # not .numpy(): the storage of a hidden state could never be emptied again
        bits = np.from_dlpack(x_TC.contiguous().view(_BITS[x_TC.dtype]))
        columns = _moment_columns(bits, min(first, len(bits)))
        if columns is None:  # NaN, infinity, or x^4 beyond float32: rare, so the reference may be slow
            return reference.reduce(x_TC, self._grids, reached, medians=medians, spread=spread, first=first)
        if reached is not None:
            columns |= self._hit_columns(bits, columns, reached)
        if medians:
            median_abs, median_T = _medians(bits, self._reused(bits.shape, np.int16))
            found = reference.medians(x_TC, columns["position_max_abs"], median_abs, median_T)
            columns |= reference.median_columns(found)
        if spread:
            columns |= _spread_columns(bits, columns["position_max_abs"], first)
        return columns

    def by_expert(self, x_RC: torch.Tensor, rows_S: torch.Tensor, experts_S: torch.Tensor, sums: ExpertSums) -> None:
        """Do what `reference.by_expert` does; sums agree with it to float64 rounding, everything else exactly."""
        if x_RC.dtype not in _BITS:
            x_RC = x_RC.float()
        bits = np.from_dlpack(x_RC.contiguous().view(_BITS[x_RC.dtype]))
        square_EC = np.zeros(sums.sum_2_EC.shape)
        _by_expert(bits, rows_S.numpy(), experts_S.numpy(), square_EC, sums.max_abs_EC.numpy())
        sums.add(torch.from_numpy(square_EC), experts_S)

    def keep(self, values: torch.Tensor) -> np.ndarray:
        """Return values (N,) that are kept as they are."""
        return values.numpy()

    def collect(self, found: Sequence) -> Callable[[], list]:
        """Return what `site` and `keep` returned; there is nothing to wait for."""
        return lambda: list(found)

    def _hit_columns(self, bits: np.ndarray, columns: Columns, reached: Reached) -> Columns:
        counts = [self._reused((bits.shape[1], len(grid)), np.int32) for grid in self._thresholds]
        reached_TC = reached.absolute_TC.numpy(), reached.relative_TC.numpy()
        scale = inverse_rms(np.float64(columns["rms"]))
        _hits(bits, *self._thresholds, scale, columns["position_max_abs"], *counts, *reached_TC)
        return reference.hit_columns(*(filled(count) for count in counts))

    def _reused(self, shape: tuple[int, ...], kind: type) -> np.ndarray:
        """Return an array that earlier calls have used: fresh memory costs a page fault every 4 kB."""
        key = (*shape, np.dtype(kind).itemsize)
        if key not in self._scratch:
            self._scratch[key] = np.zeros(shape, kind)
        return self._scratch[key]


def compile_for(dtype: str) -> None:
    """Compile every kernel for activations of a type, or load it where Numba keeps it."""
    x_TC = torch.ones(2, _TILE, dtype=getattr(torch, dtype))
    reduction, none = CpuReduction(Grids((1.0,), (1.0,))), torch.zeros(1, dtype=torch.long)
    reduction.site(x_TC, Reached.nothing(2, _TILE, x_TC.device), medians=True, spread=True)
    reduction.by_expert(x_TC, none, none, ExpertSums.nothing(1, _TILE, x_TC.device))


def _moment_columns(bits: np.ndarray, first: int) -> Columns | None:
    positions, channels = bits.shape
    sums_C = np.zeros((3, channels))
    first_C, extremes_C = np.empty((first, channels), np.float32), np.empty((2, channels), np.float32)
    of_T, channel_T = np.empty((3, positions), np.float32), np.empty(positions, np.int32)
    is_finite, sum_3, rms = _moments(bits, first_C, sums_C, extremes_C, of_T, channel_T)
    if not is_finite:
        return None
    return {
        "first": first_C.reshape(-1),
        "max": extremes_C[0],
        "min": extremes_C[1],
        "sum": sums_C[0],
        "sum_2": sums_C[1],
        "sum_4": sums_C[2],
        "sum_3": sum_3,
        "rms": rms,
        "position_max_abs": of_T[0],
        "position_channel": channel_T,
        "position_rms": of_T[1],
        "position_kurtosis": of_T[2],
        "nan_count": 0,
        "inf_count": 0,
        "first_rows": first,
    }


def _spread_columns(bits: np.ndarray, max_abs_T: np.ndarray, first: int) -> Columns:
    counts = np.zeros((2, len(magnitude_bins.SPREADS), _COPIES, magnitude_bins.HALF_OCTAVES), np.int32)
    zeros, median_T = np.zeros(counts.shape[:2], np.int64), np.empty(len(bits))
    _spread(bits, first, counts, zeros, median_T)
    tables = [
        [magnitude_bins.cells(*pair) for pair in zip(of_part.sum(1), none, strict=True)]
        for of_part, none in zip(counts, zeros, strict=True)
    ]
    mmr = reference.max_median_ratio(max_abs_T, median_T)
    return {"mmr": mmr} | reference.spread_columns(np.array(tables))


def _medians(bits: np.ndarray, keys: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the median magnitude of a whole tensor (T, C), and of each of its rows; `keys` is overwritten."""
    median_T = np.empty(len(bits))
    low, high = _row_medians(bits, keys, median_T)
    pair = _flat_medians(bits.reshape(-1), keys.reshape(-1), low, high)
    return float(np.array(pair, np.int32).view(np.float32).mean(dtype=np.float64)), median_T


def _rows(bits, start, stop, scratch):
    """Return rows start..stop of an activation, given by its bits, as float32; `scratch` may be used for them."""
    raise NotImplementedError


@overload(_rows)
def _rows_compiled(bits, start, stop, scratch):
    if bits.dtype == types.int32:
        return lambda bits, start, stop, scratch: bits[start:stop].view(np.float32)

    def widened(bits, start, stop, scratch):
        wide = scratch.view(np.int32)
        for t in range(start, stop):
            row, target = bits[t], wide[t - start]
            for c in range(row.shape[0]):
                target[c] = np.int32(row[c]) << 16
        return scratch[: stop - start]

    return widened


def _magnitude(bits):
    """Return the bits of |x| as float32; finite magnitudes order as these integers do."""
    raise NotImplementedError


@overload(_magnitude)
def _magnitude_compiled(bits):
    if bits == types.int32:
        return lambda bits: np.int32(bits & np.int32(0x7FFFFFFF))
    return lambda bits: np.int32(np.int32(bits & np.int16(0x7FFF)) << 16)


@njit(boundscheck=False, nogil=True, cache=True)
def _moments(bits, first_C, sums_C, extremes_C, of_T, channel_T):
    """Fill what is kept per channel and per position; return whether all is finite, the sum of x^3, and the RMS."""
    positions, channels = bits.shape
    scratch = np.empty((_TILE, channels), np.float32)
    part = np.zeros((3, channels), np.float32)
    sums = np.zeros(3, np.float32)
    _begin(extremes_C)
    first = first_C.shape[0]
    sum_2 = sum_3 = 0.0
    start, pending = 0, 0
    while start < positions:
        # the rows of position 0 are no part of what is kept per channel
        stop = min(start + _TILE, positions if start >= first else first)
        rows = _rows(bits, start, stop, scratch)
        for t in range(start, stop):
            sum_3 += _row_moments(rows[t - start], sums)
            sum_2 += sums[1]
            if not np.isfinite(sums[2]):
                return False, 0.0, 0.0
            top = _largest(rows[t - start].view(np.int32))
            of_T[0, t] = np.int32(top).view(np.float32)
            channel_T[t] = _first_equal(rows[t - start].view(np.int32), top)
            of_T[1, t] = np.sqrt(sums[1] / np.float32(channels))
            of_T[2, t] = _excess_kurtosis(rows[t - start], sums)
        if start >= first:
            _column_moments(rows, part, extremes_C)
            pending += stop - start
        else:
            _keep(rows, first_C[start:stop])
        if pending >= _FLUSH or stop == positions:
            _flush(part, sums_C)
            pending = 0
        start = stop
    return True, sum_3, np.sqrt(sum_2 / bits.size)


@njit(boundscheck=False, nogil=True, cache=True)
def _begin(extremes_C):
    """Fill in extremes of nothing; value by value, since `a[:] = b` takes seconds to compile."""
    for c in range(extremes_C.shape[1]):
        extremes_C[0, c] = -np.inf
        extremes_C[1, c] = np.inf


@njit(boundscheck=False, nogil=True, cache=True)
def _keep(rows, target):
    for t in range(rows.shape[0]):
        source, kept = rows[t], target[t]
        for c in range(source.shape[0]):
            kept[c] = source[c]


@njit(fastmath=_SUMS, boundscheck=False, nogil=True, cache=True)
def _row_moments(row, sums):
    """Fill the sums of x, x^2 and x^4 of a row; return the sum of x^3."""
    a1 = np.float32(0)
    a2 = np.float32(0)
    a3 = np.float32(0)
    a4 = np.float32(0)
    for c in range(row.shape[0]):
        v = row[c]
        q = v * v
        a1 += v
        a2 += q
        a3 += v * q
        a4 += q * q
    sums[0] = a1
    sums[1] = a2
    sums[2] = a4
    return a3


@njit(boundscheck=False, nogil=True, cache=True)
def _largest(bits):
    top = np.int32(0)
    for c in range(bits.shape[0]):
        top = max(top, _magnitude(bits[c]))
    return top


@njit(boundscheck=False, nogil=True, cache=True)
def _first_equal(bits, top):
    """Return the first channel of a row that has the magnitude `top`, which one of them has."""
    for start in range(0, bits.shape[0], 64):
        piece = bits[start : start + 64]
        found = 0
        for c in range(piece.shape[0]):
            found |= _magnitude(piece[c]) == top
        if found:
            for c in range(piece.shape[0]):
                if _magnitude(piece[c]) == top:
                    return start + c
    return -1


@njit(nogil=True, cache=True)
def _excess_kurtosis(row, sums):
    """Do what `reference.excess_kurtosis` does, for one position, from its sums where these can tell it."""
    channels = row.shape[0]
    mean, square = np.float64(sums[0]) / channels, np.float64(sums[1]) / channels
    variance, fourth = square - mean * mean, np.float64(sums[2]) / channels
    if variance <= ALIKE * square or fourth < FAINT:
        variance, fourth = _deviations(row)
    return max(fourth / variance**2 - 3, 0.0) if variance > 0 else 0.0


@njit(boundscheck=False, nogil=True, cache=True)
def _deviations(row):
    """Return the variance of a row, from its deviations, and its mean of x^4; the mean of equal values is exact."""
    total = 0.0
    for c in range(row.shape[0]):
        total += np.float64(row[c])
    mean = total / row.shape[0]
    squares = fourths = 0.0
    for c in range(row.shape[0]):
        value = np.float64(row[c])
        squares += (value - mean) ** 2
        fourths += value**4
    return squares / row.shape[0], fourths / row.shape[0]


@njit(fastmath=_SUMS, boundscheck=False, nogil=True, cache=True)
def _column_moments(rows, part, extremes_C):
    """Add rows (T, C) to sums of x, x^2 and x^4 per channel (3, C), and to largest and smallest value (2, C)."""
    sum_C, sum_2_C, sum_4_C = part[0], part[1], part[2]
    max_C, min_C = extremes_C[0], extremes_C[1]
    whole = rows.shape[0] // 4 * 4
    for t in range(0, whole, 4):  # four rows at once: a partial sum is read and written once for four values
        r0, r1, r2, r3 = rows[t], rows[t + 1], rows[t + 2], rows[t + 3]
        for c in range(r0.shape[0]):
            v0, v1, v2, v3 = r0[c], r1[c], r2[c], r3[c]
            q0, q1, q2, q3 = v0 * v0, v1 * v1, v2 * v2, v3 * v3
            sum_C[c] += (v0 + v1) + (v2 + v3)
            sum_2_C[c] += (q0 + q1) + (q2 + q3)
            sum_4_C[c] += (q0 * q0 + q1 * q1) + (q2 * q2 + q3 * q3)
            max_C[c] = max(max_C[c], max(max(v0, v1), max(v2, v3)))
            min_C[c] = min(min_C[c], min(min(v0, v1), min(v2, v3)))
    for t in range(whole, rows.shape[0]):
        row = rows[t]
        for c in range(row.shape[0]):
            v = row[c]
            q = v * v
            sum_C[c] += v
            sum_2_C[c] += q
            sum_4_C[c] += q * q
            max_C[c] = max(max_C[c], v)
            min_C[c] = min(min_C[c], v)


@njit(boundscheck=False, nogil=True, cache=True)
def _flush(part, sums_C):
    for k in range(3):
        source, target = part[k], sums_C[k]
        for c in range(source.shape[0]):
            target[c] += source[c]
            source[c] = 0


@njit(boundscheck=False, nogil=True, cache=True)
def _hits(bits, grid, rms_grid, scale, max_abs_T, count, rms_count, reached, rms_reached):
    """Count hits per channel and level, and raise the levels reached; most values are below both grids and skipped."""
    low = grid[0]
    if scale > 0:
        low = min(low, np.float32(rms_grid[0] / scale * np.float32(0.999)))
    low_bits = np.float32(low).view(np.int32)
    for t in range(bits.shape[0]):
        if max_abs_T[t] < low:
            continue
        row, levels, rms_levels = bits[t], reached[t], rms_reached[t]
        for start in range(0, row.shape[0], _STRIDE):
            piece = row[start : start + _STRIDE]
            top = np.int32(0)
            for c in range(piece.shape[0]):
                top = max(top, _magnitude(piece[c]))
            if top < low_bits:
                continue
            for c in range(piece.shape[0]):
                found = _magnitude(piece[c])
                if found >= low_bits:
                    value = np.int32(found).view(np.float32)
                    _raise(start + c, _level(value, grid), count, levels)
                    _raise(start + c, _level(value * scale, rms_grid), rms_count, rms_levels)


@njit(boundscheck=False, nogil=True, cache=True)
def _level(magnitude, grid):
    level = 0
    while level < grid.shape[0] and grid[level] <= magnitude:
        level += 1
    return level


@njit(boundscheck=False, nogil=True, cache=True)
def _raise(channel, level, count, reached):
    if level > 0:
        count[channel, level - 1] += 1
        reached[channel] = max(reached[channel], level)


@njit(boundscheck=False, nogil=True, cache=True)
def filled(count):
    """Return channel, level (from 1 on) and count of every cell (C, G) that is not zero; it is then."""
    channels, cells = count.shape
    found = 0
    for c in range(channels):
        row = count[c]
        for g in range(cells):
            found += row[g] != 0
    channel, level, counted = np.empty(found, np.int32), np.empty(found, np.uint8), np.empty(found, np.int32)
    found = 0
    for c in range(channels):
        row = count[c]
        for g in range(cells):
            if row[g]:
                channel[found], level[found], counted[found] = c, g + 1, row[g]
                row[g] = 0
                found += 1
    return channel, level, counted


@njit(boundscheck=False, nogil=True, cache=True)
def _spread(bits, first, counts, zeros, median_T):
    """Count the half octaves of magnitudes and of the largest of every 16 and 32 channels; fill the median of rows.

    `counts` has, for the first rows and for the rest, for each of the three, copies that are added up later; `zeros`
    how many of the smallest are zeros.
    """
    channels = bits.shape[1]
    rank, guess = (channels - 1) // 2, _KEYS // 2
    key, largest = np.empty(channels, np.int16), np.empty((channels + 15) // 16, np.int32)
    scratch = np.empty(channels, np.int32)
    for t in range(bits.shape[0]):
        row, part = bits[t], 0 if t < first else 1
        zeros[part, 0] += _upper_halves(row, key)
        _tally(key, counts[part, 0])
        _largest_of_16(row, largest)
        zeros[part, 1] += _tally_largest(largest, 1, counts[part, 1, 0])
        zeros[part, 2] += _tally_largest(largest, 2, counts[part, 2, 0])
        guess = _select(key, rank, guess)
        median_T[t] = _median(row, key, rank, guess, scratch)


@njit(boundscheck=False, nogil=True, cache=True)
def _upper_halves(row, key):
    """Fill in the upper halves of magnitudes; return how many are zero."""
    zeros = np.int32(0)
    for c in range(row.shape[0]):
        magnitude = _magnitude(row[c])
        key[c] = magnitude >> 16
        zeros += magnitude == 0
    return zeros


@njit(boundscheck=False, nogil=True, cache=True)
def _tally(key, counts):
    """Count half octaves, neighbours in different copies: the next count of a cell waits for the one before."""
    a, b, c, d = counts[0], counts[1], counts[2], counts[3]
    whole = key.shape[0] // _COPIES * _COPIES
    for i in range(0, whole, _COPIES):
        a[key[i] >> _HALF_OCTAVE] += 1
        b[key[i + 1] >> _HALF_OCTAVE] += 1
        c[key[i + 2] >> _HALF_OCTAVE] += 1
        d[key[i + 3] >> _HALF_OCTAVE] += 1
    for i in range(whole, key.shape[0]):
        a[key[i] >> _HALF_OCTAVE] += 1


@njit(boundscheck=False, nogil=True, cache=True)
def _largest_of_16(row, largest):
    for b in range(largest.shape[0]):
        piece = row[16 * b : 16 * b + 16]
        top = np.int32(0)
        for c in range(piece.shape[0]):
            top = max(top, _magnitude(piece[c]))
        largest[b] = top


@njit(boundscheck=False, nogil=True, cache=True)
def _tally_largest(largest, width, counts):
    """Count the half octaves of the largest of every `width` neighbours; return how many are zero."""
    zeros = 0
    for b in range(0, largest.shape[0], width):
        top = largest[b]
        if width == 2 and b + 1 < largest.shape[0]:
            top = max(top, largest[b + 1])
        counts[top >> magnitude_bins.BITS] += 1
        zeros += top == 0
    return zeros


@njit(boundscheck=False, nogil=True, cache=True)
def _by_expert(bits, rows, experts, square, largest):
    """Add the squares of rows to the expert each belongs to, and raise its largest magnitudes."""
    scratch = np.empty((1, bits.shape[1]), np.float32)
    for s in range(rows.shape[0]):
        row = _rows(bits, rows[s], rows[s] + 1, scratch)[0]
        total, top = square[experts[s]], largest[experts[s]]
        for c in range(row.shape[0]):
            v = row[c] if abs(row[c]) < np.inf else np.float32(0)
            total[c] += np.float64(v) * np.float64(v)
            top[c] = max(top[c], abs(v))


@njit(boundscheck=False, nogil=True, cache=True)
def _row_medians(bits, keys, median_T):
    """Fill the median magnitude of each row, and `keys` with the upper halves of all magnitudes.

    Returns the smallest and the largest upper half of the lower of a row's two middle values.
    """
    positions, channels = bits.shape
    rank = (channels - 1) // 2
    lowest, highest, guess = _KEYS, 0, _KEYS // 2
    scratch = np.empty(channels, np.int32)
    for t in range(positions):
        row, key = bits[t], keys[t]
        _upper_halves(row, key)
        guess = _select(key, rank, guess)
        lowest, highest = min(lowest, guess), max(highest, guess)
        median_T[t] = _median(row, key, rank, guess, scratch)
    return lowest, highest


@njit(boundscheck=False, nogil=True, cache=True)
def _median(bits, keys, rank, key, scratch):
    """Return the median magnitude (float64) of a row whose lower middle value has `rank` and the upper half `key`."""
    low, high = _middles(bits, keys, rank, key, scratch)
    return (np.float64(np.int32(low).view(np.float32)) + np.float64(np.int32(high).view(np.float32))) / 2


@njit(boundscheck=False, nogil=True, cache=True)
def _flat_medians(bits, keys, low, high):
    """Return the two middle magnitudes of all values; the upper half of the lower one is in low..high."""
    rank = (bits.shape[0] - 1) // 2
    key = _bisect(keys, rank, low, high)
    return _middles(bits, keys, rank, key, np.empty(_count(keys, np.int16(key)), np.int32))


@njit(boundscheck=False, nogil=True, cache=True)
def _middles(bits, keys, rank, key, scratch):
    """Return the magnitudes (float32 bits) of the two middle values; the lower has `rank` and the upper half `key`."""
    below = _count(keys, np.int16(key - 1)) if key > 0 else 0
    same = scratch[: _gather(bits, keys, key, scratch)]
    _sort(same)
    low, above = same[rank - below], bits.shape[0] // 2 - below
    return low, same[above] if above < same.shape[0] else _smallest_above(bits, low)


@njit(boundscheck=False, nogil=True, cache=True)
def _gather(bits, keys, key, found):
    """Fill in the magnitudes (float32 bits) whose upper half is `key`; return how many there are."""
    count = 0
    for start in range(0, keys.shape[0], _STRIDE):
        piece = keys[start : start + _STRIDE]
        matches = 0
        for c in range(piece.shape[0]):
            matches |= piece[c] == key
        if matches:
            for c in range(piece.shape[0]):
                if piece[c] == key:
                    found[count] = _magnitude(bits[start + c])
                    count += 1
    return count


@njit(boundscheck=False, nogil=True, cache=True)
def _sort(values):
    """Sort few values quickly, and many (Shell's way) without the two seconds that NumPy's sort takes to compile."""
    gap = 1
    while gap < values.shape[0] // 9:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, values.shape[0]):
            value = values[i]
            while i >= gap and values[i - gap] > value:
                values[i] = values[i - gap]
                i -= gap
            values[i] = value
        gap //= 3


@njit(boundscheck=False, nogil=True, cache=True)
def _smallest_above(bits, low):
    smallest = np.int32(0x7FFFFFFF)
    for i in range(bits.shape[0]):
        found = _magnitude(bits[i])
        smallest = min(smallest, found if found > low else np.int32(0x7FFFFFFF))
    return smallest


@njit(boundscheck=False, nogil=True, cache=True)
def _select(keys, rank, guess):
    """Return the key of a rank, looked for around a guess first: rows that follow each other are much alike."""
    step = 32
    if _count(keys, np.int16(guess)) > rank:
        low, high = max(guess - step, -1), guess
        while low >= 0 and _count(keys, np.int16(low)) > rank:
            high, step = low, 4 * step
            low = max(high - step, -1)
        return _bisect(keys, rank, low + 1, high)
    low, high = guess, min(guess + step, _KEYS - 1)
    while _count(keys, np.int16(high)) <= rank:
        low, step = high, 4 * step
        high = min(low + step, _KEYS - 1)
    return _bisect(keys, rank, low + 1, high)


@njit(boundscheck=False, nogil=True, cache=True)
def _bisect(keys, rank, low, high):
    """Return the key of a rank, which is in low..high."""
    while low < high:
        middle = (low + high) // 2
        if _count(keys, np.int16(middle)) > rank:
            high = middle
        else:
            low = middle + 1
    return low


@njit(boundscheck=False, nogil=True, cache=True)
def _count(keys, most):
    """Return how many keys are at most `most`; pieces short enough for sums of 16 bits, 32 of which are one vector."""
    total = 0
    for start in range(0, keys.shape[0], _KEYS // 2):
        piece = keys[start : start + _KEYS // 2]
        found = np.int16(0)
        for i in range(piece.shape[0]):
            found = np.int16(found + np.int16(piece[i] <= most))
        total += found
    return total
