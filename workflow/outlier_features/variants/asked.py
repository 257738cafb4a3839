"""Asked: what the configuration asks of a model's variants, with what a capture of it found."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch

from outlier_features.artefacts.lineage import Lineage
from outlier_features.artefacts.tables import read_table
from outlier_features.config import entries
from outlier_features.config.config import Config
from outlier_features.config.variants import Intervention, Largest
from outlier_features.errors import ConfigError
from outlier_features.variants.runs import Found
from outlier_features.variants.vary import Asked, Model

SITES = ("attn_in", "mlp_in")
"""Where the largest channels are looked for: the inputs in residual coordinates."""


def asked_of(config: Config, model: str, tables: Mapping[str, Path], lineage: Lineage) -> Asked:
    """Return what a pass of a model is to compare; `tables` are those of its capture."""
    interventions = config.interventions_of(model)
    found = _found(interventions, tables, lineage) if config.needs_capture(model) else Found()
    return Asked(config.variants_of(model), interventions, config.vary, found)


def model_of(config: Config, entry: entries.Model) -> Model:
    """Return how a model runs."""
    return Model(getattr(torch, entry.dtype), entry.experts_implementation, memory_budget=config.capture.memory_bytes)


def _found(interventions: Mapping[str, Intervention], tables: Mapping[str, Path], lineage: Lineage) -> Found:
    outliers, channels, layers = (
        read_table(tables[name], "reduction", lineage.get("reduction"))[0]
        for name in ("outliers", "channels", "layers")
    )
    sets = {}
    for name, entry in interventions.items():
        if isinstance(entry.channels, str):
            own = outliers[outliers["definition"] == entry.channels]
            sets[name] = tuple(sorted({int(channel) for channel in own["channel"]}))
        elif isinstance(entry.channels, Largest):
            sets[name] = _largest(name, entry.channels.largest, channels)
    routers = layers[(layers["site"] == "router") & (layers["token_class"] == "all")]
    experts = {
        int(row["block"]): tuple(int(expert) for expert in row["super_experts"])
        for _, row in routers.iterrows()
        if row["super_experts"] is not None and len(row["super_experts"])
    }
    return Found(sets, experts)


def _largest(name: str, count: int, channels: pd.DataFrame) -> tuple[int, ...]:
    """Return the channels of largest |x|, ascending."""
    largest = channels[channels["site"].isin(SITES)].groupby("channel")["max_abs"].max()
    if len(largest) < count:
        raise ConfigError(
            f"interventions.{name}.channels: {count} are asked for and {len(largest)} have any |x| at the threshold of "
            "the definitions; lower largest, or name channels by number"
        )
    ordered = largest.sort_values(ascending=False, kind="stable")
    return tuple(sorted(int(channel) for channel in ordered.index[:count]))
