"""Draws: what a criterion says of a model over all sequences and in each bootstrap draw of them, with intervals."""

# Shapes: S sequence, C channel, B draw, K candidate.

from typing import Any

import numpy as np
import pandas as pd

from outlier_features.metrics import intervals
from outlier_features.metrics.bootstrap import resampling_counts
from outlier_features.metrics.criteria import Gap
from outlier_features.metrics.evidence import Evidence
from outlier_features.metrics.intervals import Estimate
from outlier_features.metrics.outlier_features import features
from outlier_features.metrics.shares import pooled_shares, qualifies_in_each, shares_over

STABLE_SHARE = 0.5
"""A stable channel qualifies in at least this share of the sequences."""
ESTIMATES = (
    "outlier_count",
    "distinct_channels",
    "stable_channels",
    "mean_layer_pct",
    "median_layer_pct",
    "mean_position_pct",
    "median_position_pct",
)
"""What is estimated of a model by each definition."""
ASKED = ("threshold", "min_layers", "min_positions", "scope")
"""What of a definition stands beside its estimates as it is."""
OF_CHANNELS = "a count of distinct channels"
OF_MEDIANS = "a median over features"
OF_MAXIMA = "a pooled share, a maximum over sequences"
"""What no interval was found for that holds the truth in 93 to 97 % of samples (benchmarks/intervals.py)."""
DRAW_COLUMNS = {"definition": "string", "draw": "int32"} | dict.fromkeys(ESTIMATES, "float64")
"""Columns of the table of draws, one row per definition and bootstrap draw of the sequences: the same sequences are in
draw b of every definition, and of every model with as many sequences."""


def draws(found: Evidence | Gap) -> pd.DataFrame:
    """Return ESTIMATES in each bootstrap draw of the sequences under one criterion, with DRAW_COLUMNS."""
    if isinstance(found, Gap):
        return pd.DataFrame(columns=list(DRAW_COLUMNS)).astype(DRAW_COLUMNS)
    drawn = _drawn(found, resampling_counts(len(found.everything)))
    names = {"definition": found.criterion.name, "draw": np.arange(len(drawn[ESTIMATES[0]]))}
    return pd.DataFrame(names | drawn).astype(DRAW_COLUMNS)


def estimates(found: Evidence | Gap) -> dict[str, Any]:
    """Return what one criterion says of the model: ESTIMATES, each with its interval (`_low`, `_high`), or why not.

    `interval_note` says which of them have no interval, and why. `outlier_count_by_mean_positions` counts the features
    that also reach the share of positions when hits are averaged over tensors, the other reading of LLM.int8().
    `largest_quartile_1..3` are those of the magnitudes of the outlier feature with the largest activation, the mean
    over sequences where they are apart, and `largest_quartile_step` how far off they can be.
    """
    definition = found.criterion.definition
    result: dict[str, Any] = {name: getattr(definition, name) for name in ASKED}
    result |= {"sites": "+".join(definition.sites), "rounding": "bfloat16" if found.criterion.rounded else None}
    if isinstance(found, Gap):
        return result | {"note": found.reason}
    estimated = _estimated(found)
    for name, value in estimated.items():
        result |= value.columns(name)
    table = features(found)
    by_mean = table["position_share_mean"] >= found.criterion.definition.min_positions
    return result | {
        "outlier_count_by_mean_positions": int(by_mean.sum()),
        "one_sided_count": int(table["one_sided"].sum()),
        **_largest_feature(table),
        "interval_note": intervals.note(estimated),
        "note": None,
    }


def _estimated(found: Evidence) -> dict[str, Estimate]:
    """Return ESTIMATES of all sequences, with the intervals that hold what they say."""
    values = _drawn(found, np.ones((1, len(found.everything)), np.int64))
    pooled = found.criterion.pooled
    result = {name: Estimate(float(values[name][0]), gap=_without(name, pooled)) for name in ESTIMATES}
    return result if pooled else result | _means(found)


def _without(name: str, pooled: bool) -> str:
    """Return why one of ESTIMATES has no interval, for those that never have one under such a definition."""
    if name.endswith("_pct") and pooled:
        return OF_MAXIMA
    return OF_MEDIANS if name.startswith("median") else OF_CHANNELS


def _means(found: Evidence) -> dict[str, Estimate]:
    """Return what is a sum or a mean over the features of every sequence."""
    each = [shares_over(found, [sequence]) for sequence in found.everything]
    count_S = np.array([shares.qualifies.sum() for shares in each])
    result = {"outlier_count": intervals.total(count_S)}
    for name in ("layer", "position"):
        percent_S = np.array([100 * vars(shares)[name][shares.qualifies].sum() for shares in each])
        result[f"mean_{name}_pct"] = intervals.ratio(percent_S, count_S, most=100)
    return result


def _drawn(found: Evidence, counts_BS: np.ndarray) -> dict[str, np.ndarray]:
    """Return ESTIMATES for each selection of the sequences."""
    return (_pooled_draws if found.criterion.pooled else _summed_draws)(found, counts_BS)


def _summed_draws(found: Evidence, counts_BS: np.ndarray) -> dict[str, np.ndarray]:
    """Return ESTIMATES for each draw of a criterion that is applied per sequence and concatenated."""
    each = [shares_over(found, [sequence]) for sequence in found.everything]
    qualifies_SC = np.stack([shares.qualifies for shares in each])
    often_BC = counts_BS @ qualifies_SC
    where = np.nonzero(qualifies_SC)
    shares = {
        "layer": np.stack([shares.layer for shares in each])[where],
        "position": np.stack([shares.position for shares in each])[where],
    }
    result = {
        "outlier_count": often_BC.sum(1),
        "distinct_channels": (often_BC > 0).sum(1),
        "stable_channels": _stable(often_BC, counts_BS),
    }
    for name, values in shares.items():
        repeated = [np.repeat(values, weights) for weights in counts_BS[:, where[0]]]
        result[f"mean_{name}_pct"] = np.array([100 * _mean(part) for part in repeated])
        result[f"median_{name}_pct"] = np.array([100 * _median(part) for part in repeated])
    return result


def _pooled_draws(found: Evidence, counts_BS: np.ndarray) -> dict[str, np.ndarray]:
    """Return ESTIMATES for each draw of a criterion that is applied to all sequences together."""
    each_SC = qualifies_in_each(found)
    result: dict[str, list[float]] = {name: [] for name in ESTIMATES}
    for counts_S, (candidates, shares) in zip(counts_BS, pooled_shares(found, counts_BS), strict=True):
        qualifies_K = shares.qualifies
        result["outlier_count"].append(qualifies_K.sum())
        result["distinct_channels"].append(qualifies_K.sum())
        result["stable_channels"].append(_stable(counts_S[None] @ each_SC[:, candidates], counts_S[None])[0])
        for name, values in (("layer", shares.layer[qualifies_K]), ("position", shares.position[qualifies_K])):
            result[f"mean_{name}_pct"].append(100 * _mean(values))
            result[f"median_{name}_pct"].append(100 * _median(values))
    return {name: np.array(values, dtype=float) for name, values in result.items()}


def _largest_feature(table: pd.DataFrame) -> dict[str, float | None]:
    """Return the quartiles of the outlier feature with the largest activation; None where there is no feature."""
    names = [f"quartile_{k}" for k in (1, 2, 3)]
    if table.empty:
        return {f"largest_{name}": None for name in (*names, "quartile_step")}
    largest = table["channel"].to_numpy()[table["max_abs"].to_numpy().argmax()]
    own = table[table["channel"] == largest]
    quartiles: dict[str, float | None] = {f"largest_{name}": float(own[name].mean()) for name in names}
    quartiles["largest_quartile_step"] = float(own["quartile_step"].max())
    return quartiles


def _stable(often_BC: np.ndarray, counts_BS: np.ndarray) -> np.ndarray:
    return (often_BC >= STABLE_SHARE * counts_BS.sum(1)[:, None]).sum(1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else np.nan
