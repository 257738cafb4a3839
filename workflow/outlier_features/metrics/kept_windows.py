"""Kept windows: what a capture keeps of one window at one matrix input, as far as errors of formats follow from it.

Position 0 is kept value by value; of the rest, the magnitudes by half octaves, of every row the largest, the median and
the RMS, of every channel the extremes, the sum and the sum of squares.
"""

# Shapes: F row of position 0, T row of the rest, C channel, N step of a spectrum, K cell of magnitude_bins.

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from outlier_features.magnitude_bins import CELLS, SPREADS, cell_of
from outlier_features.metrics import spectra
from outlier_features.metrics.channel_blocks import ChannelBlocks, channel_blocks
from outlier_features.statistics.shards import SiteTable

STANDING_OUT = 16
"""Channels of the largest energy that get a spectrum of their own."""
NEEDED = ("mmr", "first_rows", *(f"{name}_rest" for name in SPREADS))
"""Columns that older captures, and sites that no matrix reads, have without values."""
_LISTS = ("first", "max", "min", "sum", "sum_2", "position_max_abs", "position_channel", "position_rms", "mmr")


@dataclass(frozen=True)
class KeptWindow:
    """What is kept of one window."""

    first_FC: np.ndarray
    high_C: np.ndarray
    low_C: np.ndarray
    sum_C: np.ndarray
    sum_2_C: np.ndarray
    largest_T: np.ndarray
    largest_channel_T: np.ndarray
    rms_T: np.ndarray
    mmr_T: np.ndarray
    counts: Mapping[str, np.ndarray]
    """Of each of SPREADS over the rest (K,)."""

    @property
    def channels(self) -> int:
        """Channels of this tensor."""
        return len(self.high_C)

    @property
    def rows(self) -> int:
        """Rows without those of position 0, at least one: a row of zeros moves nothing."""
        return max(1, len(self.largest_T))

    @cached_property
    def high(self) -> float:
        """The largest value of all."""
        return float(max(self.first_FC.max(initial=-np.inf), self.high_C.max()))

    @cached_property
    def low(self) -> float:
        """The smallest value of all."""
        return float(min(self.first_FC.min(initial=np.inf), self.low_C.min()))

    @property
    def peak(self) -> float:
        """The largest |x| of all."""
        return max(self.high, -self.low)

    @cached_property
    def channel_peaks(self) -> np.ndarray:
        """The largest |x| of each channel over the rest (C,)."""
        return np.maximum(np.maximum(self.high_C, -self.low_C), 0)

    @cached_property
    def rest_peak(self) -> float:
        """The largest |x| of the rest."""
        return float(self.channel_peaks.max())

    @cached_property
    def top(self) -> int:
        """The channel of the largest |x| of all."""
        return int(np.maximum(self.channel_peaks, np.abs(self.first_FC).max(0, initial=0)).argmax())

    @cached_property
    def _chosen(self) -> np.ndarray:
        """The channels that stand out, and that of the largest |x|."""
        return np.union1d(np.argsort(-self.sum_2_C, kind="stable")[:STANDING_OUT], [self.top])

    @cached_property
    def _own_by_sign(self) -> np.ndarray:
        """The spectra of the positive and the negative values of the channels that stand out, their extremes exact."""
        mean_C, square_C, low_C, high_C = (
            each[self._chosen] for each in (self.sum_C / self.rows, self.sum_2_C / self.rows, self.low_C, self.high_C)
        )
        own_2CN = max(self.rows - 2, 0) * spectra.of_channels(mean_C, square_C, low_C, high_C)
        for extreme_C in (low_C, high_C)[: self.rows]:
            for channel, value in enumerate(extreme_C):
                own_2CN[int(value < 0), channel] += spectra.of_values(np.array([abs(value)]))
        return np.asarray(own_2CN)

    @cached_property
    def own_spectra(self) -> dict[int, np.ndarray]:
        """The spectrum of each channel that stands out, over the rest."""
        return dict(zip(self._chosen.tolist(), self._own_by_sign.sum(0), strict=True))

    @property
    def top_spectrum(self) -> np.ndarray:
        """The spectrum of the largest channel over the rest."""
        return self.own_spectra[self.top]

    @cached_property
    def standing_out(self) -> np.ndarray:
        """The spectrum of all channels that stand out, over the rest."""
        return np.asarray(self._own_by_sign.sum((0, 1)))

    def spectrum(self, counts_K: np.ndarray) -> np.ndarray:
        """Return the spectrum of some magnitudes of the rest (N,)."""
        return spectra.of_counts(counts_K, self.rest_peak, self.standing_out)

    @cached_property
    def everything(self) -> np.ndarray:
        """The spectrum of the rest."""
        return self.spectrum(self.counts["magnitudes"])

    @cached_property
    def unlike_largest(self) -> np.ndarray:
        """The spectrum of the rest without the largest value of every row."""
        largest_K = np.bincount(cell_of(self.largest_T), minlength=CELLS)
        return self.spectrum(np.maximum(self.counts["magnitudes"] - largest_K, 0))

    @cached_property
    def blocks(self) -> dict[int, ChannelBlocks]:
        """The blocks of 16 and of 32 neighbouring channels, by that size."""
        magnitudes_K, rms_C = self.counts["magnitudes"], np.sqrt(self.sum_2_C / self.rows)
        return {size: channel_blocks(size, magnitudes_K, self.counts[f"block{size}"], rms_C) for size in (16, 32)}

    @cached_property
    def row(self) -> np.ndarray:
        """The spectrum of a middle row."""
        return self._row(self.everything)

    @cached_property
    def row_without_top(self) -> np.ndarray:
        """The same without the largest channel."""
        return self._row(self.without_top(self.everything))

    @cached_property
    def row_unlike_largest(self) -> np.ndarray:
        """The same of all values but the largest of a row."""
        return self._row(self.unlike_largest)

    @cached_property
    def row_unlike_largest_without_top(self) -> np.ndarray:
        """The same of all values but the largest of a row, without the largest channel."""
        share = 1 - np.count_nonzero(self.largest_channel_T == self.top) / self.rows
        return self._row(self.without_top(self.unlike_largest, share))

    def without_top(self, spectrum_N: np.ndarray, share: float | np.ndarray = 1.0) -> np.ndarray:
        """Return a spectrum without a share of the largest channel's values."""
        return np.maximum(spectrum_N - share * self.top_spectrum, 0)

    def _row(self, spectrum_N: np.ndarray) -> np.ndarray:
        return spectra.sharpened(spectrum_N / self.rows, self.shifts)

    @cached_property
    def shifts(self) -> np.ndarray:
        """How far the bulk of each row lies from that of a middle one, in steps (T,): by its median, or its RMS."""
        with np.errstate(divide="ignore", invalid="ignore"):
            medians_T, rms_T = (spectra.place_of(each) for each in (self.largest_T / self.mmr_T, self.rms_T))
        has_median_T, has_rms_T = np.isfinite(medians_T), np.isfinite(rms_T)
        if 2 * np.count_nonzero(has_median_T) > len(medians_T):
            return np.where(has_median_T, medians_T - np.median(medians_T[has_median_T]), 0.0)
        return (
            np.where(has_rms_T, rms_T - np.median(rms_T[has_rms_T]), 0.0) if has_rms_T.any() else np.zeros(len(rms_T))
        )

    @cached_property
    def positive_share(self) -> np.ndarray:
        """The share of the values of each step that are positive (N,).

        That of channels that stand out is known; of the others, it is by how many of them reach it on either side.
        """
        share_N = self._share_on_positive_side(np.arange(self.channels))
        others_N = self._share_on_positive_side(np.delete(np.arange(self.channels), self._chosen))
        share_N = np.where(np.isnan(others_N), np.nan_to_num(share_N, nan=0.5), others_N)
        rest_N = np.maximum(self.everything - self.standing_out, 0)
        known_N = self._own_by_sign.sum(1)
        whole_N = known_N.sum(0) + rest_N
        positive_N = known_N[0] + share_N * rest_N
        return np.divide(positive_N, whole_N, out=np.full(spectra.STEPS, 0.5), where=whole_N > 1e-9)

    def _share_on_positive_side(self, channels: np.ndarray) -> np.ndarray:
        """Return which share of the channels that reach a step do so on the positive side (N,); NaN where none does."""
        bounds_N = spectra.magnitude_of(np.arange(spectra.STEPS))
        ends = np.sort(self.high_C[channels]), np.sort(-self.low_C[channels])
        high_N, low_N = (len(each) - np.searchsorted(each, bounds_N) for each in ends)
        return np.divide(high_N, high_N + low_N, out=np.full(spectra.STEPS, np.nan), where=high_N + low_N > 0)


def read(site: SiteTable) -> list[KeptWindow]:
    """Return the windows of a tensor; none where the capture did not keep how its values are spread."""
    if any(site.rows[name].null_count for name in NEEDED):
        return []
    lists = {name: site.lists(name) for name in _LISTS}
    counts = {name: site.lists(f"{name}_rest") for name in SPREADS}
    return [
        _window({name: column[i] for name, column in lists.items()}, {name: each[i] for name, each in counts.items()})
        for i in range(site.rows.num_rows)
    ]


def _window(lists: Mapping[str, Any], counts: Mapping[str, np.ndarray]) -> KeptWindow:
    wide = {name: np.asarray(values, np.float64) for name, values in lists.items()}
    first_FC = wide["first"].reshape(-1, len(wide["max"]))
    rest = slice(len(first_FC), None)
    high_C, low_C = (np.where(np.isfinite(wide[name]), wide[name], 0) for name in ("max", "min"))  # of no row: infinite
    return KeptWindow(
        first_FC=first_FC,
        high_C=high_C,
        low_C=low_C,
        sum_C=wide["sum"],
        sum_2_C=wide["sum_2"],
        largest_T=wide["position_max_abs"][rest],
        largest_channel_T=np.asarray(lists["position_channel"])[rest],
        rms_T=wide["position_rms"][rest],
        mmr_T=wide["mmr"][rest],
        counts=counts,
    )
