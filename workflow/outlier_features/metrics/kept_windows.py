"""Kept windows: what a capture keeps of one window at one matrix input, as far as the error of a format follows from it.

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
        """Rows without those of position 0."""
        return len(self.largest_T)

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
    def peak_C(self) -> np.ndarray:
        """The largest |x| of each channel over the rest (C,)."""
        return np.maximum(np.maximum(self.high_C, -self.low_C), 0)

    @cached_property
    def top(self) -> int:
        """The channel of the largest |x| of all."""
        return int(np.maximum(self.peak_C, np.abs(self.first_FC).max(0, initial=0)).argmax())

    @cached_property
    def _own_spectra(self) -> dict[int, np.ndarray]:
        """The spectra of the channels that stand out, and that of the largest."""
        chosen = np.union1d(np.argsort(-self.sum_2_C, kind="stable")[:STANDING_OUT], [self.top])
        mean, square = self.sum_C[chosen] / self.rows, self.sum_2_C[chosen] / self.rows
        own = spectra.of_channels(mean, square, self.low_C[chosen], self.high_C[chosen])
        return dict(zip(chosen.tolist(), self.rows * own, strict=True))

    @property
    def top_N(self) -> np.ndarray:
        """The spectrum of the largest channel over the rest."""
        return self._own_spectra[self.top]

    @cached_property
    def known_N(self) -> np.ndarray:
        """The spectrum of all channels that stand out, over the rest."""
        return np.sum([*self._own_spectra.values()], axis=0)

    def spectrum(self, counts_K: np.ndarray) -> np.ndarray:
        """Return the spectrum of some magnitudes of the rest (N,)."""
        return spectra.of_counts(counts_K, float(self.peak_C.max()), self.known_N)

    @cached_property
    def all_N(self) -> np.ndarray:
        """The spectrum of the rest."""
        return self.spectrum(self.counts["magnitudes"])

    @cached_property
    def unlike_largest_N(self) -> np.ndarray:
        """The spectrum of the rest without the largest value of every row."""
        largest_K = np.bincount(cell_of(self.largest_T), minlength=CELLS)
        return self.spectrum(np.maximum(self.counts["magnitudes"] - largest_K, 0))

    @cached_property
    def shift_T(self) -> np.ndarray:
        """How far the bulk of each row lies from that of a middle one, in steps: by its median, or its RMS."""
        with np.errstate(divide="ignore", invalid="ignore"):
            median_T = self.largest_T / self.mmr_T
            bulk_T = median_T if np.all((median_T > 0) & np.isfinite(median_T)) else self.rms_T
            places_T = spectra.place_of(bulk_T)
        finite = np.isfinite(places_T)
        middle = np.median(places_T[finite]) if finite.any() else 0.0
        return np.where(finite, places_T - middle, 0.0)

    @cached_property
    def positive_N(self) -> np.ndarray:
        """The share of the values in each step that are positive, by how many channels reach it on either side."""
        bounds_N = spectra.magnitude_of(np.arange(spectra.STEPS))
        high, low = (
            len(each) - np.searchsorted(np.sort(each), bounds_N) for each in (self.high_C, -self.low_C)
        )  # channels that reach it
        return np.divide(high, high + low, out=np.full(spectra.STEPS, 0.5), where=high + low > 0)


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
    return KeptWindow(
        first_FC=first_FC,
        high_C=wide["max"],
        low_C=wide["min"],
        sum_C=wide["sum"],
        sum_2_C=wide["sum_2"],
        largest_T=wide["position_max_abs"][rest],
        largest_channel_T=np.asarray(lists["position_channel"])[rest],
        rms_T=wide["position_rms"][rest],
        mmr_T=wide["mmr"][rest],
        counts=counts,
    )
