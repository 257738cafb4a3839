"""GPU record: where the results of one site tensor lie in one buffer, and how the host reads them."""

# Shapes: T position, C channel.

from dataclasses import dataclass

import numpy as np

from outlier_features.errors import ConfigError
from outlier_features.kernels import reference
from outlier_features.kernels.cpu import filled
from outlier_features.kernels.reference import Columns
from outlier_features.magnitude_bins import CELLS, SPREADS

MASSIVE_ROOM = 8
"""Massive activations that are kept, as a multiple of the number of positions; published models have a handful."""


@dataclass(frozen=True)
class Record:
    """Where the results of one site tensor lie, in 8 bytes a number, then in 4."""

    positions: int
    channels: int
    levels: tuple[int, int] = (0, 0)
    """Thresholds of the absolute and of the relative grid; 0 where hits are not counted."""
    massive: int = 0
    """Room for massive activations; 0 without medians."""
    first: int = 1
    """Rows of position 0."""
    spread: bool = False
    """Whether magnitudes are counted."""

    @property
    def wide(self) -> int:
        """Numbers of 8 bytes: sums of x, x^2, x^4 a channel, sum of x^3, RMS, median."""
        return 3 * self.channels + 3

    @property
    def narrow(self) -> int:
        """Numbers of 4 bytes."""
        return self.spread_at + self.spread * self.cells + 2 * self.massive

    @property
    def spread_at(self) -> int:
        """Where among those the counts of magnitudes lie, after the hits."""
        return (self.first + 2) * self.channels + 5 * self.positions + 3 + self.channels * sum(self.levels)

    @property
    def cells(self) -> int:
        """Counts of magnitudes: two token classes, three kinds."""
        return 2 * len(SPREADS) * CELLS

    @property
    def size(self) -> int:
        """Numbers of 8 bytes that hold everything."""
        return self.wide + (self.narrow + 1) // 2

    def columns(self, content: np.ndarray) -> Columns:
        """Return what the kernels wrote (float64, of this size) by the names of a shard."""
        positions, channels = self.positions, self.channels
        real = content[self.wide :].view(np.float32)[: self.narrow]
        whole = real.view(np.int32)
        sum_C, sum_2_C, sum_4_C = content[: 3 * channels].reshape(3, channels)
        begin = (self.first + 2) * channels
        max_C, min_C = real[begin - 2 * channels : begin].reshape(2, channels)
        of_T = slice(begin, begin + 5 * positions)
        max_abs_T, rms_T, kurtosis_T, mmr_T, _ = real[of_T].reshape(5, positions)
        rest = whole[of_T.stop :]
        found: Columns = {
            "first": real[: self.first * channels],
            "max": max_C,
            "min": min_C,
            "sum": sum_C,
            "sum_2": sum_2_C,
            "sum_4": sum_4_C,
            "sum_3": float(content[3 * channels]),
            "rms": float(content[3 * channels + 1]),
            "position_max_abs": max_abs_T,
            "position_channel": whole[of_T].reshape(5, positions)[4],
            "position_rms": rms_T,
            "position_kurtosis": kurtosis_T,
            "nan_count": int(rest[0]),
            "inf_count": int(rest[1]),
            "first_rows": self.first,
        }
        if any(self.levels):
            absolute, relative = (channels * levels for levels in self.levels)
            counts = rest[3 : 3 + absolute], rest[3 + absolute : 3 + absolute + relative]
            tables = (count.reshape(channels, -1) for count in counts)
            found |= reference.hit_columns(*(filled(table) for table in tables))
        if self.massive:
            found |= {"median_abs": float(content[3 * channels + 2]), "mmr": mmr_T}
            found |= self._massive(rest[-2 * self.massive :], int(rest[2]))
        if self.spread:
            cells = whole[self.spread_at : self.spread_at + self.cells]
            found |= {"mmr": mmr_T} | reference.spread_columns(cells.reshape(2, len(SPREADS), CELLS))
        return found

    def _massive(self, listed: np.ndarray, count: int) -> Columns:
        if count > self.massive:
            raise ConfigError(
                f"a hidden state of {self.positions} positions has {count} massive activations, more than the "
                f"{self.massive} there is room for on a GPU; leave residual out of capture.sites, or capture on a CPU."
            )
        place, value = listed[: self.massive][:count], listed[self.massive :].view(np.float32)[:count]
        order = np.lexsort((place, -np.abs(value)))  # programs came to the list in any order
        position, channel = np.divmod(place[order], self.channels)
        return {
            "massive_position": position.astype(np.int32),
            "massive_channel": channel.astype(np.int32),
            "massive_value": value[order],
        }
