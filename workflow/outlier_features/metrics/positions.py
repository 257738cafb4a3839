"""Positions: where along the window large activations stand."""

# Shapes: S sequence, T position.

from collections.abc import Collection

import numpy as np
import pandas as pd

from outlier_features.artefacts import ragged
from outlier_features.site_names import POSITIONAL
from outlier_features.statistics.shards import SiteTable, Statistics

COLUMNS = {
    "site": "string",
    "position": "int32",
    "windows": "int32",
    "hit_share": "float64",
    "outlier_share": "float64",
    "max_abs": "float64",
    "mean_max_abs": "float64",
    "rms": "float64",
}
"""Columns of the table of positions, one row per site and position.

Over all blocks and windows that are so long: `hit_share` is the share of hidden states whose largest |x| reaches the
threshold, `outlier_share` the share where moreover the channel of that largest |x| is an outlier feature; `max_abs` and
`mean_max_abs` are maximum and mean of the largest |x|, `rms` the root mean square of all values.
"""


def positions(statistics: Statistics, hit_threshold: float, outlier_channels: Collection[int]) -> pd.DataFrame:
    """Return what every site with one row a position holds at each, with COLUMNS."""
    sums: dict[str, _Sums] = {}
    for block in range(statistics.blocks):
        table = statistics.block(block)
        for name in (site for site in table.sites if site in POSITIONAL):
            sums.setdefault(name, _Sums(statistics)).add(table.site(name), hit_threshold, outlier_channels)
    parts = [found.table(site) for site, found in sums.items()]
    return pd.concat([pd.DataFrame(columns=list(COLUMNS)), *parts], ignore_index=True).astype(COLUMNS)


class _Sums:
    """What is added up over the blocks of one site."""

    def __init__(self, statistics: Statistics) -> None:
        longest = int(statistics.lengths.max())
        self._windows_T = (statistics.lengths[:, None] > np.arange(longest)).sum(0)
        self._blocks = 0
        self._added = {name: np.zeros(longest) for name in ("hits", "outlier_hits", "largest", "squares")}
        self._peak_T = np.zeros(longest)

    def add(self, site: SiteTable, threshold: float, outlier_channels: Collection[int]) -> None:
        """Take in one block."""
        peak_ST = ragged.rectangle(site.rows["position_max_abs"], np.nan).astype(np.float64)
        channel_ST = ragged.rectangle(site.rows["position_channel"], -1)
        rms_ST = ragged.rectangle(site.rows["position_rms"], np.nan).astype(np.float64)
        hit_ST = peak_ST >= threshold
        self._added["hits"] += hit_ST.sum(0)
        self._added["outlier_hits"] += (hit_ST & np.isin(channel_ST, list(outlier_channels))).sum(0)
        self._added["largest"] += np.nansum(peak_ST, 0)
        self._added["squares"] += np.nansum(rms_ST**2, 0)
        self._peak_T = np.fmax(self._peak_T, np.fmax.reduce(peak_ST, axis=0))
        self._blocks += 1

    def table(self, site: str) -> pd.DataFrame:
        """Return the rows of the site."""
        mean = {name: total / (self._blocks * self._windows_T) for name, total in self._added.items()}
        return pd.DataFrame(
            {
                "site": site,
                "position": np.arange(len(self._peak_T)),
                "windows": self._windows_T,
                "hit_share": mean["hits"],
                "outlier_share": mean["outlier_hits"],
                "max_abs": self._peak_T,
                "mean_max_abs": mean["largest"],
                "rms": np.sqrt(mean["squares"]),
            }
        )
