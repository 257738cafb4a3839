"""Outlier channels: which channels of which tensor are outlier features, by definition, for those who quantise.

The form is that of resources/schemas/outlier_channels.json, which says what each key means.
"""

# Shapes: S sequence, C channel, K outlier channel.

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from outlier_features.errors import ConfigError
from outlier_features.metrics.criteria import Criterion
from outlier_features.statistics.shards import BlockTable, SiteTable
from outlier_features.thresholds import round_to_bfloat16


class OutlierChannels:
    """Collects, block by block, where the outlier channels of one criterion hit."""

    def __init__(self, criterion: Criterion, features: pd.DataFrame, gap: str | None) -> None:
        """Take the channels from the table of outlier `features` of a model; `gap` says why there is no answer."""
        own = features[features["definition"] == criterion.name].drop_duplicates("channel").sort_values("channel")
        self._criterion, self._gap = criterion, gap
        self._channels = own["channel"].to_numpy()
        self._qualifying = own["sequence_count"].to_numpy()
        self._tensors: list[dict[str, Any]] = []

    def add(self, block: int, table: BlockTable, readers: Mapping[str, Sequence[str]]) -> None:
        """Take in one block; `readers` are the matrices that read each of its sites."""
        if len(self._channels):
            for name in self._criterion.definition.sites:
                entries = self._entries(table.site(name))
                if entries:
                    modules = list(readers.get(name, ()))
                    self._tensors.append({"block": block, "site": name, "modules": modules, "channels": entries})

    def result(self) -> dict[str, Any]:
        """Return the criterion, its channels, and the tensors they hit; null for these where there is no answer."""
        definition = self._criterion.definition
        return {
            "threshold": definition.threshold,
            "threshold_unit": "rms" if self._criterion.relative else "absolute",
            "min_layers": definition.min_layers,
            "min_positions": definition.min_positions,
            "sites": list(definition.sites),
            "scope": definition.scope,
            "rounding": "bfloat16" if self._criterion.rounded else None,
            "gap": self._gap,
            "channels": None if self._gap else self._channels.tolist(),
            "tensors": None if self._gap else self._tensors,
        }

    def _entries(self, site: SiteTable) -> list[dict[str, Any]]:
        """Return what each outlier channel that hits a tensor does there."""
        criterion, hits = self._criterion, site.hits
        if hits is None:
            raise ConfigError(f"hits were not counted for {criterion.name} in this capture; capture again with it.")
        reached_SC = hits.reaching(
            criterion.definition.threshold, relative=criterion.relative, rounded=criterion.rounded
        )
        count_K, value_K = reached_SC[:, self._channels].sum(0), self._largest(site)
        positions = int(site.statistics.lengths.sum())
        return [
            {
                "channel": int(channel),
                "max_abs": abs(float(value)),
                "max_value": float(value),
                "position_share": int(count) / positions,
                "qualifying_sequences": int(qualifying),
            }
            for channel, value, count, qualifying in zip(
                self._channels, value_K, count_K, self._qualifying, strict=True
            )
            if count
        ]

    def _largest(self, site: SiteTable) -> np.ndarray:
        """Return of each outlier channel the activation of the largest magnitude, with its sign (K,)."""
        first_SK = site.matrix("first")[:, self._channels]
        high_K = np.maximum(first_SK, site.matrix("max")[:, self._channels]).max(0)
        low_K = np.minimum(first_SK, site.matrix("min")[:, self._channels]).min(0)
        value_K = np.where(high_K >= -low_K, high_K, low_K)
        return round_to_bfloat16(value_K) if self._criterion.rounded else value_K
