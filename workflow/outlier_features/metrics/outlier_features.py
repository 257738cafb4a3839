"""Outlier features: the definitions of the literature, evaluated from statistics for any threshold of the grid."""

# Shapes: N tensor (one block and site), S sequence, C channel, G grid value.

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from outlier_features.metrics.criteria import Gap
from outlier_features.metrics.evidence import Evidence, largest
from outlier_features.metrics.shares import Shares, shares_over
from outlier_features.thresholds import level

FEATURE_COLUMNS = {
    "definition": "string",
    "sequence": "Int32",
    "channel": "int32",
    "layer_share": "float64",
    "position_share": "float64",
    "position_share_mean": "float64",
    "max_abs": "float64",
    "max_value": "float64",
    "hit_count": "int64",
    "one_sided": "bool",
    "quartile_1": "float64",
    "quartile_2": "float64",
    "quartile_3": "float64",
    "quartile_step": "float64",
    "sequence_count": "int32",
    "layers": "object",
}
"""Columns of the table of outlier features, one row per feature, definition and (where it is not pooled) sequence.

`max_value` is the activation of the largest magnitude; `quartile_1..3` those of the magnitudes of the hits, read off
the grid (linear between its values), in RMS for a twin; `quartile_step` is how far off one of them can be: the widest
stretch of the grid in which one lies, wide where hits are few (`hit_count`) or large; `sequence_count` in how many
sequences the channel qualifies; `layers` the tensors it hits, as `block.site`.
"""

CHANNEL_COLUMNS = {
    "definition": "string",
    "block": "int32",
    "site": "string",
    "channel": "int32",
    "hit_count": "int64",
    "max_abs": "float64",
    "max_value": "float64",
    "is_outlier": "bool",
}
"""Columns of the table of channels: every tensor and channel with a hit under a pooled definition."""


def features(found: Evidence | Gap) -> pd.DataFrame:
    """Return the outlier features of one criterion, with FEATURE_COLUMNS."""
    rows: list[dict[str, Any]] = []
    if isinstance(found, Evidence):
        each = [shares_over(found, [sequence]) for sequence in found.everything]
        sequence_count_C = np.sum([shares.qualifies for shares in each], axis=0)
        pooled = found.criterion.pooled
        scopes = [(None, found.everything)] if pooled else [(sequence, [sequence]) for sequence in found.everything]
        for sequence, members in scopes:
            shares = shares_over(found, members) if pooled else each[members[0]]
            for channel in np.flatnonzero(shares.qualifies):
                row = {"sequence": sequence, "sequence_count": sequence_count_C[channel]}
                rows.append(row | _feature(found, shares, members, int(channel)))
    return pd.DataFrame(rows, columns=list(FEATURE_COLUMNS)).astype(FEATURE_COLUMNS)


def channels(found: Evidence | Gap) -> pd.DataFrame:
    """Return every tensor and channel with a hit under one pooled criterion, with CHANNEL_COLUMNS."""
    parts = [pd.DataFrame(columns=list(CHANNEL_COLUMNS)).astype(CHANNEL_COLUMNS)]
    if isinstance(found, Evidence) and found.criterion.pooled:
        is_outlier_C = shares_over(found, found.everything).qualifies
        for (block, site), hits_SC, high_SC, low_SC in zip(
            found.tensors, found.hits_NSC, found.high_NSC, found.low_NSC, strict=True
        ):
            hit = np.flatnonzero(hits_SC.sum(0))
            value = largest(high_SC[:, hit].max(0), low_SC[:, hit].min(0))
            columns = {
                "definition": found.criterion.name,
                "block": block,
                "site": site,
                "channel": hit,
                "hit_count": hits_SC.sum(0)[hit],
                "max_abs": np.abs(value),
                "max_value": value,
                "is_outlier": is_outlier_C[hit],
            }
            parts.append(pd.DataFrame(columns).astype(CHANNEL_COLUMNS))
    return pd.concat(parts, ignore_index=True)


def _feature(found: Evidence, shares: Shares, members: Sequence[int], channel: int) -> dict[str, Any]:
    hits_N = found.hits_NSC[:, members, channel].sum(1)
    value = largest(found.high_NSC[:, members, channel].max(), found.low_NSC[:, members, channel].min())
    peak = float((np.abs(_either(found, members, channel)) * found.scale_NS[:, members]).max())
    quartiles, step = _quartiles(found.levels_SCG[members, channel].sum(0), found, peak)
    return {
        "definition": found.criterion.name,
        "channel": channel,
        "layer_share": shares.layer[channel],
        "position_share": shares.position[channel],
        "position_share_mean": shares.position_mean[channel],
        "max_abs": abs(float(value)),
        "max_value": float(value),
        "hit_count": hits_N.sum(),
        "one_sided": found.sides(members, channel) == 1,
        **{f"quartile_{k}": quartile for k, quartile in zip((1, 2, 3), quartiles, strict=True)},
        "quartile_step": step,
        "layers": [f"{block}.{site}" for (block, site), hits in zip(found.tensors, hits_N, strict=True) if hits],
    }


def _either(found: Evidence, members: Sequence[int], channel: int) -> np.ndarray:
    """Return per tensor and sequence the activation of the largest magnitude."""
    return largest(found.high_NSC[:, members, channel], found.low_NSC[:, members, channel])


def _quartiles(levels_G: np.ndarray, found: Evidence, peak: float) -> tuple[np.ndarray, float]:
    """Return the quartiles of the magnitudes of the hits, linear between the values of the grid, and how coarse.

    A quartile lies between two hits, so between the ends of the stretches of the grid in which these lie.
    """
    threshold = found.criterion.definition.threshold
    start = level(threshold, found.grid, round_to_bfloat16=found.criterion.rounded)
    counts, edges = levels_G[start + 1 :], np.array([threshold, *found.grid[start + 1 :], np.inf])
    filled = int(np.flatnonzero(counts)[-1]) + 1
    reached = np.concatenate([[0], np.cumsum(counts[:filled])])
    edges = np.append(edges[:filled], max(peak, edges[filled - 1]))
    share = np.array([0.25, 0.5, 0.75])
    between = [np.searchsorted(reached[1:], side(share * (reached[-1] - 1)), "right") for side in (np.floor, np.ceil)]
    step = float((edges[between[1] + 1] - edges[between[0]]).max())
    return np.interp(share * reached[-1], reached, edges), step
