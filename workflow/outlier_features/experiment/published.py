"""Published models as points: rows in the columns of the summary, where they come from and what is wrong with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from outlier_features.experiment.table_of_2025 import AS_PUBLISHED, in_our_columns

SUMS = ("outlier_count",)
"""Columns that are sums over sequences."""
OF_LLM_INT8 = {"threshold": 6.0, "min_layers": 0.25, "min_positions": 0.06, "scope": "pooled"}
"""What LLM.int8() asks of an outlier feature, in columns of the summary."""
SUFFIXES = {"M": 1e6, "B": 1e9}


@dataclass(frozen=True)
class Source:
    """A published table of models."""

    models: pd.DataFrame
    """One row per model: label, kind, hub, family (None, or what joins models into a line), and the columns of the
    summary that were published."""
    legend: str
    """How a legend says where the points come from."""
    faults: str
    """What a reader has to know before setting these points beside measured ones."""

    criterion: Mapping[str, Any] = field(default_factory=dict)
    """What was asked there, in columns of the summary: beside what was asked otherwise, its points say nothing."""

    def unlike(self, rows: pd.DataFrame, column: str = "") -> list[str]:
        """Return in what rows of a summary were asked otherwise, in words; a count also by its number of sequences.

        A column that the summary does not have is not held against it.
        """
        asked = {name: value for name, value in self.criterion.items() if name != "sequences" or column in SUMS}
        found = {name: rows[name].dropna().unique() for name in asked if name in rows}
        return [
            f"{name.replace('_', ' ')} {asked[name]} there and {' or '.join(map(str, values))} here"
            for name, values in found.items()
            if any(value != asked[name] for value in values)
        ]


NOTHING = Source(pd.DataFrame(columns=["label", "kind", "hub", "family"]), "", "")
"""For a figure beside which nothing is published."""


def arb8020(published: Mapping[str, pd.DataFrame], faults: str) -> Source:
    """Return the sweep of 2025: seven mixtures of experts and five dense models."""
    table = published.get("arb8020_2025")
    if table is None:
        return NOTHING
    names = table[["model", "kind", "hub"]].rename(columns={"model": "label"})
    models = names.assign(family=None).join(in_our_columns(table))
    asked = ("threshold", "min_layers", "min_positions", "scope", "rounding", "sites", "sequences")
    criterion = {name: AS_PUBLISHED[name] for name in asked}
    return Source(models, "hollow: published (arb8020, 2025)", faults, criterion)


def llm_int8(published: Mapping[str, pd.DataFrame], faults: str) -> Source:
    """Return Table 4 of LLM.int8(): ten dense models of three families, with magnitudes instead of signed values.

    Quartiles of both signs say nothing of the quartiles of the magnitude, and have none here.
    """
    table = published.get("llm_int8_outliers")
    if table is None:
        return NOTHING
    parameters = table["params"].map(lambda text: float(text[:-1]) * SUFFIXES[text[-1]]).astype(float)
    quartiles = table[["quartile_1", "quartile_2", "quartile_3"]].astype(float)
    is_one_sided = (quartiles > 0).all(axis=1) | (quartiles < 0).all(axis=1)
    magnitudes = quartiles.abs().where(is_one_sided)
    models = pd.DataFrame(
        {
            "label": table["model"] + " " + table["params"],
            "kind": "dense",
            "hub": None,
            "family": table["model"],
            "total_params": parameters,
            "active_params": parameters,
            "perplexity": table["c4_perplexity"],
            "distinct_channels": table["outlier_count"],
            "mean_layer_pct": table["layer_pct"],
            "mean_position_pct": table["seq_pct"],
            "largest_quartile_1": magnitudes.min(axis=1),
            "largest_quartile_2": magnitudes["quartile_2"],
            "largest_quartile_3": magnitudes.max(axis=1),
        }
    )
    return Source(models, "hollow: published (Dettmers et al. 2022, Table 4)", faults, OF_LLM_INT8)
