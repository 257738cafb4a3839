"""Metrics per block and site: kurtosis in its four meanings, max-median ratio, signal propagation, experts."""

# Shapes: S sequence, T position, C channel, E expert.

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from outlier_features.metrics import int8_estimates
from outlier_features.metrics.entropy import entropy
from outlier_features.site_names import MATRIX_INPUTS
from outlier_features.statistics.shards import BlockTable, SiteTable, Statistics

TOKEN_CLASSES = ("all", "first", "rest")
"""Which positions of a sequence a row is about: attention sinks live at the first."""

TOP_MASSIVE = 5

SUPER_PERCENTILE, SUPER_SHARE = 99.5, 0.1
"""A super expert's largest output exceeds this percentile of all experts and this share of the largest (Su et al.)."""

RESOLVED = 1e-4
"""A variance is told from sums where it is at least this share of the mean square, a spread of means where it is this
share of the RMS: sums of float32 are within some 1e-6 of their sum of magnitudes."""

LAYER_COLUMNS = {
    "block": "int32",
    "site": "string",
    "token_class": "string",
    "channels": "Int32",
    "rms": "float64",
    "max_abs": "float64",
    "hit_threshold": "float64",
    "hit_share": "float64",
    "kurtosis_neuron_rms": "float64",
    "kurtosis_flattened": "float64",
    "kurtosis_token_excess": "float64",
    "kurtosis_channel_mean": "float64",
    "mmr": "float64",
    "input_correlation": "float64",
    "channel_entropy": "float64",
    "input_cosine": "float64",
    "gain": "float64",
    "attention_top1": "float64",
    "attention_entropy": "float64",
    "attention_sink": "float64",
    "median_abs": "float64",
    "int8_tensor_db": "float64",
    "int8_token_db": "float64",
    "massive_count": "Int64",
    "massive_top": "object",
    "nan_count": "Int64",
    "inf_count": "Int64",
    "experts": "Int32",
    "top_k": "Int32",
    "expert_tokens": "object",
    "expert_load": "object",
    "routing_entropy": "float64",
    "unused_experts": "Int32",
    "router_margin": "float64",
    "router_margin_low": "float64",
    "router_distance": "float64",
    "shared_energy_share": "float64",
    "expert_max_abs": "object",
    "super_experts": "object",
}
"""Columns of the table of layers, one row per block, site and token class; routers have the site `router`, the
attention of sampled queries (DEFINITIONS: attention) `attention`.

The formulas are those of DEFINITIONS: `kurtosis_neuron_rms` He et al. 2024 Eq. 1, `kurtosis_flattened` Bondarenko et
al. 2023, `kurtosis_token_excess` Outlier-Safe Pre-Training, `kurtosis_channel_mean` llama.cpp imatrix, `mmr` and
`input_correlation` He et al. 2024, massive activations Sun et al. 2024 (`residual` only).
`channel_entropy` is the entropy in bits of how energy is shared among channels. At `residual`, `input_cosine` is the
mean cosine between what a block was handed at a position and what it returned, `gain` the ratio of their RMS.
`int8_tensor_db` and `int8_token_db` are what symmetric int8 would lose at a matrix input, estimated (int8_estimates).
`hit_share` is the share of values with |x| >= `hit_threshold`; `routing_entropy` is in bits. `expert_max_abs` is each
expert's largest |down-projection output| before the router's weight, over the tokens routed to it (None without any);
`router_margin` is the median over tokens of the lead, in logits, of the last chosen expert over the first unchosen,
`router_margin_low` its 5th percentile, `router_distance` the RMS distance between two rows of the router's matrix, and
`shared_energy_share` the share of the shared expert, by its gate, in the sum of squares that it and the routed experts
add. `super_experts` lists the experts of the block that are super experts of
the model (Su et al. 2025).
"""


def layers(statistics: Statistics, hit_threshold: float) -> pd.DataFrame:
    """Return every metric of every block and site, with LAYER_COLUMNS. `hit_threshold` is a value of the grid."""
    rows: list[dict[str, Any]] = []
    for block in range(statistics.blocks):
        table = statistics.block(block)
        for site in table.sites:
            rows += [{"block": block, "site": site} | row for row in _rows(table, site, hit_threshold)]
    routers = [row for row in rows if row["site"] == "router"]
    for row, experts in zip(routers, super_experts([row["expert_max_abs"] for row in routers]), strict=True):
        row["super_experts"] = experts
    return pd.DataFrame(rows, columns=list(LAYER_COLUMNS)).astype(LAYER_COLUMNS)


def _rows(table: BlockTable, site: str, hit_threshold: float) -> Iterator[dict[str, Any]]:
    if site == "router":
        return _router_rows(table)
    if site == "attention":
        return iter([_attention_row(table.site(site))])
    return _site_rows(table.site(site), hit_threshold, is_matrix_input=site in MATRIX_INPUTS)


def super_experts(largest: Sequence[Sequence[float | None]]) -> list[list[int]]:
    """Return, for each block, its super experts, given the largest |output| of every expert of every block.

    Such an expert exceeds the 99.5th percentile of all experts (interpolated) and a tenth of the largest (Su et al.
    2025, arXiv 2507.23279). An expert without tokens (None) is none, and counts for neither. The largest of all passes
    both unless another equals it, so that there is one says little.
    """
    known = [value for of_block in largest for value in of_block if value is not None]
    if not known:
        return [[] for _ in largest]
    limit = max(float(np.percentile(known, SUPER_PERCENTILE)), SUPER_SHARE * max(known))
    return [[e for e, value in enumerate(of_block) if value is not None and value > limit] for of_block in largest]


def _site_rows(site: SiteTable, hit_threshold: float, *, is_matrix_input: bool) -> Iterator[dict[str, Any]]:
    int8_columns = int8_estimates.of_site(site) if is_matrix_input else {}
    for token_class in TOKEN_CLASSES:
        moments = _Moments(site, token_class)
        if not moments.values:
            continue  # windows of one token have no others
        yield {
            "token_class": token_class,
            "channels": site.width,
            "rms": float(np.sqrt(moments.sum_2_SC.sum() / moments.values)),
            "max_abs": float(moments.max_abs_SC.max()),
            "kurtosis_neuron_rms": moments.kurtosis_neuron_rms(),
            "kurtosis_flattened": moments.kurtosis_flattened(),
            "kurtosis_token_excess": _mean(site.of_class("position_kurtosis", token_class)),
            "kurtosis_channel_mean": moments.kurtosis_channel_mean(),
            "input_correlation": moments.input_correlation(),
            "channel_entropy": moments.channel_entropy(),
            **_block_metrics(site, token_class, moments),
            "nan_count": int(site.values("nan_count").sum()) if token_class == "all" else None,
            "inf_count": int(site.values("inf_count").sum()) if token_class == "all" else None,
            **_hit_share(site, token_class, hit_threshold, moments.values),
            **_median_metrics(site, token_class),
            **(int8_columns if token_class == "all" else {}),
        }


class _Moments:
    """Sums over the positions of one token class, per sequence and channel."""

    def __init__(self, site: SiteTable, token_class: str) -> None:
        first_SFC = site.first.astype(np.float64)
        _, rows, self.channels = first_SFC.shape
        use_first, use_rest = token_class != "rest", token_class != "first"
        self.tokens_S = rows * (use_first + use_rest * (site.statistics.lengths - 1))
        self.values = int(self.tokens_S.sum()) * self.channels
        sums = [use_rest * site.matrix(name) for name in ("sum", "sum_2", "sum_4")]
        self.sum_SC, self.sum_2_SC, self.sum_4_SC = (
            total + use_first * (first_SFC**power).sum(1) for total, power in zip(sums, (1, 2, 4), strict=True)
        )
        first_3_S = (first_SFC**3).sum((1, 2))
        self.sum_3_S = use_first * first_3_S + use_rest * (site.values("sum_3") - first_3_S)
        self.max_abs_SC = np.maximum(use_first * np.abs(first_SFC).max(1), use_rest * site.rest_max_abs)

    def kurtosis_neuron_rms(self) -> float:
        """Return (mean_c s_c^4) / (mean_c s_c^2)^2 with s_c^2 the mean square of a channel; 1 to C."""
        square_C = self.sum_2_SC.sum(0) / (self.values / self.channels)
        return _ratio((square_C**2).mean(), square_C.mean() ** 2)

    def kurtosis_flattened(self) -> float:
        """Return the Pearson kurtosis of each sequence's flattened tensor, averaged over sequences.

        NaN where the values of a sequence lie so close around one that sums cannot tell their spread.
        """
        count_S = self.tokens_S * self.channels
        mean, square, cube, fourth = (
            total / count_S for total in (self.sum_SC.sum(1), self.sum_2_SC.sum(1), self.sum_3_S, self.sum_4_SC.sum(1))
        )
        central = fourth - 4 * mean * cube + 6 * mean**2 * square - 3 * mean**4
        variance = np.where(square - mean**2 > RESOLVED * square, square - mean**2, 0)
        return float(np.mean([_ratio(c, v**2) for c, v in zip(central, variance, strict=True)]))

    def kurtosis_channel_mean(self) -> float:
        """Return the excess kurtosis over the per-channel mean activations; NaN where sums cannot tell their spread."""
        mean_C = self.sum_SC.sum(0) / (self.values / self.channels)
        deviation_C = mean_C - mean_C.mean()
        variance = (deviation_C**2).mean()
        is_told = variance > RESOLVED**2 * self.sum_2_SC.sum() / self.values
        return _ratio((deviation_C**4).mean(), variance**2) - 3 if is_told else np.nan

    def input_correlation(self) -> float:
        """Return the mean off-diagonal of X X^T / C, X scaled to mean square 1, averaged over sequences."""
        if self.tokens_S.min() < 2:
            return np.nan
        energy_S = self.sum_2_SC.sum(1)
        pairs_S = (self.sum_SC**2).sum(1) - energy_S
        tokens_S = self.tokens_S
        scale_S = energy_S / (tokens_S * self.channels) * tokens_S * (tokens_S - 1) * self.channels
        return float(np.mean([_ratio(p, s) for p, s in zip(pairs_S, scale_S, strict=True)]))

    def channel_entropy(self) -> float:
        """Return the entropy in bits of how the energy is shared among channels: 0 to log2(C)."""
        return entropy(self.sum_2_SC.sum(0))


def _block_metrics(site: SiteTable, token_class: str, moments: _Moments) -> dict[str, Any]:
    """Return how a block's output compares with its input; nothing at other sites."""
    if site.rows["input_rms"].null_count:
        return {}
    input_rms = site.of_class("input_rms", token_class).astype(np.float64)
    energy = float((input_rms**2).sum()) * moments.channels
    return {
        "input_cosine": _mean(site.of_class("input_cosine", token_class)),
        "gain": float(np.sqrt(_ratio(moments.sum_2_SC.sum(), energy))),
    }


def _attention_row(site: SiteTable) -> dict[str, Any]:
    """Return where sampled queries look, averaged over windows."""
    names = ("attention_top1", "attention_entropy", "attention_sink")
    return {"token_class": "all"} | {name: float(site.values(name).mean()) for name in names}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan


def _hit_share(site: SiteTable, token_class: str, threshold: float, values: int) -> dict[str, Any]:
    if site.hits is None:
        return {}
    first = int((np.abs(site.first.astype(np.float64)) >= threshold).sum())
    everything = int(site.hits.reaching(threshold).sum())
    hits = {"all": everything, "first": first, "rest": everything - first}[token_class]
    return {"hit_threshold": threshold, "hit_share": hits / values}


def _median_metrics(site: SiteTable, token_class: str) -> dict[str, Any]:
    """Return MMR and, of a hidden state, its massive activations; nothing where no median was taken."""
    if site.rows["mmr"].null_count:
        return {}
    mmr = {"mmr": _mean(site.of_class("mmr", token_class))}
    if site.rows["median_abs"].null_count:
        return mmr
    found = _massive(site, token_class)
    return mmr | {
        "median_abs": float(site.values("median_abs").mean()) if token_class == "all" else np.nan,
        "massive_count": len(found),
        "massive_top": sorted(found, key=lambda entry: -abs(entry["value"]))[:TOP_MASSIVE],
    }


def _massive(site: SiteTable, token_class: str) -> list[dict[str, Any]]:
    keys = ("position", "channel", "token", "value")
    columns = [site.lists(f"massive_{key}") for key in keys]
    found = [
        {"window": int(window)} | {key: value.item() for key, value in zip(keys, entry, strict=True)}
        for window, *lists in zip(site.values("window"), *columns, strict=True)
        for entry in zip(*lists, strict=True)
    ]
    wanted = {"all": (True, False), "first": (True,), "rest": (False,)}[token_class]
    return [entry for entry in found if (entry["position"] == 0) in wanted]


def _router_rows(table: BlockTable) -> Iterator[dict[str, Any]]:
    """Yield the load of the experts and their largest outputs under natural routing, over all tokens."""
    site = table.site("router")
    experts, top_k = int(site.values("expert_count")[0]), int(site.values("top_k")[0])
    tokens_E = np.bincount(np.concatenate(site.lists("expert_choices")), minlength=experts)
    load_E = tokens_E / tokens_E.sum()
    largest_E = np.fmax.reduce(site.matrix("expert_max_abs"))
    yield {
        "token_class": "all",
        "experts": experts,
        "top_k": top_k,
        "expert_tokens": tokens_E.tolist(),
        "expert_load": load_E.tolist(),
        "routing_entropy": entropy(tokens_E),
        "unused_experts": int((tokens_E == 0).sum()),
        "expert_max_abs": [None if np.isnan(value) else value for value in largest_E.tolist()],
        **_margins(site),
    }


def _margins(site: SiteTable) -> dict[str, float]:
    """Return how far the last chosen expert leads, and what a shared expert adds; nothing where that is not known."""
    found: dict[str, float] = {}
    if not site.rows["router_margin"].null_count:
        margins = np.concatenate(site.lists("router_margin"))
        is_finite = np.isfinite(margins).all()  # infinite where every expert is chosen
        low = np.percentile(margins, 5) if is_finite else np.percentile(margins, 5, method="lower")
        found |= {"router_margin": float(np.median(margins)), "router_margin_low": float(low)}
    if not site.rows["router_distance"].null_count:
        found["router_distance"] = float(site.values("router_distance")[0])
    if not site.rows["shared_energy"].null_count and not site.rows["routed_energy"].null_count:
        shared, routed = (float(site.values(f"{part}_energy").sum()) for part in ("shared", "routed"))
        found["shared_energy_share"] = _ratio(shared, shared + routed)
    return found


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else np.nan
