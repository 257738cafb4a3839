"""The answer for one model: which channels are outlier features, where, how large, and what int8 would lose."""

# Shapes: N tensor (one block and site), S sequence, C channel, K channel that is told of.

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from outlier_features.metrics.criteria import Criterion, Gap
from outlier_features.metrics.evidence import Evidence
from outlier_features.metrics.model_answer_words import sentences
from outlier_features.metrics.shares import Shares, shares_over
from outlier_features.site_names import SITES
from outlier_features.statistics.shards import Statistics
from outlier_features.thresholds import exact, round_to_bfloat16

MOST_CHANNELS = 10
NEAREST = 3
"""How many channels are told of where none is an outlier feature: those nearest to it."""
WORST = 3
"""How many tensors are told of that lose most."""

Answer = dict[str, Any]
"""Plain values, as they are written to JSON:

`criterion` (name, threshold, its unit, min_layers, min_positions), `gap` (why the criterion has no answer, or null),
`outlier_channels` (how many), `channels` (at most MOST_CHANNELS, the farthest reaching first; the NEAREST ones where
none is an outlier feature), `massive`, `largest` (of each site), `experts` (null for a dense model), `int8`, `damage`
(by format, the tensors that are predicted to lose most; null where nothing was predicted), `left_out` (NaN and infinite
values; null where all were finite), and `sentences`, which say all of it. Shares are fractions; `first` means position
0 of a window, `rest` all others.
"""


def preferred(found: Sequence[Evidence | Gap]) -> Evidence | Gap:
    """Return the criterion that names channels: the first one applied to all sequences together, else the first."""
    pooled = [each for each in found if each.criterion.pooled and not each.criterion.relative]
    return (pooled or list(found))[0]


def answer(statistics: Statistics, found: Evidence | Gap, layers: pd.DataFrame, damage: pd.DataFrame) -> Answer:
    """Return what one criterion and the tables of `layers` and of `damage` say of a model."""
    told: Answer = {
        "criterion": _criterion(found.criterion),
        "gap": found.reason if isinstance(found, Gap) else None,
        "outlier_channels": None,
        "channels": [],
        "massive": _massive(layers),
        "largest": _largest(layers),
        "experts": _experts(layers),
        "int8": _int8(layers),
        "damage": _damage(damage),
        "left_out": _left_out(layers),
    }
    if isinstance(found, Evidence):
        shares = shares_over(found, found.everything)
        told["outlier_channels"] = int(shares.qualifies.sum())
        told["channels"] = _channels(statistics, found, shares)
    return told | {"sentences": sentences(told)}


def _criterion(criterion: Criterion) -> dict[str, Any]:
    definition = criterion.definition
    return {
        "name": criterion.name,
        "threshold": definition.threshold,
        "unit": "rms" if criterion.relative else "absolute",
        "min_layers": definition.min_layers,
        "min_positions": definition.min_positions,
    }


def _channels(statistics: Statistics, found: Evidence, shares: Shares) -> list[dict[str, Any]]:
    chosen = _chosen(found, shares)
    first_NSK = _first(statistics, found, chosen)
    return [
        _channel(found, shares, int(channel), first_NS)
        for channel, first_NS in zip(chosen, np.moveaxis(first_NSK, 2, 0), strict=True)
    ]


def _chosen(found: Evidence, shares: Shares) -> np.ndarray:
    """Return the channels to tell of, those that reach most tensors first."""
    definition = found.criterion.definition
    peak_C = np.maximum(found.high_NSC, -found.low_NSC).max((0, 1))
    if shares.qualifies.any():
        order = np.lexsort((-peak_C, -shares.position, -shares.layer, ~shares.qualifies))
        return order[: min(MOST_CHANNELS, int(shares.qualifies.sum()))]
    nearness_C = np.minimum(shares.layer / definition.min_layers, shares.position / definition.min_positions)
    order = np.lexsort((-peak_C, -nearness_C))[:NEAREST]
    return order[nearness_C[order] > 0]


def _first(statistics: Statistics, found: Evidence, channels: np.ndarray) -> np.ndarray:
    """Return the activations of some channels at position 0 (N, S, K), rounded as the criterion compares them."""
    first = [statistics.block(block).site(site).matrix("first")[:, channels] for block, site in found.tensors]
    first_NSK = np.stack(first)
    return round_to_bfloat16(first_NSK) if found.criterion.rounded else first_NSK


def _channel(found: Evidence, shares: Shares, channel: int, first_NS: np.ndarray) -> dict[str, Any]:
    high_NS, low_NS = found.high_NSC[..., channel], found.low_NSC[..., channel]
    value_NS = np.where(high_NS >= -low_NS, high_NS, low_NS)
    tensor, window = np.unravel_index(np.abs(value_NS).argmax(), value_NS.shape)
    hits_N = found.hits_NSC[..., channel].sum(1)
    threshold = exact(found.criterion.definition.threshold)
    hits_at_first = int((np.abs(first_NS) * found.scale_NS >= threshold).sum())
    block, site = found.tensors[tensor]
    return {
        "channel": channel,
        "is_outlier_feature": bool(shares.qualifies[channel]),
        "tensors": int((hits_N > 0).sum()),
        "of_tensors": len(found.tensors),
        "blocks": _blocks(found, hits_N),
        "position_share": float(shares.position[channel]),
        "hits": int(hits_N.sum()),
        "hits_at_first": hits_at_first,
        "max_value": float(value_NS[tensor, window]),
        "max_at": {
            "block": block,
            "site": site,
            "is_first": bool(first_NS[tensor, window] == value_NS[tensor, window]),
        },
        "one_sided": found.sides(found.everything, channel) == 1,
    }


def _blocks(found: Evidence, hits_N: np.ndarray) -> dict[str, list[int]]:
    """Return the blocks that are hit at each site."""
    blocks: dict[str, list[int]] = {}
    for (block, site), hits in zip(found.tensors, hits_N, strict=True):
        if hits:
            blocks.setdefault(site, []).append(block)
    return blocks


def _massive(layers: pd.DataFrame) -> dict[str, Any] | None:
    """Return the massive activations over all blocks, the largest first; None where the residual was not captured."""
    rows = layers[(layers["site"] == "residual") & (layers["token_class"] == "all")]
    if rows.empty or rows["massive_count"].isna().all():
        return None
    counts = {token_class: _massive_count(layers, token_class) for token_class in ("all", "first")}
    found = [dict(entry) | {"block": int(row["block"])} for _, row in rows.iterrows() for entry in row["massive_top"]]
    found.sort(key=lambda entry: -abs(entry["value"]))
    return {
        "count": counts["all"],
        "count_at_first": counts["first"],
        "blocks": [int(row["block"]) for _, row in rows.iterrows() if row["massive_count"]],
        "channels": sorted({int(entry["channel"]) for entry in found}),
        "top": found[:WORST],
    }


def _massive_count(layers: pd.DataFrame, token_class: str) -> int:
    rows = layers[(layers["site"] == "residual") & (layers["token_class"] == token_class)]
    return int(rows["massive_count"].sum())


def _largest(layers: pd.DataFrame) -> list[dict[str, Any]]:
    """Return of each site the block of the largest magnitude, with and without position 0."""
    result = []
    for site in dict.fromkeys(layers.loc[layers["site"].isin(list(SITES)), "site"]):
        entry: dict[str, Any] = {"site": site}
        for token_class in ("all", "rest"):
            rows = layers[(layers["site"] == site) & (layers["token_class"] == token_class)]
            top = rows.loc[rows["max_abs"].idxmax()]
            entry[token_class] = {"block": int(top["block"]), "max_abs": float(top["max_abs"])}
        result.append(entry)
    return result


def _left_out(layers: pd.DataFrame) -> dict[str, Any] | None:
    """Return how many activations were not finite, and in which tensors; None where all were finite."""
    rows = layers[layers["token_class"] == "all"]
    counts = rows[["nan_count", "inf_count"]].fillna(0)
    rows = rows[counts.sum(axis=1) > 0]
    if rows.empty:
        return None
    blocks = rows.groupby("site", sort=False)["block"].apply(lambda found: [int(block) for block in found])
    return {"nan": int(counts["nan_count"].sum()), "inf": int(counts["inf_count"].sum()), "blocks": blocks.to_dict()}


def _experts(layers: pd.DataFrame) -> dict[str, Any] | None:
    """Return the super experts of a mixture, the largest output first, and how many experts no token reached."""
    routers = layers[layers["site"] == "router"]
    if routers.empty:
        return None
    found = [
        {"block": int(row["block"]), "expert": int(expert), "max_abs": float(row["expert_max_abs"][expert])}
        for _, row in routers.iterrows()
        for expert in row["super_experts"]
    ]
    return {
        "experts": int(routers["experts"].sum()),
        "unused": int(routers["unused_experts"].sum()),
        "super": sorted(found, key=lambda entry: -entry["max_abs"])[:MOST_CHANNELS],
        "super_count": len(found),
    }


def _int8(layers: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return the tensors that lose most by one scale a window, and by one scale a token."""
    return {name: _worst(layers, f"int8_{name}_db") for name in ("tensor", "token")}


def _damage(damage: pd.DataFrame) -> dict[str, list[dict[str, Any]]] | None:
    """Return the tensors of the lowest predicted ratios of each format, None where none was predicted."""
    if damage.empty:
        return None
    worst = damage[damage["rank"] <= WORST].sort_values(["format", "rank"])
    return {
        str(name): [
            {"block": int(row["block"]), "site": row["site"], "db": _finite(row["predicted_sqnr_db"])}
            for _, row in worst[worst["format"] == name].iterrows()
        ]
        for name in dict.fromkeys(damage["format"])
    }


def _finite(decibels: float) -> float | None:
    """Return a ratio, None where nothing is lost."""
    return float(decibels) if np.isfinite(decibels) else None


def _worst(layers: pd.DataFrame, column: str) -> list[dict[str, Any]]:
    rows = layers[layers[column].notna()].sort_values([column, "block"], kind="stable").head(WORST)
    return [{"block": int(row["block"]), "site": row["site"], "db": float(row[column])} for _, row in rows.iterrows()]
