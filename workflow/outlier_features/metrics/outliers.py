"""Outlier features: the definitions of the literature, evaluated from statistics for any threshold of the grid."""

# Shapes: N tensor (one block and site), S sequence, C channel, G grid value, B draw, K candidate.

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from outlier_features.config.config import Definition
from outlier_features.errors import ConfigError
from outlier_features.metrics import intervals
from outlier_features.metrics.bootstrap import resampling_counts
from outlier_features.metrics.intervals import Estimate
from outlier_features.statistics.shards import BlockTable, HitTable, SiteTable, Statistics
from outlier_features.thresholds import exact, inverse_rms, level, round_to_bfloat16

TWIN = "_rms"
"""Ends the name of a scale-free twin: the same criterion with the threshold in RMS of each tensor."""

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


@dataclass(frozen=True)
class Criterion:
    """A definition as it is applied: with its absolute threshold, or as its scale-free twin."""

    name: str
    definition: Definition
    relative: bool

    @property
    def rounded(self) -> bool:
        """Whether activations count as rounded to bfloat16."""
        return self.definition.rounding == "bfloat16" and not self.relative

    @property
    def pooled(self) -> bool:
        """Whether the criterion is applied to all sequences together."""
        return self.definition.scope == "pooled"


@dataclass(frozen=True)
class Evidence:
    """What the statistics of a model say about one criterion."""

    criterion: Criterion
    length_S: np.ndarray
    """Tokens of each sequence."""
    grid: tuple[float, ...]
    tensors: list[tuple[int, str]]
    hits_NSC: np.ndarray
    """Positions of each tensor at which the channel hits."""
    covered_SC: np.ndarray
    """Positions at which it hits in any tensor."""
    levels_SCG: np.ndarray
    """Values, over all tensors, that reach exactly the first k values of the grid."""
    high_NSC: np.ndarray
    low_NSC: np.ndarray
    """Largest and smallest activation."""
    scale_NS: np.ndarray
    """What activations are multiplied by before they meet the threshold: 1, or 1 / RMS."""

    @property
    def everything(self) -> list[int]:
        """All sequences."""
        return list(range(self.hits_NSC.shape[1]))

    def shares(self, members: Sequence[int]) -> "Shares":
        """Return by how much each channel meets the criterion over some sequences taken together."""
        return _shares(self, members)

    def sides(self, members: Sequence[int], channel: int) -> int:
        """Return how many signs the hits of a channel have: 2 if both."""
        scale = self.scale_NS[:, members]
        threshold = exact(self.criterion.definition.threshold)
        above = (self.high_NSC[:, members, channel] * scale >= threshold).any()
        below = (self.low_NSC[:, members, channel] * scale <= -threshold).any()
        return int(above) + int(below)


@dataclass(frozen=True)
class Gap:
    """Why a criterion has no answer for a model, in words."""

    criterion: Criterion
    reason: str


@dataclass(frozen=True)
class Shares:
    """By how much each channel meets a criterion, and whether it is enough (all per channel)."""

    layer: np.ndarray
    position: np.ndarray
    position_mean: np.ndarray
    qualifies: np.ndarray


def criteria(definitions: Mapping[str, Definition]) -> list[Criterion]:
    """Return every definition and its scale-free twin."""
    plain = [Criterion(name, definition, relative=False) for name, definition in definitions.items()]
    return plain + [Criterion(name + TWIN, definition, relative=True) for name, definition in definitions.items()]


def rounded_criteria(definitions: Mapping[str, Definition], dtype: str) -> list[Criterion]:
    """Return the definitions that round nothing, with activations rounded to bfloat16, for a model of another `dtype`.

    So it can be set beside models of bfloat16, whose activations are rounded as they come.
    """
    rounding = {"rounding": "bfloat16"}
    return [
        Criterion(name, definition.model_copy(update=rounding), relative=False)
        for name, definition in definitions.items()
        if definition.rounding is None and dtype != "bfloat16"
    ]


def gather(statistics: Statistics, wanted: Sequence[Criterion]) -> list[Evidence | Gap]:
    """Read every block once and return the evidence on each criterion."""
    gatherings = [_Gathering(criterion, statistics) for criterion in wanted]
    for block in range(statistics.blocks):
        table = statistics.block(block)
        for gathering in gatherings:
            gathering.add(block, table)
    return [gathering.result() for gathering in gatherings]


def features(found: Evidence | Gap) -> pd.DataFrame:
    """Return the outlier features of one criterion, with FEATURE_COLUMNS."""
    rows: list[dict[str, Any]] = []
    if isinstance(found, Evidence):
        each = [_shares(found, [sequence]) for sequence in found.everything]
        sequence_count_C = np.sum([shares.qualifies for shares in each], axis=0)
        pooled = found.criterion.pooled
        scopes = [(None, found.everything)] if pooled else [(sequence, [sequence]) for sequence in found.everything]
        for sequence, members in scopes:
            shares = _shares(found, members) if pooled else each[members[0]]
            for channel in np.flatnonzero(shares.qualifies):
                row = {"sequence": sequence, "sequence_count": sequence_count_C[channel]}
                rows.append(row | _feature(found, shares, members, int(channel)))
    return pd.DataFrame(rows, columns=list(FEATURE_COLUMNS)).astype(FEATURE_COLUMNS)


def channels(found: Evidence | Gap) -> pd.DataFrame:
    """Return every tensor and channel with a hit under one pooled criterion, with CHANNEL_COLUMNS."""
    parts = [pd.DataFrame(columns=list(CHANNEL_COLUMNS)).astype(CHANNEL_COLUMNS)]
    if isinstance(found, Evidence) and found.criterion.pooled:
        is_outlier_C = _shares(found, found.everything).qualifies
        for (block, site), hits_SC, high_SC, low_SC in zip(
            found.tensors, found.hits_NSC, found.high_NSC, found.low_NSC, strict=True
        ):
            hit = np.flatnonzero(hits_SC.sum(0))
            value = _largest(high_SC[:, hit].max(0), low_SC[:, hit].min(0))
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


def outlier_sets(found: Evidence, counts_BS: np.ndarray) -> np.ndarray:
    """Return which channels are outlier features of each selection of the sequences: (B, C).

    `counts_BS` says how often each sequence is in each selection. A criterion that is applied per sequence gives the
    channels that qualify in any of them.
    """
    if not found.criterion.pooled:
        return (counts_BS @ _qualifies_in_each(found)) > 0
    chosen_BC = np.zeros((len(counts_BS), found.covered_SC.shape[1]), bool)
    for chosen_C, (candidates, shares) in zip(chosen_BC, _pooled_shares(found, counts_BS), strict=True):
        chosen_C[candidates] = shares.qualifies
    return chosen_BC


class _Gathering:
    """Collects the evidence on one criterion, block by block."""

    def __init__(self, criterion: Criterion, statistics: Statistics) -> None:
        self._criterion, self._statistics = criterion, statistics
        self._gap: Gap | None = None
        self._tensors: list[tuple[int, str]] = []
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in ("hits", "high", "low", "scale")}
        self._levels: np.ndarray | int = 0

    def add(self, block: int, table: BlockTable) -> None:
        """Take in one block."""
        width = self._statistics.facts["channels"]
        for name in self._criterion.definition.sites:
            site = table.site(name)
            if site.width != width:
                reason = (
                    f"{name} has {site.width} channels in block {block} and the residual stream {width}: "
                    "they are not the same coordinates"
                )
                self._gap = Gap(self._criterion, reason)
            if self._gap is None:
                self._add(block, name, site)

    def result(self) -> Evidence | Gap:
        """Return what was collected."""
        if self._gap is not None:
            return self._gap
        coverage = self._statistics.coverage(self._criterion.definition.sites)
        parts = {name: np.stack(values) for name, values in self._parts.items()}
        return Evidence(
            criterion=self._criterion,
            length_S=self._statistics.lengths,
            grid=tuple(self._statistics.facts["grids"]["relative" if self._criterion.relative else "absolute"]),
            tensors=self._tensors,
            hits_NSC=parts["hits"],
            covered_SC=self._reaching(coverage),
            levels_SCG=np.asarray(self._levels),
            high_NSC=parts["high"],
            low_NSC=parts["low"],
            scale_NS=parts["scale"],
        )

    def _add(self, block: int, name: str, site: SiteTable) -> None:
        hits = site.hits
        if hits is None:
            raise ConfigError(f"hits were not counted at {name} in this capture; capture again with this definition.")
        first, rms = site.matrix("first"), site.values("rms")
        high, low = np.maximum(first, site.matrix("max")), np.minimum(first, site.matrix("min"))
        if self._criterion.rounded:
            high, low = round_to_bfloat16(high), round_to_bfloat16(low)
        scale = inverse_rms(rms) if self._criterion.relative else np.ones(len(rms), np.float32)
        found = {"hits": self._reaching(hits), "high": high, "low": low, "scale": scale}
        for key, values in found.items():
            self._parts[key].append(values)
        self._tensors.append((block, name))
        self._levels = self._levels + hits.levels(relative=self._criterion.relative)

    def _reaching(self, hits: HitTable) -> np.ndarray:
        criterion = self._criterion
        return hits.reaching(criterion.definition.threshold, relative=criterion.relative, rounded=criterion.rounded)


def _shares(found: Evidence, members: Sequence[int]) -> Shares:
    """Return by how much each channel meets the criterion over some sequences taken together."""
    definition = found.criterion.definition
    tokens = found.length_S[members].sum()
    hits_NC = found.hits_NSC[:, members].sum(1)
    layer_C = (hits_NC > 0).mean(0)
    position_C = found.covered_SC[members].sum(0) / tokens
    qualifies_C = (hits_NC.any(0)) & (layer_C >= definition.min_layers) & (position_C >= definition.min_positions)
    return Shares(layer_C, position_C, hits_NC.mean(0) / tokens, qualifies_C)


def _feature(found: Evidence, shares: Shares, members: Sequence[int], channel: int) -> dict[str, Any]:
    hits_N = found.hits_NSC[:, members, channel].sum(1)
    value = _largest(found.high_NSC[:, members, channel].max(), found.low_NSC[:, members, channel].min())
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
    return _largest(found.high_NSC[:, members, channel], found.low_NSC[:, members, channel])


def _largest(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return of each pair of a largest and a smallest value the one of the larger magnitude."""
    return np.where(np.abs(high) >= np.abs(low), high, low)


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
    each = [_shares(found, [sequence]) for sequence in found.everything]
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
    each = [_shares(found, [sequence]) for sequence in found.everything]
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
    each_SC = _qualifies_in_each(found)
    result: dict[str, list[float]] = {name: [] for name in ESTIMATES}
    for counts_S, (candidates, shares) in zip(counts_BS, _pooled_shares(found, counts_BS), strict=True):
        qualifies_K = shares.qualifies
        result["outlier_count"].append(qualifies_K.sum())
        result["distinct_channels"].append(qualifies_K.sum())
        result["stable_channels"].append(_stable(counts_S[None] @ each_SC[:, candidates], counts_S[None])[0])
        for name, values in (("layer", shares.layer[qualifies_K]), ("position", shares.position[qualifies_K])):
            result[f"mean_{name}_pct"].append(100 * _mean(values))
            result[f"median_{name}_pct"].append(100 * _median(values))
    return {name: np.array(values, dtype=float) for name, values in result.items()}


def _pooled_shares(found: Evidence, counts_BS: np.ndarray) -> Iterator[tuple[np.ndarray, Shares]]:
    """Yield, for each selection of sequences taken together, the channels that can qualify and by how much they do."""
    definition = found.criterion.definition
    ever_NC = (found.hits_NSC > 0).any(1)
    candidates = np.flatnonzero(ever_NC.any(0) & (ever_NC.mean(0) >= definition.min_layers))  # no draw can have others
    hit_SNK = (found.hits_NSC[:, :, candidates] > 0).transpose(1, 0, 2).astype(np.float32)
    covered_SK = found.covered_SC[:, candidates]
    for counts_S in counts_BS:
        layer_K = hit_SNK[counts_S > 0].any(0).mean(0)
        position_K = counts_S @ covered_SK / (counts_S @ found.length_S)
        qualifies_K = (layer_K >= definition.min_layers) & (layer_K > 0) & (position_K >= definition.min_positions)
        yield candidates, Shares(layer_K, position_K, np.full_like(position_K, np.nan), qualifies_K)


def _qualifies_in_each(found: Evidence) -> np.ndarray:
    """Return in which sequences each channel meets the criterion (S, C)."""
    return np.stack([_shares(found, [sequence]).qualifies for sequence in found.everything])


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
