"""Quantisers: the error that each format makes of an activation, predicted from what is kept of its windows.

Position 0 is kept value by value, so its error is exact. Elsewhere the true staircase of the format is integrated over
the spectrum of magnitudes: nothing is assumed of the size of its steps. What has to be assumed is told at each format.
"""

# Shapes: N step of a spectrum, U step of a magnitude in units of its scale, F row of position 0, T row of the rest,
# C channel, K and J cell of a block's largest and of its other magnitudes, B block of channels, P scale.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr

from outlier_features.magnitude_bins import CELLS, EDGES
from outlier_features.metrics import spectra
from outlier_features.metrics.kept_windows import KeptWindow
from outlier_features.metrics.spectra import OCTAVE, STEPS


@dataclass(frozen=True)
class Grid:
    """The numbers that a quantised value may have in units of its scale: these and their negatives."""

    levels: tuple[float, ...]
    """From 0 up, ascending. Values round to the nearest, and beyond the last to that."""

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
        last = STEPS + int(np.ceil(OCTAVE * np.log2(self.levels[-1]))) - 1
        return np.where(np.arange(2 * STEPS) > last, self.steps[last], self.steps)


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


def summed(spectrum_N: np.ndarray, steps_U: np.ndarray, scale_P: np.ndarray, shift_P: np.ndarray) -> float:
    """Return the summed squared error of a spectrum that is there once for each scale, moved by so many steps."""
    used = np.flatnonzero(spectrum_N > 0)
    if not len(used) or not len(scale_P):
        return 0.0
    place_P = spectra.place_of(scale_P) - shift_P
    begin, end = used[0], used[-1] + 1
    nodes = np.arange(np.floor(place_P.min()), np.ceil(place_P.max()) + 1).astype(int)
    units = np.clip(STEPS + np.arange(begin, end) - nodes[:, None], 0, 2 * STEPS - 1)
    return float(np.interp(place_P, nodes, steps_U[units] @ spectrum_N[begin:end]) @ scale_P**2)


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
        parts = window.all_N, _without(window.all_N, window.top_N)
        whole, rest = (summed(part, self.grid.steps_within, np.array([step]), np.zeros(1)) for part in parts)
        return Errors(self.grid.error(window.first_FC / step) * step**2, whole, rest)


@dataclass(frozen=True)
class PerToken:
    """One scale a row, its largest |x|, exactly known, over what represents that |x| without error.

    The other values of a row are taken for those of all rows, made larger or smaller as its median is.
    """

    grid: Grid

    def __call__(self, windows: list[KeptWindow]) -> list[Errors]:
        """Return the errors of each window."""
        return [self._errors(window) for window in windows]

    def _errors(self, window: KeptWindow) -> Errors:
        steps_T = window.largest_T / self.grid.levels[-1]
        used = steps_T > 0
        not_largest = 1 - (window.largest_channel_T == window.top).mean()
        parts = window.unlike_largest_N, _without(window.unlike_largest_N, not_largest * window.top_N)
        whole, rest = (
            summed(of_row(window, part), self.grid.steps_within, steps_T[used], window.shift_T[used]) for part in parts
        )
        first_F1 = np.abs(window.first_FC).max(1, keepdims=True) / self.grid.levels[-1]
        first_F1[first_F1 == 0] = 1.0
        return Errors(self.grid.error(window.first_FC / first_F1) * first_F1**2, whole, rest)


def of_row(window: KeptWindow, spectrum_N: np.ndarray) -> np.ndarray:
    """Return the spectrum of one middle row (N,)."""
    return spectra.sharpened(spectrum_N / window.rows, window.shift_T)


def asymmetric_per_token(windows: list[KeptWindow]) -> list[Errors]:
    """Predict asymmetric int8 with a range of each row: its largest |x|, kept, and the largest on the other side.

    The other side is taken for where 0.69 values of a row lie beyond, the median of a largest.
    """
    return [_asymmetric_per_token(window) for window in windows]


def _asymmetric_per_token(window: KeptWindow) -> Errors:
    row_N = of_row(window, window.unlike_largest_N)
    is_high_T = (window.high_C >= -window.low_C)[window.largest_channel_T]
    other_T = np.where(is_high_T, _side(row_N * (1 - window.positive_N)), _side(row_N * window.positive_N))
    other_T = np.where(np.isinf(other_T), 0, other_T * 2.0 ** (window.shift_T / OCTAVE))
    ends = (max(-float(window.low_C.min()), 0), max(float(window.high_C.max()), 0))
    other_T = np.minimum(np.minimum(other_T, window.largest_T), np.where(is_high_T, *ends))
    steps_T = (window.largest_T + other_T) / 254
    used = steps_T > 0
    parts = window.all_N, _without(window.all_N, window.top_N)
    whole, rest = (
        summed(of_row(window, part), ENDLESS.steps_within, steps_T[used], window.shift_T[used]) for part in parts
    )
    step_F1 = np.ptp(window.first_FC, axis=1, keepdims=True) / 254
    step_F1[step_F1 == 0] = 1.0
    return Errors(ENDLESS.error(window.first_FC / step_F1) * step_F1**2, whole, rest)


def _side(side_N: np.ndarray) -> float:
    """Return the median of the largest of a row's magnitudes on one side, infinite where it has none."""
    beyond_N = side_N[::-1].cumsum()[::-1]
    found = np.flatnonzero(beyond_N >= np.log(2))
    if not len(found):
        return np.inf
    last = found[-1]
    part = (beyond_N[last] - np.log(2)) / side_N[last] if side_N[last] > 0 else 0.0
    return float(spectra.magnitude_of(last + min(part, 1.0)))


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


def _end(window: KeptWindow, sign: int) -> float:
    """Return the 99.999 percentile of a window's values times `sign`; 0 where it would be negative."""
    share_N = window.positive_N if sign > 0 else 1 - window.positive_N
    first = sign * window.first_FC.ravel()
    side_N = window.all_N * share_N + spectra.of_values(first[first > 0])
    wanted = (window.rows * window.channels + first.size - 1) * TAIL + 0.5
    beyond_N = side_N[::-1].cumsum()[::-1]
    found = np.flatnonzero(beyond_N >= wanted)
    if not len(found):
        return 0.0
    part = (beyond_N[found[-1]] - wanted) / side_N[found[-1]]
    return float(spectra.magnitude_of(found[-1] + min(part, 1.0)))


def _static(window: KeptWindow, low: float, high: float) -> Errors:
    """Return the errors of one window with values from -`low` to `high`."""
    step = (high + low) / 255 or 1.0
    middle_N = spectra.magnitude_of(np.arange(STEPS) + 0.5)

    def error(spectrum_N: np.ndarray) -> float:
        total = 0.0
        for end, share_N in ((high, window.positive_N), (low, 1 - window.positive_N)):
            side_N, is_inside_N = spectrum_N * share_N, middle_N <= end
            total += summed(side_N * is_inside_N, ENDLESS.steps_within, np.array([step]), np.zeros(1))
            total += float((side_N * ~is_inside_N) @ (middle_N - end) ** 2)
        return total

    clipped_FC = np.clip(np.round(window.first_FC / step) * step, -low, high)
    without = error(_without(window.all_N, window.top_N))
    return Errors((window.first_FC - clipped_FC) ** 2, error(window.all_N), without)


@dataclass(frozen=True)
class Blocks:
    """One scale for so many neighbouring channels of a row, from their largest |x|, counted by half octaves.

    Which other magnitudes a block has is taken from how often each is there: the pairs are the nearest to independent
    channels of the known RMS that have both counts as margins (iterative proportional fitting).
    """

    size: int
    grid: Grid
    scale: Callable[[np.ndarray, float], np.ndarray]
    """From the largest |x| of blocks and that of all."""

    def __call__(self, windows: list[KeptWindow]) -> list[Errors]:
        """Return the errors of each window."""
        return [self._errors(window) for window in windows]

    def _errors(self, window: KeptWindow) -> Errors:
        largest_K = window.counts[f"block{self.size}"]
        others_K = np.maximum(window.counts["magnitudes"] - largest_K, 0)
        largest_N, others_N = window.spectrum(largest_K), window.spectrum(others_K)
        of_largest_N, of_others_N = self._by_step(window, largest_N, others_N, largest_K, others_K)
        without = _without(largest_N, window.top_N)
        whole = float(largest_N @ of_largest_N + of_others_N.sum())
        return Errors(self._first(window), whole, float(without @ of_largest_N + of_others_N.sum()))

    def _by_step(
        self,
        window: KeptWindow,
        largest_N: np.ndarray,
        others_N: np.ndarray,
        largest_K: np.ndarray,
        others_K: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean error of the largest of a block in each step (N,), and the error of the others by scale."""
        cell_N = spectra.cells()
        blocks, values = np.flatnonzero(largest_N > 0), np.flatnonzero(others_N > 0)
        of_largest_N = np.zeros(STEPS)
        if not len(blocks):
            return of_largest_N, np.zeros(1)
        middle = spectra.magnitude_of(blocks + 0.5)
        scale = self.scale(middle, window.peak)
        place = spectra.place_of(np.where(scale > 0, scale, spectra.HUGE))
        of_largest_N[blocks] = self._mean(blocks, place) * spectra.magnitude_of(place) ** 2
        if not len(values):
            return of_largest_N, np.zeros(1)
        pairs_KJ = _pairs(window, self.size, largest_K, others_K)
        share_K, share_J = (_within_cells(each) for each in (largest_N, others_N))
        counts = pairs_KJ[np.ix_(cell_N[blocks], cell_N[values])] * share_K[blocks][:, None] * share_J[values]
        errors = self._mean(values, place[:, None]) * spectra.magnitude_of(place)[:, None] ** 2
        return of_largest_N, (counts * errors).sum(1)

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
        units = blocks / np.where(scale == 0, spectra.HUGE, scale)
        error = np.where(scale == 0, blocks**2, self.grid.error(units) * scale**2)
        return np.asarray(error.reshape(rows, -1)[:, :channels])


def _within_cells(spectrum_N: np.ndarray) -> np.ndarray:
    """Return the share that each step has of its cell (N,)."""
    total_K = np.bincount(spectra.cells(), spectrum_N, CELLS)
    return np.asarray(spectrum_N / np.where(total_K > 0, total_K, 1)[spectra.cells()])


ROUNDS = 30


def _pairs(window: KeptWindow, size: int, largest_K: np.ndarray, others_K: np.ndarray) -> np.ndarray:
    """Return how often a value of one cell is in a block whose largest is of another (K, J)."""
    blocks = -(-window.channels // size)
    rows_K = largest_K * (window.channels / blocks - 1)
    pairs_KJ = _independent(window, size)
    for _ in range(ROUNDS):
        for margin_K, axis in ((rows_K, 1), (others_K, 0)):
            total_K = pairs_KJ.sum(axis, keepdims=True)
            pairs_KJ = pairs_KJ * np.expand_dims(margin_K, axis) / np.where(total_K > 0, total_K, 1)
    return pairs_KJ


def _independent(window: KeptWindow, size: int) -> np.ndarray:
    """Return the share of each pair (K, J), were channels independent and normal, each of its RMS."""
    rms_C = np.sqrt(np.maximum(window.sum_2_C / window.rows, 1e-300))
    edges_J = np.append(EDGES, np.inf)
    below_CJ = 2 * ndtr(edges_J / rms_C[:, None]) - 1
    starts = np.arange(0, window.channels, size)
    below_BJ = np.exp(np.add.reduceat(np.log(np.maximum(below_CJ, 1e-300)), starts))
    largest_BJ = np.diff(below_BJ, axis=1, prepend=0)
    others_BJ = np.add.reduceat(np.diff(below_CJ, axis=1, prepend=0), starts)
    up_to_BJ = np.maximum(others_BJ.cumsum(1), 1e-30)
    pairs_KJ = np.zeros((CELLS, CELLS))
    pairs_KJ[1:, 1:] = (largest_BJ / up_to_BJ).T @ others_BJ
    pairs_KJ[:, 0] = 1e-3 * pairs_KJ.sum(1)
    return np.asarray(np.tril(pairs_KJ + 1e-9))  # nothing in a block is larger than its largest


def mx(largest_exponent: int) -> Callable[[np.ndarray, float], np.ndarray]:
    """Return the scales of OCP MX for elements of that largest exponent: powers of two."""
    return lambda largest, peak: 2.0 ** (np.floor(np.log2(largest)) - largest_exponent)


def nvfp4(largest: np.ndarray, peak: float) -> np.ndarray:
    """Return the scales of NVFP4: those of blocks in e4m3 over that of the tensor; 0 where e4m3 holds none so small."""
    tensor = (peak or 1.0) / (448 * 6)
    return np.asarray(E4M3.nearest(largest / 6 / tensor) * tensor)


FORMATS: Mapping[str, Format] = {
    "absmax": PerTensor(INT8, lambda window: window.peak / 127),
    "row_wise": PerToken(INT8),
    "zeropoint": PerTensor(ENDLESS, lambda window: (window.high - window.low) / 254),
    "zeropoint_vector": asymmetric_per_token,
    "w8a8_static": static,
    "int4": PerToken(INT4),
    "fp8_tensor": PerTensor(E4M3, lambda window: window.peak / 448),
    "fp8_token": PerToken(E4M3),
    "mxfp8": Blocks(32, E4M3, mx(8)),
    "mxfp4": Blocks(32, E2M1, mx(2)),
    "nvfp4": Blocks(16, E2M1, nvfp4),
}
"""What is predicted, by the names of DEFINITIONS; X of `vector_wise` is that of `row_wise`."""
