"""Quantisers: the error that each format makes of an activation, predicted from what is kept of its windows.

Position 0 is kept value by value, so its error is exact. Elsewhere the true staircase of the format is integrated over
the spectrum of magnitudes: nothing is assumed of the size of its steps. What has to be assumed is told at each format.

Beside fake quantisation of all 120 matrix inputs of SmolLM2-135M (benchmarks/damage.py; median and worst difference in
dB): absmax, row_wise and zeropoint 0.00 and 0.1, int4 0.01 and 0.2, fp8_tensor 0.03 and 0.4, fp8_token 0.05 and 1.5,
mxfp4 0.1 and 0.4, nvfp4 0.1 and 0.6, mxfp8 0.1 and 1.2, w8a8_static 0.1 and 0.9, zeropoint_vector 0.2 and 1.1. Without
the largest channel w8a8_static is not to be had: 0.2, and 7 dB where most of the error is that channel's clipping.
"""

# Shapes: N step of a spectrum, U step of a magnitude in units of its scale, F row of position 0, T row of the rest,
# C channel, K and J cell of a block's largest and of its other magnitudes, P scale.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from outlier_features.magnitude_bins import CELLS
from outlier_features.metrics import spectra
from outlier_features.metrics.kept_windows import KeptWindow
from outlier_features.metrics.spectra import OCTAVE, STEPS


@dataclass(frozen=True)
class Grid:
    """The numbers that a quantised value may have in units of its scale: these and their negatives."""

    levels: tuple[float, ...]
    """From 0 up, ascending. Values round to the nearest, and beyond the last to that."""

    @property
    def largest(self) -> float:
        """The last level."""
        return self.levels[-1]

    def nearest(self, size: np.ndarray) -> np.ndarray:
        """Return the nearest level of magnitudes in units; how ties go moves no error."""
        return np.asarray(np.array(self.levels)[np.searchsorted(self._middles, size)])

    def error(self, units: np.ndarray) -> np.ndarray:
        """Return the squared error of values in units."""
        return np.asarray((np.abs(units) - self.nearest(np.abs(units))) ** 2)

    @cached_property
    def _middles(self) -> np.ndarray:
        return (np.array(self.levels)[1:] + np.array(self.levels)[:-1]) / 2

    @cached_property
    def steps(self) -> np.ndarray:
        """The mean squared error of each step (U,) from 2^-64 to 2^64 units, where values are uniform in the step."""
        edges = 2.0 ** (np.arange(-STEPS, STEPS + 1) / OCTAVE)
        halves = np.diff(np.array(self.levels)) / 2
        before = np.concatenate([[0], np.cumsum(2 * halves**3 / 3)])  # the integral up to each level
        at = np.searchsorted(self._middles, edges)
        integral = before[at] + (edges - np.array(self.levels)[at]) ** 3 / 3
        return np.diff(integral) / np.diff(edges)

    @cached_property
    def steps_within(self) -> np.ndarray:
        """The same where no value is beyond the last level: what a spectrum has there errs as what is below it."""
        last = STEPS + int(np.ceil(OCTAVE * np.log2(self.largest))) - 1
        return np.where(np.arange(2 * STEPS) > last, self.steps[last], self.steps)

    @cached_property
    def squares_within(self) -> np.ndarray:
        """The square of each step (U,), of those beyond the last level that of the last level."""
        return np.minimum(2.0 ** ((np.arange(-STEPS, STEPS) + 0.5) / OCTAVE), self.largest) ** 2


def integers(last: int) -> Grid:
    """Return the grid of the integers up to the last."""
    return Grid(tuple(range(last + 1)))


def small_float(mantissa: int, least_exponent: int, last: float) -> Grid:
    """Return the grid of a float format: its bits of mantissa, the exponent of its subnormals, its largest number."""
    subnormal = [k * 2.0 ** (least_exponent - mantissa) for k in range(2**mantissa)]
    exponents = range(least_exponent, int(np.log2(last)) + 1)
    normal = [2.0**e * (1 + k / 2**mantissa) for e in exponents for k in range(2**mantissa)]
    return Grid(tuple(level for level in subnormal + normal if level <= last))


INT8, INT4, ENDLESS = integers(127), integers(7), integers(4096)
E4M3, E2M1 = small_float(3, -6, 448.0), small_float(1, 0, 6.0)


@dataclass(frozen=True)
class Errors:
    """Sums of squared errors of one window, in the square of the activation's unit."""

    first_FC: np.ndarray
    """At position 0, value by value: exact."""
    rest: float
    """At all other positions."""
    rest_without_top: float
    """There, without the channel of the largest |x|, whose values are taken for normal between their extremes."""


Format = Callable[[list[KeptWindow]], list[Errors]]
"""Predicts the errors of the windows of one tensor."""


def summed(spectrum_N: np.ndarray, steps_U: np.ndarray, scale: float) -> float:
    """Return the summed squared error of a spectrum at one scale."""
    return float(at_places(spectrum_N, steps_U, spectra.place_of(np.array([scale])))[0] * scale**2)


def at_places(spectrum_N: np.ndarray, steps_U: np.ndarray, place_P: np.ndarray) -> np.ndarray:
    """Return what a spectrum sums up to (P,), in units, at scales that lie there; between steps it is interpolated."""
    used = np.flatnonzero(spectrum_N > 0)
    if not len(used):
        return np.zeros(len(place_P))
    begin, end = used[0], used[-1] + 1
    nodes = np.arange(np.floor(place_P.min()), np.ceil(place_P.max()) + 1).astype(int)
    units = np.clip(STEPS + np.arange(begin, end) - nodes[:, None], 0, 2 * STEPS - 1)
    return np.interp(place_P, nodes, steps_U[units] @ spectrum_N[begin:end])


def _without(spectrum_N: np.ndarray, part_N: np.ndarray) -> np.ndarray:
    return np.maximum(spectrum_N - part_N, 0)


@dataclass(frozen=True)
class PerTensor:
    """One scale a window, exactly known; only where values lie within their half octaves is assumed."""

    grid: Grid
    step: Callable[[KeptWindow], float]

    def __call__(self, windows: list[KeptWindow]) -> list[Errors]:
        """Return the errors of each window."""
        return [self._errors(window) for window in windows]

    def _errors(self, window: KeptWindow) -> Errors:
        step = self.step(window) or 1.0
        parts = window.everything, window.without_top(window.everything)
        whole, rest = (summed(part, self.grid.steps_within, step) for part in parts)
        return Errors(self.grid.error(window.first_FC / step) * step**2, whole, rest)


@dataclass(frozen=True)
class PerToken:
    """One scale a row, its largest |x|, exactly known, over what represents that |x| without error.

    The other values of a row are taken for those of all rows, as `of_rows` moves and stretches them.
    """

    grid: Grid

    def __call__(self, windows: list[KeptWindow]) -> list[Errors]:
        """Return the errors of each window."""
        return [self._errors(window) for window in windows]

    def _errors(self, window: KeptWindow) -> Errors:
        steps_T = window.largest_T / self.grid.largest
        energy_T = np.maximum(window.channels * window.rms_T**2 - window.largest_T**2, 0)
        parts = window.row_unlike_largest, window.row_unlike_largest_without_top
        whole, rest = of_rows(parts, self.grid, steps_T, window.shifts, energy_T)
        first_F1 = np.abs(window.first_FC).max(1, keepdims=True) / self.grid.largest
        first_F1[first_F1 == 0] = 1.0
        return Errors(self.grid.error(window.first_FC / first_F1) * first_F1**2, whole, rest)


STRETCHES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
"""How much wider than that of a middle row the upper end of a row's spectrum may be, in octaves."""
BULK = 0.9
"""The share of a row that is no part of that end."""


def of_rows(
    parts: tuple[np.ndarray, np.ndarray], grid: Grid, scale_T: np.ndarray, shift_T: np.ndarray, energy_T: np.ndarray
) -> tuple[float, float]:
    """Return the summed squared errors of rows of two spectra, of which the second is a part of the first.

    The spectrum of a middle row is moved by the shift of a row, and its upper end made wider or narrower until the sum
    of squares is the one that is known.
    """
    is_used_T = (scale_T > 0) & (energy_T > 0)
    if not is_used_T.any() or not parts[0].any():
        return 0.0, 0.0
    scale_T, energy_T = scale_T[is_used_T], energy_T[is_used_T]
    place_T = spectra.place_of(scale_T) - shift_T[is_used_T]
    above = spectra.quantile(parts[0], BULK)
    stretched = [[spectra.stretched(part, above, by) for by in STRETCHES] for part in parts]
    energies_GT = np.stack([at_places(each, grid.squares_within, place_T) for each in stretched[0]]) * scale_T**2
    below_T = np.clip((energies_GT <= energy_T).sum(0) - 1, 0, len(STRETCHES) - 2)
    rows = np.arange(len(scale_T))
    low_T, high_T = energies_GT[below_T, rows], energies_GT[below_T + 1, rows]
    part_T = np.clip(np.log(energy_T / low_T) / np.maximum(np.log(high_T / low_T), 1e-12), 0, 1)
    sums = []
    for each in stretched:
        errors_GT = np.stack([at_places(spectrum_N, grid.steps_within, place_T) for spectrum_N in each])
        error_T = errors_GT[below_T, rows] * (1 - part_T) + errors_GT[below_T + 1, rows] * part_T
        sums.append(float(error_T @ scale_T**2))
    return sums[0], sums[1]


def asymmetric_per_token(windows: list[KeptWindow]) -> list[Errors]:
    """Predict asymmetric int8 with a range of each row: its largest |x|, kept, and the largest on the other side.

    The other side is taken for where 0.69 values of a row lie beyond, the median of a largest.
    """
    return [_asymmetric_per_token(window) for window in windows]


def _asymmetric_per_token(window: KeptWindow) -> Errors:
    is_high_T = (window.high_C >= -window.low_C)[window.largest_channel_T]
    sides = window.row * (1 - window.positive_share), window.row * window.positive_share
    other_T = np.where(is_high_T, *(_beyond(each, np.log(2)) for each in sides)) * 2.0 ** (window.shifts / OCTAVE)
    ends = (max(-float(window.low_C.min()), 0), max(float(window.high_C.max()), 0))
    other_T = np.minimum(np.minimum(other_T, window.largest_T), np.where(is_high_T, *ends))
    parts = window.row, window.row_without_top
    energy_T = window.channels * window.rms_T**2
    whole, rest = of_rows(parts, ENDLESS, (window.largest_T + other_T) / 254, window.shifts, energy_T)
    step_F1 = np.ptp(window.first_FC, axis=1, keepdims=True) / 254
    step_F1[step_F1 == 0] = 1.0
    return Errors(ENDLESS.error(window.first_FC / step_F1) * step_F1**2, whole, rest)


TAIL, MOMENTUM = 1e-5, 0.9
"""Of the values of a window beyond either end of a static range, and of the running mean of its ends."""


def static(windows: list[KeptWindow]) -> list[Errors]:
    """Predict asymmetric int8 whose range is frozen after these very windows.

    The few values beyond an end are told from the spectrum and from on which side channels reach that far, so the end
    is as rough as half octaves are where few values are left, and clipping is most of the error.
    """
    low, high = _end(windows[0], -1), _end(windows[0], 1)
    for window in windows[1:]:
        low = MOMENTUM * low + (1 - MOMENTUM) * _end(window, -1)
        high = MOMENTUM * high + (1 - MOMENTUM) * _end(window, 1)
    ends = max(low, 0.0), max(high, 0.0)
    return [_static(window, *ends) for window in windows]


def _sides(window: KeptWindow, sign: int) -> np.ndarray:
    """Return the spectrum of a window's rest on one side (N,): extremes of channels are known, and their signs."""
    extremes = window.high_C, -window.low_C
    known = [spectra.of_values(each[each > 0]) for each in extremes]
    all_N = spectra.of_counts(window.counts["magnitudes"], window.rest_peak, known[0] + known[1])
    own_N = known[0] if sign > 0 else known[1]
    share_N = window.positive_share if sign > 0 else 1 - window.positive_share
    return own_N + _without(all_N, known[0] + known[1]) * share_N


def _end(window: KeptWindow, sign: int) -> float:
    """Return the 99.999 percentile of a window's values times `sign`; 0 where it would be negative."""
    first = sign * window.first_FC.ravel()
    side_N = _sides(window, sign) + spectra.of_values(first[first > 0])
    rank = (window.rows * window.channels + first.size - 1) * TAIL
    largest = max(window.high if sign > 0 else -window.low, 0.0)
    if rank < 1:  # between the largest, which is known, and the next
        return (1 - rank) * largest + rank * min(_beyond(side_N, 1.5), largest)
    return min(_beyond(side_N, rank + 0.5), largest)


def _beyond(spectrum_N: np.ndarray, count: float) -> float:
    """Return the magnitude beyond which so many of a spectrum lie, 0 where it has fewer."""
    beyond_N = spectrum_N[::-1].cumsum()[::-1]
    found = np.flatnonzero(beyond_N >= count)
    if not len(found):
        return 0.0
    part = (beyond_N[found[-1]] - count) / spectrum_N[found[-1]] if spectrum_N[found[-1]] > 0 else 0.0
    return float(spectra.magnitude_of(found[-1] + min(part, 1.0)))


def _static(window: KeptWindow, low: float, high: float) -> Errors:
    """Return the errors of one window with values from -`low` to `high`."""
    step = (high + low) / 255 or 1.0
    middle_N = spectra.magnitude_of(np.arange(STEPS) + 0.5)
    ends = ((1, high, window.positive_share), (-1, low, 1 - window.positive_share))

    def error(side_N: np.ndarray, end: float) -> float:
        is_inside_N = middle_N <= end
        inside = summed(side_N * is_inside_N, ENDLESS.steps_within, step)
        return inside + float((side_N * ~is_inside_N) @ (middle_N - end) ** 2)

    whole = sum(error(_sides(window, sign), end) for sign, end, _ in ends)
    without = sum(
        error(_without(_sides(window, sign), window.top_spectrum * share_N), end) for sign, end, share_N in ends
    )
    clipped_FC = np.clip(np.round(window.first_FC / step) * step, -low, high)
    return Errors((window.first_FC - clipped_FC) ** 2, whole, without)


@dataclass(frozen=True)
class Blocks:
    """One scale for so many neighbouring channels of a row, from their largest |x|, counted by half octaves.

    Which other magnitudes a block has is assumed (channel_blocks), and where values lie within their half octaves.
    """

    size: int
    grid: Grid
    scale: Callable[[np.ndarray, float], np.ndarray]
    """From the largest |x| of blocks and that of all."""

    def __call__(self, windows: list[KeptWindow]) -> list[Errors]:
        """Return the errors of each window."""
        return [self._errors(window) for window in windows]

    def _errors(self, window: KeptWindow) -> Errors:
        kept = window.blocks[self.size]
        own = {channel: own_N * kept.largest_share(channel) for channel, own_N in window.own_spectra.items()}
        largest_N = spectra.of_counts(kept.largest_K, window.rest_peak, np.sum([*own.values()], axis=0))
        others_N = window.spectrum(kept.others_K)
        blocks = np.flatnonzero(largest_N > 0)
        if not len(blocks):
            return Errors(self._first(window), 0.0, 0.0)
        scale = self.scale(spectra.magnitude_of(blocks + 0.5), window.peak)
        place = spectra.place_of(np.where(scale > 0, scale, spectra.HUGE))
        of_largest_N = np.zeros(STEPS)
        of_largest_N[blocks] = self._of_largest(blocks, window.peak)
        others = self._of_others(blocks, place, largest_N, others_N, kept.pairs_KJ)
        rest_N = _without(largest_N, own[window.top])
        return Errors(
            self._first(window), float(largest_N @ of_largest_N) + others, float(rest_N @ of_largest_N) + others
        )

    def _of_largest(self, blocks: np.ndarray, peak: float) -> np.ndarray:
        """Return the mean squared error of the largest of a block, by its step."""
        parts = (np.arange(PARTS) + 0.5) / PARTS
        largest = spectra.magnitude_of(blocks[:, None] + parts)
        return np.asarray(self._error(largest, self.scale(largest, peak)).mean(1))

    def _error(self, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return the squared error of values, all of them where a scale is 0."""
        error = self.grid.error(values / np.where(scale == 0, spectra.HUGE, scale)) * scale**2
        return np.where(scale == 0, values**2, error)

    def _of_others(
        self, blocks: np.ndarray, place: np.ndarray, largest_N: np.ndarray, others_N: np.ndarray, pairs_KJ: np.ndarray
    ) -> float:
        """Return the error of all but the largest of blocks whose largest is in a step and whose scale is there.

        Values in the cell of the largest lie below it, and so those of larger blocks lie where the rest of the cell is.
        """
        cell_N, values = spectra.cells(), np.flatnonzero(others_N > 0)
        of_cells = pairs_KJ[np.ix_(cell_N[blocks], cell_N[values])] * _within_cells(largest_N)[blocks][:, None]
        is_beside = cell_N[blocks][:, None] == cell_N[values]
        below = np.select([values < blocks[:, None], values == blocks[:, None]], [1.0, 0.5]) * is_beside
        share_N = _within_cells(others_N)
        for _ in range(SETTLING):
            beside = _where_any(below * share_N[values], values == blocks[:, None])
            left_N = others_N.copy()
            left_N[values] -= (of_cells * beside).sum(0)
            share_N = _within_cells(np.maximum(left_N, 0.1 * others_N))
        errors = self._mean(values, place[:, None]) * spectra.magnitude_of(place)[:, None] ** 2
        return float((of_cells * np.where(is_beside, beside, share_N[values]) * errors).sum())

    def _mean(self, steps: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return the mean squared error of steps at scales, in units; between steps of the scale it is interpolated."""
        units = np.clip(STEPS + steps - place, 0, 2 * STEPS - 2)
        low = units.astype(int)
        part = units - low
        return np.asarray(self.grid.steps[low] * (1 - part) + self.grid.steps[low + 1] * part)

    def _first(self, window: KeptWindow) -> np.ndarray:
        rows, channels = window.first_FC.shape
        blocks = np.pad(window.first_FC, ((0, 0), (0, -channels % self.size))).reshape(rows, -1, self.size)
        largest = np.abs(blocks).max(2, keepdims=True)
        scale = self.scale(np.where(largest == 0, 1.0, largest), window.peak)
        return np.asarray(self._error(blocks, scale).reshape(rows, -1)[:, :channels])


def _where_any(shares: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Return rows of shares with a sum of 1, those without any as they are otherwise."""
    total = shares.sum(1, keepdims=True)
    return np.where(total > 0, shares / np.where(total > 0, total, 1), otherwise)


def _within_cells(spectrum_N: np.ndarray) -> np.ndarray:
    """Return the share that each step has of its cell (N,)."""
    total_K = np.bincount(spectra.cells(), spectrum_N, CELLS)
    return np.asarray(spectrum_N / np.where(total_K > 0, total_K, 1)[spectra.cells()])


SETTLING = 3
"""Rounds in which the values beside the largest, and all others, share a cell."""
PARTS = 8
"""Of a step, in which the largest of a block is quantised by its own scale."""


def mx(largest_exponent: int) -> Callable[[np.ndarray, float], np.ndarray]:
    """Return the scales of OCP MX for elements of that largest exponent: powers of two."""
    return lambda largest, peak: 2.0 ** (np.floor(np.log2(largest)) - largest_exponent)


def nvfp4(largest: np.ndarray, peak: float) -> np.ndarray:
    """Return the scales of NVFP4: those of blocks in e4m3 over that of the tensor; 0 where e4m3 holds none so small."""
    tensor = (peak or 1.0) / (E4M3.largest * E2M1.largest)
    return np.asarray(E4M3.nearest(largest / E2M1.largest / tensor) * tensor)


FORMATS: Mapping[str, Format] = {
    "absmax": PerTensor(INT8, lambda window: window.peak / INT8.largest),
    "row_wise": PerToken(INT8),
    "zeropoint": PerTensor(ENDLESS, lambda window: (window.high - window.low) / 254),
    "zeropoint_vector": asymmetric_per_token,
    "w8a8_static": static,
    "int4": PerToken(INT4),
    "fp8_tensor": PerTensor(E4M3, lambda window: window.peak / E4M3.largest),
    "fp8_token": PerToken(E4M3),
    "mxfp8": Blocks(32, E4M3, mx(8)),
    "mxfp4": Blocks(32, E2M1, mx(2)),
    "nvfp4": Blocks(16, E2M1, nvfp4),
}
"""What is predicted, by the names of DEFINITIONS; X of `vector_wise` is that of `row_wise`."""
